package main

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/api"
)

type transferCmd struct {
	Offer transferOfferCmd `cmd:"" help:"Offer a device of yours to a party, or to whoever shows the code."`
	Take  transferTakeCmd  `cmd:"" help:"Take an offered device: from then on it is yours."`
	List  transferListCmd  `cmd:"" help:"List your transfers, as seller and as buyer."`
	End   transferEndCmd   `cmd:"" help:"Withdraw your offer, or decline one to you."`
}

func (*transferCmd) Help() string {
	return `A device changes hands by two words: its owner offers it with his own credential, the next one takes it with his. The old device then closes and its
certificates end; the unit becomes a new device of the buyer's, which he enrols with a code that only he sees. He reads nothing from before, the
seller nothing from after. Both words stand on both records.

Example:
  holdfast device transfer offer watch --readings export --token anna.token --hub https://HOST:8443
  holdfast device transfer take abcd-efgh-ijkm-nopq --label "my watch" --token ben.token --hub https://HOST:8443`
}

type transferOfferCmd struct {
	Device   string `arg:"" help:"A label or an id."`
	To       string `help:"Whom: the id that a person gave you, or the name of an organisation; left out: whoever shows the code." placeholder:"PARTY" env:"-"`
	Readings string `enum:"keep,export,erase" default:"keep" help:"Your readings so far: keep; export: erased 30 days after it is taken; erase: when it is taken." env:"-"`
	Children bool   `help:"Those of a gateway's children that are yours go along; others stay with their owners, without a gateway." env:"-"`
	Days     int    `help:"How long the offer stands, 7 if left out." placeholder:"N" env:"-"`
	hubFlags
	outputFlags
}

func (*transferOfferCmd) Help() string {
	return `Offers a device of yours. The code is shown this once: hand it over with the device.

Example:
  holdfast device transfer offer watch --token anna.token --hub https://HOST:8443`
}

func (c *transferOfferCmd) Run(a *app) error {
	if c.Days < 0 || c.Days > 60 {
		return usagef("--days is 1 to 60")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	body := map[string]any{"device": c.Device, "to": c.To, "readings": c.Readings, "children": c.Children}
	if c.Days > 0 {
		body["days"] = c.Days
	}
	var o api.OfferedTransfer
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/transfers", body, &o); err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, o)
	}
	fmt.Fprintf(a.stdout, "Transfer %s stands until %s.\n", o.Transfer.ID, whenever(o.Transfer.Until))
	if o.Code != "" {
		fmt.Fprintf(a.stdout, "\nThe next owner, with his own credential:\n\n  holdfast device transfer take %s\n", o.Code)
		return nil
	}
	fmt.Fprintf(a.stdout, "\nThe next owner, with his own credential:\n\n  holdfast device transfer take %s\n", o.Transfer.ID)
	return nil
}

type transferTakeCmd struct {
	Transfer string `arg:"" name:"transfer" help:"The code that came with the device, or the id of an offer to you; - reads it from standard input."`
	Label    string `help:"What you call it; its serial or its profile if left out." placeholder:"NAME" env:"-"`
	Days     int    `help:"How long the enrolment code lives, 7 if left out." placeholder:"N" env:"-"`
	hubFlags
	outputFlags
}

func (*transferTakeCmd) Help() string {
	return `Makes you the owner of an offered device, with your own credential. Reset the unit, then enrol it with the code that is shown this once.

Example:
  holdfast device transfer take abcd-efgh-ijkm-nopq --label "my watch" --token ben.token --hub https://HOST:8443`
}

func (c *transferTakeCmd) Run(a *app) error {
	if c.Days < 0 || c.Days > 400 {
		return usagef("--days is 1 to 400")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	text := secretArg(a, c.Transfer)
	body := map[string]any{"label": c.Label, "code": text}
	if _, bad := holdfast.ParseID[holdfast.TransferID](text); bad == nil {
		body = map[string]any{"label": c.Label, "transfer": text}
	}
	if c.Days > 0 {
		body["days"] = c.Days
	}
	var t api.TakenTransfer
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/transfers/taking", body, &t); err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, t)
	}
	fmt.Fprintf(a.stdout, "Device %s is %s, and yours.\n", cell(t.Device.Label), t.Device.ID)
	for _, d := range t.Children {
		fmt.Fprintf(a.stdout, "So is %s, %s, behind it.\n", cell(d.Label), d.ID)
	}
	reading := "temperature=21.5"
	if t.Device.Profile != "" {
		reading = "STREAM=VALUE"
	}
	enrolSteps(a, t.Device.Label, t.EnrolmentCode, whenever(t.EnrolmentUntil), reading)
	return nil
}

type transferListCmd struct {
	hubFlags
	outputFlags
}

func (*transferListCmd) Help() string {
	return `Lists the transfers in which you are the seller or the buyer.

Example:
  holdfast device transfer list --token anna.token --hub https://HOST:8443`
}

func (c *transferListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	transfers, err := all[api.Transfer](a, hub, "/v1/transfers")
	if err != nil {
		return err
	}
	rows := make([][]string, len(transfers))
	for i, t := range transfers {
		rows[i] = transferRow(t)
	}
	return c.print(a, transfers, transferHeader(), rows)
}

