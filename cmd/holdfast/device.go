package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
)

type deviceCmd struct {
	Add    deviceAddCmd    `cmd:"" help:"Add a device, or those of a file of units."`
	List   deviceListCmd   `cmd:"" help:"List devices."`
	Show   deviceShowCmd   `cmd:"" help:"Show a device, its certificates and its streams."`
	Code   deviceCodeCmd   `cmd:"" help:"Make a new enrolment or claim code; the old one ends."`
	Revoke deviceRevokeCmd `cmd:"" help:"Take back a device's certificates and cut its connections."`
	Claim  deviceClaimCmd  `cmd:"" help:"Become the owner of an unclaimed device."`

	Transfer transferCmd      `cmd:"" help:"Give a device to its next owner: offer, take, list, end."`
	Release  deviceReleaseCmd `cmd:"" help:"Give a device back: it becomes unclaimed, its readings stay yours."`
	Notice   noticeCmd        `cmd:"" help:"Have a device released whose owner does not answer; or object to that."`
}

func (*deviceCmd) Help() string {
	return `A device is a unit in one owner's hands. Its enrolment code gets it a certificate; a claim code makes a party its owner. A change of owner makes a
new device of the same unit: nobody reads what was the other's.

Example:
  holdfast device add pump-1 --data DATA
  holdfast device show pump-1 --data DATA`
}

type deviceAddCmd struct {
	Name      string `arg:"" optional:"" help:"What it is called."`
	Owner     string `help:"Whose it is: a name or an id; the operating organisation if left out." placeholder:"PARTY" xor:"owner" env:"-"`
	Unclaimed bool   `help:"Nobody's, until a party shows its claim code." xor:"owner" env:"-"`
	Subject   string `help:"Whom its readings are about, if another than the owner." placeholder:"PARTY" env:"-"`
	Profile   string `help:"Its profile; without one it is open: a first reading makes a stream." placeholder:"PROFILE" env:"-"`
	Gateway   string `help:"The device that publishes for it under this name." placeholder:"DEVICE" env:"-"`
	Serial    string `help:"The unit's serial." placeholder:"SERIAL" env:"-"`
	From      string `help:"Add the units of this CSV file: serial, and if wanted label, profile, owner." placeholder:"FILE" type:"path" env:"-"`
	Days      int    `help:"How long the enrolment code lives, 7 if left out." placeholder:"N" env:"-"`
	hubFlags
	outputFlags
}

func (*deviceAddCmd) Help() string {
	return `Adds a device and prints its enrolment code, which is shown this once, with what to do next. A file of units is taken whole or not at all, and
a serial that is known already is left as it was: the same file may be given again.

Example:
  holdfast device add pump-1 --data DATA
  holdfast device add watch-1 --owner "Ada Lovelace" --profile watch --data DATA
  holdfast device add --from units.csv --unclaimed --profile watch --data DATA -o json > codes.json`
}

func (c *deviceAddCmd) Run(a *app) error {
	if (c.Name == "") == (c.From == "") {
		return usagef("give the name of one device, or --from with a file of units")
	}
	if c.Days < 0 || c.Days > 400 {
		return usagef("--days is 1 to 400")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if c.From != "" {
		return c.units(a, hub)
	}
	body := map[string]any{"label": c.Name, "owner": c.Owner, "unclaimed": c.Unclaimed, "subject": c.Subject, "profile": c.Profile,
		"gateway": c.Gateway, "serial": c.Serial}
	if c.Days > 0 {
		body["days"] = c.Days
	}
	var d api.AddedDevice
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/devices", body, &d); err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, d)
	}
	fmt.Fprintf(a.stdout, "Device %s is %s", cell(d.Device.Label), d.Device.ID)
	if d.Device.Owner != nil {
		fmt.Fprintf(a.stdout, ", owned by %s", cell(partyName(d.Device.Owner)))
	}
	fmt.Fprintln(a.stdout, ".")
	if d.TakesFrom != nil {
		fmt.Fprintf(a.stdout, "It takes readings from %s on: a device of this label, serial or gateway's child was erased.\n", d.TakesFrom.Format(time.RFC3339))
	}
	if d.ClaimCode != "" {
		fmt.Fprintf(a.stdout, "\nIts claim code, for whoever shall own it:\n\n  %s\n", d.ClaimCode)
	}
	if c.Gateway != "" {
		fmt.Fprintf(a.stdout, "\n%s publishes for it:\n\n  child/%s/data/STREAM\n", cell(c.Gateway), cell(d.Device.Label))
	}
	reading := "temperature=21.5"
	if c.Profile != "" {
		reading = "STREAM=VALUE" // those of the profile, and no others
	}
	enrolSteps(a, d.Device.Label, d.EnrolmentCode, whenever(d.EnrolmentUntil), reading)
	return nil
}

