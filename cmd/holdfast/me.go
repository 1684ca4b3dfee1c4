package main

import (
	"fmt"
	"strings"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type meCmd struct {
	Recipients  meRecipientsCmd  `cmd:"" help:"Who read your data or may, what for, and how much."`
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
