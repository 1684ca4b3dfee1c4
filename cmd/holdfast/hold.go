package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type holdCmd struct {
	Add  holdAddCmd  `cmd:"" help:"Set a hold."`
	List holdListCmd `cmd:"" help:"List the holds on your data, or all."`
	Show holdShowCmd `cmd:"" help:"Show a hold."`
	End  holdEndCmd  `cmd:"" help:"End a hold."`
}

func (*holdCmd) Help() string {
	return `A hold is a word about data that stands until it is ended:

  restriction  nobody reads them but their owner, and nothing is deleted by age; collection goes on, sealed
  objection    nothing is read for one purpose
  collection   new readings are not taken
  claim, law   nothing is deleted or erased, by anybody: for a claim at law, or because the law says so

Owners set the first three for their own data, administrators any.

Example:
  holdfast hold add restriction --device watch --token my.token --hub https://HOST:8443`
}

type holdAddCmd struct {
	Kind       string   `arg:"" enum:"restriction,objection,collection,claim,law" help:"${enum}."`
	Party      string   `help:"Whose data, by name or id; your own, or whose the devices or assignments are, if left out." placeholder:"PARTY" env:"-"`
	Device     []string `help:"Only this device; all, now and later, if left out. May be given again." placeholder:"DEVICE" env:"-"`
	Assignment []string `help:"Only what lies in this assignment, as a shift or a loan; in any, if left out. May be given again." placeholder:"ID" env:"-"`
	Stream     []string `help:"Only streams of this name; all, now and later, if left out. May be given again." placeholder:"STREAM" env:"-"`
	Purpose    string   `help:"The purpose that an objection is against." placeholder:"PURPOSE" env:"-"`
	Reason     string   `help:"Why; required of a claim or law, and shown to the owner." placeholder:"TEXT" env:"-"`
	Secret     bool     `help:"The law forbids telling the owner; of a hold by law alone." env:"-"`
	hubFlags
	outputFlags
}

func (*holdAddCmd) Help() string {
	return `Sets a hold. It is in force at once: a read under way that it forbids breaks off within a second.

Example:
  holdfast hold add objection --purpose research --token my.token --hub https://HOST:8443
  holdfast hold add collection --device watch --stream pulse --token my.token --hub https://HOST:8443
  holdfast hold add claim --party "Ada Lovelace" --reason "case 12/26, county court" --data DATA`
}

func (c *holdAddCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	body := map[string]any{"kind": c.Kind, "secret": c.Secret}
	for name, text := range map[string]string{"party": c.Party, "purpose": c.Purpose, "reason": c.Reason} {
		if text != "" {
			body[name] = text
		}
	}
	for name, list := range map[string][]string{"devices": c.Device, "assignments": c.Assignment, "streams": c.Stream} {
		if len(list) > 0 {
			body[name] = list
		}
	}
	var h api.Hold
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/holds", body, &h); err != nil {
		return err
	}
	return c.print(a, h, holdHeader(), [][]string{holdRow(h)})
}

func holdHeader() []string {
	return []string{"ID", "KIND", "WHOSE", "PURPOSE", "DEVICES", "ASSIGNMENTS", "STREAMS", "SET", "STATE", "REASON"}
}

func holdRow(h api.Hold) []string {
	devices, assignments, streams, state := "all", "all", "all", h.State
	if len(h.Devices) > 0 {
		devices = strings.Join(h.Devices, ",")
	}
	if len(h.Assignments) > 0 {
		assignments = strings.Join(h.Assignments, ",")
	}
	if len(h.Streams) > 0 {
		streams = strings.Join(h.Streams, ",")
	}
	if state == "lifting" {
		state = "ends " + whenever(h.Lifts)
	}
	if h.Secret {
		state += ", secret"
	}
	return []string{h.ID, h.Kind, partyName(h.Party), h.Purpose, devices, assignments, streams, whenever(h.Set), state, h.Reason}
}

type holdListCmd struct {
	hubFlags
	outputFlags
}

func (*holdListCmd) Help() string {
	return `Lists holds, the newest first, ended ones included: an owner's credential those on his own data, an administrator's all.

Example:
  holdfast hold list --token my.token --hub https://HOST:8443`
}

func (c *holdListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	holds, err := all[api.Hold](a, hub, "/v1/holds")
	if err != nil {
		return err
	}
	rows := make([][]string, len(holds))
	for i, h := range holds {
		rows[i] = holdRow(h)
	}
	return c.print(a, holds, holdHeader(), rows)
}

type holdShowCmd struct {
	ID string `arg:"" help:"The hold's id."`
	hubFlags
	outputFlags
}

func (*holdShowCmd) Help() string {
	return `Shows a hold.

Example:
  holdfast hold show gq3tembtgm2tkmrzgq3tembtgm --token my.token --hub https://HOST:8443`
}

func (c *holdShowCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var h api.Hold
	if err := hub.Do(a.ctx, http.MethodGet, named("/v1/holds", c.ID), nil, &h); err != nil {
		return err
	}
	return c.print(a, h, holdHeader(), [][]string{holdRow(h)})
}

type holdEndCmd struct {
	ID string `arg:"" help:"The hold's id."`
	hubFlags
}

func (*holdEndCmd) Help() string {
	return `Ends a hold. What an owner has set ends by his own credential alone. A restriction or objection that an administrator has set ends a day after
he asks, so that its owner knows before; at once if the owner asks.

Example:
  holdfast hold end gq3tembtgm2tkmrzgq3tembtgm --token my.token --hub https://HOST:8443`
}

func (c *holdEndCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var h api.Hold
	if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/holds", c.ID), nil, &h); err != nil {
		return err
	}
	if h.Ended == nil {
		fmt.Fprintf(a.stdout, "The owner is told. Hold %s ends by itself on %s.\n", h.ID, whenever(h.Lifts))
		return nil
	}
	fmt.Fprintf(a.stdout, "Hold %s has ended.\n", h.ID)
	return nil
}