// enrolSteps prints an enrolment code as the two commands to copy.
func enrolSteps(a *app, label, code, until, reading string) {
	if code == "" {
		return
	}
	fmt.Fprintf(a.stdout, "\nOn the device, until %s:\n\n  holdfast enrol '%s' --out %s\n  holdfast send --identity %s %s\n", until, code,
		folderFor(label), folderFor(label), reading)
}

// folderFor makes a device's name one word of a shell.
func folderFor(label string) string {
	word := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, label)
	if word = strings.Trim(word, "-."); word == "" {
		return "device"
	}
	return word
}

func (c *deviceAddCmd) units(a *app, hub *client.Client) error {
	if c.Gateway != "" || c.Serial != "" || c.Subject != "" {
		return usagef("--gateway, --serial and --subject are for one device")
	}
	file, err := os.ReadFile(c.From)
	if err != nil {
		return fileError("units", err)
	}
	q := url.Values{"owner": {c.Owner}, "profile": {c.Profile}, "unclaimed": {strconv.FormatBool(c.Unclaimed)}}
	if c.Days > 0 {
		q.Set("days", strconv.Itoa(c.Days))
	}
	body, _, err := hub.Stream(a.ctx, http.MethodPost, "/v1/units", q, client.Body{Type: "text/csv", Data: file})
	if err != nil {
		return err
	}
	defer body.Close()
	units := []api.UnitLine{}
	lines := json.NewDecoder(body)
	for {
		var u api.UnitLine
		err := lines.Decode(&u)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			fmt.Fprintf(a.stderr, "The answer broke off. All units were added; holdfast device code makes codes for those that are not listed.\n")
			return errors.Join(c.printUnits(a, units), fmt.Errorf("read codes: %w", err))
		}
		units = append(units, u)
	}
	return c.printUnits(a, units)
}

func (c *deviceAddCmd) printUnits(a *app, units []api.UnitLine) error {
	rows := make([][]string, len(units))
	for i, u := range units {
		note := ""
		if u.Existing {
			note = "known already"
		} else if u.TakesFrom != nil {
			note = "takes readings from " + u.TakesFrom.Format(time.RFC3339)
		}
		rows[i] = []string{u.Serial, u.Device, u.Label, u.ClaimCode, u.EnrolmentCode, note}
	}
	return c.print(a, units, []string{"SERIAL", "DEVICE", "LABEL", "CLAIM CODE", "ENROLMENT CODE", "NOTE"}, rows)
}

type deviceListCmd struct {
	Owner     string `help:"Those of this party: a name or an id." placeholder:"PARTY" env:"-"`
	Unclaimed bool   `help:"Those that nobody has claimed." env:"-"`
	hubFlags
	outputFlags
}

func (*deviceListCmd) Help() string {
	return `Lists devices: an owner's own, to an administrator all.

Example:
  holdfast device list --data DATA`
}

func (c *deviceListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	q := url.Values{"owner": {c.Owner}, "unclaimed": {strconv.FormatBool(c.Unclaimed)}}
	devices, err := all[api.Device](a, hub, "/v1/devices?"+q.Encode())
	if err != nil {
		return err
	}
	rows := make([][]string, len(devices))
	for i, d := range devices {
		rows[i] = deviceRow(d)
	}
	return c.print(a, devices, deviceHeader(), rows)
}

func deviceHeader() []string {
	return []string{"ID", "LABEL", "OWNER", "STATE", "PROFILE", "GATEWAY", "ADDED"}
}

func deviceRow(d api.Device) []string {
	profile := d.Profile
	if d.ProfileVersion > 0 {
		profile = fmt.Sprintf("%s %d", d.Profile, d.ProfileVersion)
	}
	return []string{d.ID, d.Label, partyName(d.Owner), d.State, profile, d.Gateway, whenever(d.Added)}
}

type deviceShowCmd struct {
	Device string `arg:"" help:"A label or an id."`
	hubFlags
	outputFlags
}

func (*deviceShowCmd) Help() string {
	return `Shows a device, its certificates and live connections, and, to the one whose data it is, its streams with the time of the latest reading.

Example:
  holdfast device show pump-1 --data DATA`
}

