package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type permissionCmd struct {
	Ask     permissionAskCmd     `cmd:"" help:"Ask to read an owner's data for a while, with a reason."`
	List    permissionListCmd    `cmd:"" help:"List the permissions of staff: an owner's own, to staff all."`
	Approve permissionApproveCmd `cmd:"" help:"Approve one: as its owner, or as a second person of the staff."`
	Refuse  permissionRefuseCmd  `cmd:"" help:"Refuse one."`
	End     permissionEndCmd     `cmd:"" help:"Take one back at once."`
}

func (*permissionCmd) Help() string {
	return `Staff read an owner's data only with a permission: for a purpose and a reason, for 4 hours (at most 7 days), approved by a second person of the staff or by the owner.
The owner sees it on his record at once and can end it at any time.

Example:
  holdfast permission ask Ada --reason "her pump stands still" --device pump-7 --identity ./admin-a
  holdfast permission approve PERMISSION-ID --identity ./admin-b`
}

type permissionAskCmd struct {
	Whose   string   `arg:"" help:"The party whose data: a name or an id."`
	Reason  string   `required:"" help:"Why, in words that its owner understands." placeholder:"TEXT" env:"-"`
	Purpose string   `help:"What for." default:"operation" placeholder:"PURPOSE" env:"-"`
	Device  []string `help:"Only of this device, by label or id. May be given again." placeholder:"DEVICE" env:"-"`
	From    string   `help:"From when on; now if left out." placeholder:"TIME" env:"-"`
	Until   string   `help:"Until when; 4 hours if left out, at most 7 days." placeholder:"TIME" env:"-"`
	hubFlags
	outputFlags
}

func (*permissionAskCmd) Help() string {
	return `Asks. Nothing may be read until somebody else approves: neither you, nor a credential that you made within the last 30 days.

Example:
  holdfast permission ask Ada --reason "her pump stands still" --until +2h --data DATA`
}

func (c *permissionAskCmd) Run(a *app) error {
	for flag, text := range map[string]string{"--from": c.From, "--until": c.Until} {
		if err := checkTime(flag, text); err != nil {
			return err
		}
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	body := map[string]any{"whose": c.Whose, "reason": c.Reason, "purpose": c.Purpose, "from": c.From, "until": c.Until}
	if len(c.Device) > 0 {
		body["devices"] = c.Device
	}
	var p api.Permission
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/permissions", body, &p); err != nil {
		return err
	}
	return c.print(a, p, permissionHeader(), [][]string{permissionRow(p)})
}

func permissionHeader() []string {
	return []string{"ID", "STATE", "WHOSE", "PURPOSE", "REASON", "DEVICES", "FROM", "UNTIL", "ASKED BY", "DECIDED BY"}
}

func permissionRow(p api.Permission) []string {
	decided := p.DecidedBy
	if decided != "" {
		decided = p.DecidedRole + " " + decided
	}
	return []string{p.ID, p.State, partyName(p.Whose), p.Purpose, p.Reason, strings.Join(p.Devices, ","), whenever(p.From), whenever(p.Until), p.AskedBy, decided}
}

type permissionListCmd struct {
	Whose string `help:"Those about this party." placeholder:"PARTY" env:"-"`
	hubFlags
	outputFlags
}

func (*permissionListCmd) Help() string {
	return `Lists who asked to read whose data, why, and what came of it. An owner sees those about himself.

Example:
  holdfast permission list --token ada.token --hub https://HOST:8443`
}

func (c *permissionListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var me api.Me
	if err := hub.Do(a.ctx, http.MethodGet, "/v1/me", nil, &me); err != nil {
		return err
	}
	path := "/v1/permissions?whose=" + url.QueryEscape(c.Whose)
	if me.Role == "owner" {
		path = "/v1/me/permissions"
	}
	items, err := all[api.Permission](a, hub, path)
	if err != nil {
		return err
	}
	rows := make([][]string, len(items))
	for i, p := range items {
		rows[i] = permissionRow(p)
	}
	return c.print(a, items, permissionHeader(), rows)
}

// onePermission is what the verbs about one permission take.
type onePermission struct {
	ID string `arg:"" help:"The permission's id."`
	hubFlags
	outputFlags
}

func (c *onePermission) decide(a *app, word string) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var p api.Permission
	if err := hub.Do(a.ctx, http.MethodPost, named("/v1/permissions", c.ID)+"/"+word, nil, &p); err != nil {
		return err
	}
	return c.print(a, p, permissionHeader(), [][]string{permissionRow(p)})
}

type permissionApproveCmd struct{ onePermission }

func (*permissionApproveCmd) Help() string {
	return `Approves what an administrator asked for. That can't be undone for what is read: the credential must be settled, or a code is shown with it.

Example:
  holdfast permission approve PERMISSION-ID --token ada.token --hub https://HOST:8443`
}

func (c *permissionApproveCmd) Run(a *app) error { return c.decide(a, "approve") }

type permissionRefuseCmd struct{ onePermission }

func (*permissionRefuseCmd) Help() string {
	return `Refuses what an administrator asked for.

Example:
  holdfast permission refuse PERMISSION-ID --token ada.token --hub https://HOST:8443`
}

func (c *permissionRefuseCmd) Run(a *app) error { return c.decide(a, "refuse") }

type permissionEndCmd struct {
	ID string `arg:"" help:"The permission's id."`
	hubFlags
}

func (*permissionEndCmd) Help() string {
	return `Takes a permission back, or the wish for one. What is being read under it breaks off.

Example:
  holdfast permission end PERMISSION-ID --token ada.token --hub https://HOST:8443`
}

func (c *permissionEndCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/permissions", c.ID), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Permission %s is ended.\n", c.ID)
	return nil
}