func transferHeader() []string {
	return []string{"TRANSFER", "SELLER", "BUYER", "STATE", "DEVICE", "READINGS", "UNTIL"}
}

func transferRow(t api.Transfer) []string {
	return []string{t.ID, partyName(t.Seller), partyName(t.Buyer), t.State, t.Device + t.Next, t.Readings, whenever(t.Until)}
}

type transferEndCmd struct {
	Transfer string `arg:"" help:"Its id."`
	hubFlags
	outputFlags
}

func (*transferEndCmd) Help() string {
	return `Withdraws an offer of yours that nobody has taken, or declines one to you.

Example:
  holdfast device transfer end TRANSFER --token anna.token --hub https://HOST:8443`
}

func (c *transferEndCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var t api.Transfer
	if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/transfers", c.Transfer), nil, &t); err != nil {
		return err
	}
	return c.print(a, t, transferHeader(), [][]string{transferRow(t)})
}

type deviceReleaseCmd struct {
	Device string `arg:"" help:"A label or an id."`
	hubFlags
}

func (*deviceReleaseCmd) Help() string {
	return `Gives a device of yours back. It closes, your readings stay yours, and the unit becomes a new, unclaimed device: an administrator makes its claim code,
with holdfast device code --claim, and hands it out.

Example:
  holdfast device release watch --token anna.token --hub https://HOST:8443`
}

func (c *deviceReleaseCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Do(a.ctx, http.MethodPost, named("/v1/devices", c.Device)+"/release", nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Device %s is released. Its readings so far are yours.\n", cell(c.Device))
	return nil
}

type noticeCmd struct {
	Ask    noticeAskCmd  `cmd:"" help:"Tell an owner who does not answer that his device is to be released."`
	List   noticeListCmd `cmd:"" help:"List notices: an owner's own, to an administrator all."`
	Object noticeEndCmd  `cmd:"" help:"Object to the release of a device of yours; an administrator withdraws his notice."`
}

func (*noticeCmd) Help() string {
	return `Nobody has a device for ever whom nobody can reach. An administrator gives notice with a reason; the owner sees it at once and may object until its
last day. Then the device is released, and its readings stay the old owner's. After an objection there is no new notice for 90 days.

Example:
  holdfast device notice ask watch --reason "left behind in flat 3" --data DATA
  holdfast device notice object NOTICE --token anna.token --hub https://HOST:8443`
}

type noticeAskCmd struct {
	Device string `arg:"" help:"A label or an id."`
	Reason string `required:"" help:"The owner reads it." placeholder:"TEXT" env:"-"`
	Days   int    `help:"How long he may object: 7 to 365, 14 if left out." placeholder:"N" env:"-"`
	hubFlags
	outputFlags
}

func (*noticeAskCmd) Help() string {
	return `Gives notice that a device is to be released.

Example:
  holdfast device notice ask watch --reason "left behind in flat 3" --days 30 --data DATA`
}

func (c *noticeAskCmd) Run(a *app) error {
	if c.Days != 0 && (c.Days < 7 || c.Days > 365) {
		return usagef("--days is 7 to 365")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	body := map[string]any{"reason": c.Reason}
	if c.Days > 0 {
		body["days"] = c.Days
	}
	var n api.ReleaseNotice
	if err := hub.Do(a.ctx, http.MethodPost, named("/v1/devices", c.Device)+"/notices", body, &n); err != nil {
		return err
	}
	return c.print(a, n, noticeHeader(), [][]string{noticeRow(n)})
}

func noticeHeader() []string {
	return []string{"NOTICE", "DEVICE", "OWNER", "STATE", "UNTIL", "REASON"}
}

func noticeRow(n api.ReleaseNotice) []string {
	return []string{n.ID, n.Device, partyName(n.Owner), n.State, whenever(n.Until), strconv.Quote(n.Reason)}
}

type noticeListCmd struct {
	hubFlags
	outputFlags
}

func (*noticeListCmd) Help() string {
	return `Lists notices of release.

Example:
  holdfast device notice list --data DATA`
}

func (c *noticeListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	notices, err := all[api.ReleaseNotice](a, hub, "/v1/notices")
	if err != nil {
		return err
	}
	rows := make([][]string, len(notices))
	for i, n := range notices {
		rows[i] = noticeRow(n)
	}
	return c.print(a, notices, noticeHeader(), rows)
}

type noticeEndCmd struct {
	Notice string `arg:"" help:"Its id."`
	hubFlags
	outputFlags
}

func (*noticeEndCmd) Help() string {
	return `Objects, with your own credential, to the release of a device of yours: it stays yours. As an administrator, withdraws the notice.

Example:
  holdfast device notice object NOTICE --token anna.token --hub https://HOST:8443`
}

func (c *noticeEndCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var n api.ReleaseNotice
	if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/notices", c.Notice), nil, &n); err != nil {
		return err
	}
	return c.print(a, n, noticeHeader(), [][]string{noticeRow(n)})
}