func (c *deviceShowCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var d api.Device
	if err := hub.Do(a.ctx, http.MethodGet, named("/v1/devices", c.Device), nil, &d); err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, d)
	}
	row := deviceRow(d)
	live := ""
	if d.Connections != nil {
		live = strconv.Itoa(*d.Connections)
	}
	if err := printTable(a.stdout, append(deviceHeader(), "CONNECTED"), [][]string{append(row, live)}); err != nil {
		return err
	}
	if len(d.Certificates) > 0 {
		fmt.Fprintln(a.stdout)
		rows := make([][]string, len(d.Certificates))
		for i, t := range d.Certificates {
			rows[i] = []string{t.Fingerprint[:min(16, len(t.Fingerprint))], t.State, whenever(t.From), whenever(t.Until)}
		}
		if err := printTable(a.stdout, []string{"CERTIFICATE", "STATE", "FROM", "UNTIL"}, rows); err != nil {
			return err
		}
	}
	if len(d.Streams) == 0 {
		return nil
	}
	fmt.Fprintln(a.stdout)
	return printTable(a.stdout, streamHeader(), streamRows(d.Streams))
}

func streamHeader() []string {
	return []string{"STREAM", "TYPE", "UNIT", "PURPOSES", "READINGS", "FIRST", "LAST"}
}

func streamRows(streams []api.Stream) [][]string {
	rows := make([][]string, len(streams))
	for i, s := range streams {
		rows[i] = []string{s.Name, s.Type, s.Unit, strings.Join(s.Purposes, ","), strconv.FormatUint(s.Readings, 10), whenever(s.First), whenever(s.Last)}
	}
	return rows
}

type deviceCodeCmd struct {
	Device string `arg:"" help:"A label or an id."`
	Claim  bool   `help:"A claim code, of a device that nobody has claimed." env:"-"`
	Days   int    `help:"How long an enrolment code lives, 7 if left out." placeholder:"N" env:"-"`
	hubFlags
	outputFlags
}

func (*deviceCodeCmd) Help() string {
	return `Makes a new code for a device whose old one was lost, used up or has expired, or whose certificate was revoked. An owner makes enrolment codes for
his own devices; claim codes are an administrator's to make.

Example:
  holdfast device code pump-1 --data DATA`
}

func (c *deviceCodeCmd) Run(a *app) error {
	if c.Days < 0 || c.Days > 400 {
		return usagef("--days is 1 to 400")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	body := map[string]any{"kind": "enrolment"}
	if c.Claim {
		body["kind"] = "claim"
	}
	if c.Days > 0 {
		body["days"] = c.Days
	}
	var codes api.Codes
	if err := hub.Do(a.ctx, http.MethodPost, named("/v1/devices", c.Device)+"/codes", body, &codes); err != nil {
		return err
	}
	switch {
	case c.json():
		return printJSON(a.stdout, codes)
	case c.Claim:
		fmt.Fprintln(a.stdout, codes.ClaimCode)
	default:
		enrolSteps(a, c.Device, codes.EnrolmentCode, whenever(codes.EnrolmentUntil), "STREAM=VALUE")
		fmt.Fprintf(a.stdout, "\nA folder with an identity in it is left as it is: name another, or remove it first.\n")
	}
	return nil
}

type deviceRevokeCmd struct {
	Device string `arg:"" help:"A label or an id."`
	Reason string `help:"For the record." placeholder:"TEXT" env:"-"`
	hubFlags
}

func (*deviceRevokeCmd) Help() string {
	return `Takes back all certificates and the enrolment code of a device. Its connections are cut within a second. Its readings stay, and it may be given
a new code.

Example:
  holdfast device revoke pump-1 --reason stolen --data DATA`
}

func (c *deviceRevokeCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Do(a.ctx, http.MethodPost, named("/v1/devices", c.Device)+"/revocation", map[string]string{"reason": c.Reason}, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Device %s is revoked: no certificate of it counts any more.\n", cell(c.Device))
	return nil
}

type deviceClaimCmd struct {
	ClaimCode string `arg:"" help:"The claim code that came with it; - reads it from standard input."`
	hubFlags
	outputFlags
}

func (*deviceClaimCmd) Help() string {
	return `Makes you the owner of a device, with your own credential and the claim code that came with it. From then on its readings are yours.

Example:
  holdfast device claim abcd-efgh-ijkm-nopq --token my.token --hub https://HOST:8443`
}

func (c *deviceClaimCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var d api.Device
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/claims", map[string]string{"code": secretArg(a, c.ClaimCode)}, &d); err != nil {
		if holdfast.KindOf(err) == holdfast.NotFound {
			return holdfast.Errorf(holdfast.NotFound, "there is no device with this claim code")
		}
		return err
	}
	return c.print(a, d, deviceHeader(), [][]string{deviceRow(d)})
}
