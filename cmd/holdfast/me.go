package main

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type meCmd struct {
	Recipients  meRecipientsCmd  `cmd:"" help:"Who read your data or may, what for, and how much."`
	Purposes    mePurposesCmd    `cmd:"" help:"What your data are used for, on what basis, and what you have stopped."`
	Data        meDataCmd        `cmd:"" help:"What there is of you: devices, streams, readings, and how long they are kept."`
	Disclosures meDisclosuresCmd `cmd:"" help:"Each time that your readings left, and why it was allowed."`
	Report      meReportCmd      `cmd:"" help:"All that the hub answers about you, as a signed page to read and keep."`
}

func (*meCmd) Help() string {
	return `What the hub knows about you, from what really happened.

Example:
  holdfast me recipients --token my.token --hub https://HOST:8443`
}

type meRecipientsCmd struct {
	hubFlags
	outputFlags
}

func (*meRecipientsCmd) Help() string {
	return `Lists who read your data, staff included, and whom you allowed to and never did.

Example:
  holdfast me recipients --token my.token --hub https://HOST:8443`
}

func (c *meRecipientsCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	found, err := all[api.Recipient](a, hub, "/v1/me/recipients")
	if err != nil {
		return err
	}
	rows := make([][]string, len(found))
	for i, r := range found {
		amount := fmt.Sprint(r.Rows)
		if r.AtLeast {
			amount = "at least " + amount
		}
		rows[i] = []string{partyName(r.Recipient), r.As, r.Purpose, streamList(r.Streams), amount, fmt.Sprint(r.Reads), whenever(r.First), whenever(r.Last), r.Grant + r.Permission, r.State}
	}
	return c.print(a, found, []string{"WHO", "AS", "PURPOSE", "STREAMS", "READINGS", "READS", "FIRST", "LAST", "UNDER", "STATE"}, rows)
}

func streamList(all []api.DataStreamID) string {
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = strings.TrimPrefix(s.Label+"/"+s.Stream, "/")
	}
	return strings.Join(names, ",")
}

type meDisclosuresCmd struct {
	hubFlags
	outputFlags
}

func (*meDisclosuresCmd) Help() string {
	return `Lists each time that your readings left, the newest first, and why it was allowed.

Example:
  holdfast me disclosures --token my.token --hub https://HOST:8443`
}

func (c *meDisclosuresCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	found, err := all[api.Disclosure](a, hub, "/v1/me/disclosures")
	if err != nil {
		return err
	}
	rows := make([][]string, len(found))
	for i, d := range found {
		rows[i] = []string{whenever(d.Opened), partyName(d.Recipient), d.Purpose, streamList(d.Streams), fmt.Sprint(d.Rows), fmt.Sprint(d.Reads), d.Reason}
	}
	return c.print(a, found, []string{"OPENED", "WHO", "PURPOSE", "STREAMS", "READINGS", "READS", "WHY"}, rows)
}

type meReportCmd struct {
	File string `arg:"" help:"Write it to this new file." type:"path"`
	hubFlags
}

func (*meReportCmd) Help() string {
	return `Writes all that the hub answers about you as one page of HTML, signed by the hub. It needs no network, and anybody can check it without the hub.

Example:
  holdfast me report report.html --token my.token --hub https://HOST:8443
  holdfast verify report.html`
}

func (c *meReportCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := fetch(a, hub, "/v1/me/report", c.File); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "The report is in %s. To check it, without a hub:\n\n  holdfast verify %s\n", c.File, c.File)
	return nil
}

type mePurposesCmd struct {
	hubFlags
	outputFlags
}

func (*mePurposesCmd) Help() string {
	return `Lists what your data are used for: on what legal basis, who answers for it, for how long, which of your streams are collected for it, whom you allowed to use them, and what you have stopped.

Example:
  holdfast me purposes --token my.token --hub https://HOST:8443`
}

func (c *mePurposesCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	found, err := all[api.DataPurpose](a, hub, "/v1/me/purposes")
	if err != nil {
		return err
	}
	rows := make([][]string, len(found))
	for i, p := range found {
		rows[i] = []string{p.Name, p.Label, p.LegalBasis, partyName(p.Responsible), daysKept(p.RetentionDays), p.Parent, purposeStreams(p.Streams), purposeGrants(p.Grants), stops(p.Stops), fmt.Sprint(p.Rows), p.Text}
	}
	return c.print(a, found, []string{"PURPOSE", "KIND", "BASIS", "ANSWERS FOR IT", "KEPT", "PART OF", "STREAMS", "GRANTED TO", "STOPPED BY", "READINGS READ", "IN WORDS"}, rows)
}

func daysKept(days int) string {
	if days == 0 {
		return "while it lives"
	}
	return many(days, "day")
}

func purposeStreams(all []api.PurposeStream) string {
	ids := make([]api.DataStreamID, len(all))
	for i, s := range all {
		ids[i] = s.DataStreamID
	}
	return streamList(ids)
}

func purposeGrants(all []api.PurposeGrant) string {
	var names []string
	for _, g := range all {
		if g.State == "live" {
			names = append(names, partyName(g.Recipient)+" ("+g.ID+")")
		}
	}
	return strings.Join(names, ",")
}

func stops(all []api.Hold) string {
	names := make([]string, len(all))
	for i, h := range all {
		names[i] = h.Kind + " (" + h.ID + ")"
	}
	return strings.Join(names, ",")
}

type meDataCmd struct {
	hubFlags
	outputFlags
}

func (*meDataCmd) Help() string {
	return `Lists what there is of you, a line for each stream: what it is, how many readings from when to when, and how long they are kept. -o json has the devices' assignments and the holds, too.

Example:
  holdfast me data --token my.token --hub https://HOST:8443`
}

func (c *meDataCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var found api.Data
	if err := hub.Do(a.ctx, http.MethodGet, "/v1/me/data", nil, &found); err != nil {
		return err
	}
	var ids []string
	for _, e := range found.Erasures {
		ids = append(ids, e.ID)
	}
	tellErasing(a, strings.Join(ids, ", "))
	var rows [][]string
	for _, d := range found.Devices {
		name := cmp.Or(d.Label, d.ID)
		if len(d.Streams) == 0 {
			rows = append(rows, []string{name, d.State, "", "", "", "0", "", "", "", "", ""})
		}
		for _, s := range d.Streams {
			rows = append(rows, []string{name, d.State, s.Name, s.Category, s.Unit, fmt.Sprint(s.Readings), whenever(s.First), whenever(s.Last), streamKept(s), whenever(s.KeptUntil), streamHeld(s)})
		}
	}
	return c.print(a, found, []string{"DEVICE", "STATE", "STREAM", "CATEGORY", "UNIT", "READINGS", "FIRST", "LAST", "KEPT", "LATEST UNTIL", "HOLD"}, rows)
}

func streamKept(s api.DataStream) string {
	switch {
	case s.KeptDays == nil:
		return "while a purpose lives"
	case *s.KeptDays == 0:
		return "no purpose lives"
	}
	return many(*s.KeptDays, "day")
}

func streamHeld(s api.DataStream) string {
	var words []string
	if s.Held {
		words = append(words, "kept")
	}
	if s.Stopped {
		words = append(words, "not collected")
	}
	return strings.Join(words, ", ")
}
