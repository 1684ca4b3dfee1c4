package main

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/dpv"
)

type grantCmd struct {
	Add  grantAddCmd  `cmd:"" help:"Let a recipient read your data for a purpose."`
	List grantListCmd `cmd:"" help:"List the grants you made or were given."`
	Show grantShowCmd `cmd:"" help:"Show a grant."`
	End  grantEndCmd  `cmd:"" help:"Take a grant back."`

	Receipt   grantReceiptCmd   `cmd:"" help:"The signed receipt of a grant, to keep."`
	Agreement grantAgreementCmd `cmd:"" help:"A grant in ODRL, for other programs."`
}

func (*grantCmd) Help() string {
	return `A grant is an owner's word that a recipient may read streams of his for a purpose, for a time. It is made with the owner's own credential and
no other: an administrator can't make one for him.

Example:
  holdfast grant add --to "Acme Pumps" --purpose maintenance --until +90d --token my.token --hub https://HOST:8443`
}

type grantAddCmd struct {
	Recipient  string   `name:"to" required:"" help:"Who may read: the name of an organisation or service, or any party's id." placeholder:"PARTY" env:"-"`
	Purpose    string   `required:"" help:"What for." placeholder:"PURPOSE" env:"-"`
	Until      string   `required:"" help:"When it ends by itself: a date, RFC 3339, or +90d; at most two years ahead." placeholder:"TIME" env:"-"`
	Device     []string `help:"Only this device of yours; all, now and later, if left out. May be given again." placeholder:"DEVICE" env:"-"`
	Assignment []string `help:"Only what lies in this assignment, whose data are yours, as a shift or a loan; in any, if left out. May be given again." placeholder:"ID" env:"-"`
	Stream     []string `help:"Only streams of this name; all, now and later, if left out. May be given again." placeholder:"STREAM" env:"-"`
	DataFrom   string   `help:"Only readings from then on." placeholder:"TIME" env:"-"`
	DataTo     string   `help:"Only readings up to then." placeholder:"TIME" env:"-"`
	Category   []string `help:"Only streams of this category of the W3C Data Privacy Vocabulary, as pd:Location, and of narrower ones. May be given again." placeholder:"IRI" env:"-"`
	Every      string   `help:"Give out windows of at least this length in place of readings: 15m, 1d." placeholder:"DURATION" env:"-"`
	Decimals   *int     `help:"Keep so many decimals of a location: 0 to 6." placeholder:"N" env:"-"`
	Step       float64  `help:"Round numbers to multiples of it." placeholder:"NUMBER" env:"-"`
	Delay      string   `help:"Hold readings back until they are so old: 1h." placeholder:"DURATION" env:"-"`
	Drop       []string `help:"Leave fields out: device, sequence, altitude, mark." placeholder:"FIELD" env:"-"`
	MinGroup   int      `help:"Only windows over a declared group with so many data subjects in each." placeholder:"N" env:"-"`
	Instead    string   `name:"supersedes" help:"A grant of yours to the same recipient that ends when this one is made." placeholder:"ID" env:"-"`
	hubFlags
	outputFlags
}

func (*grantAddCmd) Help() string {
	return `Makes a grant, with your own credential. Every read under it is on your record (/v1/me/recipients), and you can take it back at any time.

Example:
  holdfast grant add --to "Acme Pumps" --purpose maintenance --device pump-1 --stream vibration --until +90d --token my.token --hub https://HOST:8443
  holdfast grant add --to "Heart Lab" --purpose study --category pd:Health --every 15m --delay 1h --drop device --until +1y --token my.token --hub https://HOST:8443`
}

func (c *grantAddCmd) Run(a *app) error {
	for flag, text := range map[string]string{"--until": c.Until, "--data-from": c.DataFrom, "--data-to": c.DataTo} {
		if err := checkTime(flag, text); err != nil {
			return err
		}
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	body := map[string]any{"recipient": c.Recipient, "purpose": c.Purpose, "until": c.Until, "from": c.DataFrom, "to": c.DataTo}
	if len(c.Device) > 0 {
		body["devices"] = c.Device
	}
	if len(c.Assignment) > 0 {
		body["assignments"] = c.Assignment
	}
	if len(c.Stream) > 0 {
		body["streams"] = c.Stream
	}
	if len(c.Category) > 0 {
		body["categories"] = c.Category
	}
	if c.Instead != "" {
		body["supersedes"] = c.Instead
	}
	asked := api.Asked{Every: c.Every, Decimals: c.Decimals, Step: c.Step, Delay: c.Delay, Drop: c.Drop, MinGroup: c.MinGroup}
	if !reflect.DeepEqual(asked, api.Asked{}) {
		body["obligations"] = asked
	}
	var g api.Grant
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/grants", body, &g); err != nil {
		return err
	}
	return c.print(a, g, grantHeader(), [][]string{grantRow(g)})
}

// checkTime refuses a time that the hub would, before it is asked.
func checkTime(flag, text string) error {
	if text == "" {
		return nil
	}
	if _, err := api.ParseTime(text, time.Now(), false); err != nil {
		return usagef("%s: %w", flag, err)
	}
	return nil
}

func grantHeader() []string {
	return []string{"ID", "OWNER", "TO", "PURPOSE", "DEVICES", "ASSIGNMENTS", "STREAMS", "ASKS", "UNTIL", "STATE"}
}

func grantRow(g api.Grant) []string {
	devices, assignments, streams, state := "all", "all", "all", "live"
	if len(g.Devices) > 0 {
		devices = strings.Join(g.Devices, ",")
	}
	if len(g.Assignments) > 0 {
		assignments = strings.Join(g.Assignments, ",")
	}
	if len(g.Streams) > 0 {
		streams = strings.Join(g.Streams, ",")
	}
	for _, c := range g.Categories {
		if streams == "all" {
			streams = "of"
		}
		streams += " " + dpv.Short(c)
	}
	switch {
	case g.Ended != nil:
		state = "taken back"
	case !g.Live:
		state = "expired"
	}
	return []string{g.ID, partyName(g.Owner), partyName(g.Recipient), g.Purpose, devices, assignments, streams, asks(g.Obligations), whenever(g.Until), state}
}

// asks writes obligations as the flags that make them.
func asks(o *api.Asked) string {
	if o == nil {
		return ""
	}
	var all []string
	say := func(flag string, value any) { all = append(all, fmt.Sprintf("%s %v", flag, value)) }
	if o.Every != "" {
		say("every", o.Every)
	}
	if o.Decimals != nil {
		say("decimals", *o.Decimals)
	}
	if o.Step != 0 {
		say("step", o.Step)
	}
	if o.Delay != "" {
		say("delay", o.Delay)
	}
	if len(o.Drop) > 0 {
		say("drop", strings.Join(o.Drop, ","))
	}
	if o.MinGroup != 0 {
		say("min-group", o.MinGroup)
	}
	return strings.Join(all, ", ")
}

type grantListCmd struct {
	hubFlags
	outputFlags
}

func (*grantListCmd) Help() string {
	return `Lists the grants that your party made or was given, the newest first.

Example:
  holdfast grant list --token my.token --hub https://HOST:8443`
}

func (c *grantListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	grants, err := all[api.Grant](a, hub, "/v1/grants")
	if err != nil {
		return err
	}
	rows := make([][]string, len(grants))
	for i, g := range grants {
		rows[i] = grantRow(g)
	}
	return c.print(a, grants, grantHeader(), rows)
}

type grantShowCmd struct {
	ID string `arg:"" help:"The grant's id."`
	hubFlags
	outputFlags
}

func (*grantShowCmd) Help() string {
	return `Shows a grant to its owner or its recipient.

Example:
  holdfast grant show gq3tembtgm2tkmrzgq3tembtgm --token my.token --hub https://HOST:8443`
}

func (c *grantShowCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var g api.Grant
	if err := hub.Do(a.ctx, http.MethodGet, named("/v1/grants", c.ID), nil, &g); err != nil {
		return err
	}
	return c.print(a, g, grantHeader(), [][]string{grantRow(g)})
}

type grantEndCmd struct {
	ID string `arg:"" help:"The grant's id."`
	hubFlags
}

func (*grantEndCmd) Help() string {
	return `Takes a grant back. From the next read on it allows nothing, and a read under way breaks off.

Example:
  holdfast grant end gq3tembtgm2tkmrzgq3tembtgm --token my.token --hub https://HOST:8443`
}

func (c *grantEndCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/grants", c.ID), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Grant %s is taken back.\n", c.ID)
	return nil
}
