package main

import (
	"fmt"
	"net/http"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type partyCmd struct {
	Add    partyAddCmd    `cmd:"" help:"Add a party."`
	List   partyListCmd   `cmd:"" help:"List the parties."`
	Show   partyShowCmd   `cmd:"" help:"Show a party."`
	Invite partyInviteCmd `cmd:"" help:"Make a one-time link with which a party makes a credential of its own."`
}

func (*partyCmd) Help() string {
	return `A party is a person, household, organisation or service. Whose a reading is, a party owns it.

Example:
  holdfast party add "Ada Lovelace" --kind person --data DATA
  holdfast party invite "Ada Lovelace" --data DATA`
}

type partyAddCmd struct {
	Name string `arg:"" help:"What it is called; unique within the hub."`
	Kind string `required:"" enum:"person,household,organisation,service" help:"person, household, organisation or service." placeholder:"KIND" env:"-"`
	hubFlags
	outputFlags
}

func (*partyAddCmd) Help() string {
	return `Adds a party, with a key of its own. It has no credential until it is invited and comes.

Example:
  holdfast party add "Ada Lovelace" --kind person --data DATA`
}

func (c *partyAddCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var p api.Party
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/parties", map[string]string{"name": c.Name, "kind": c.Kind}, &p); err != nil {
		return err
	}
	return c.print(a, p, partyHeader(), [][]string{partyRow(p)})
}

func partyHeader() []string { return []string{"ID", "NAME", "KIND", "STATE", "ADDED"} }

func partyRow(p api.Party) []string {
	return []string{p.ID, p.Name, p.Kind, p.State, whenever(p.Added)}
}

type partyListCmd struct {
	hubFlags
	outputFlags
}

func (*partyListCmd) Help() string {
	return `Lists every party of the hub. Only an administrator may see their names.

Example:
  holdfast party list --data DATA -o json`
}

func (c *partyListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	parties, err := all[api.Party](a, hub, "/v1/parties")
	if err != nil {
		return err
	}
	rows := make([][]string, len(parties))
	for i, p := range parties {
		rows[i] = partyRow(p)
	}
	return c.print(a, parties, partyHeader(), rows)
}

type partyShowCmd struct {
	Party string `arg:"" help:"A name or an id."`
	hubFlags
	outputFlags
}

func (*partyShowCmd) Help() string {
	return `Shows a party and the invitations that were made for it.

Example:
  holdfast party show "Ada Lovelace" --data DATA`
}

func (c *partyShowCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var p api.Party
	if err := hub.Do(a.ctx, http.MethodGet, named("/v1/parties", c.Party), nil, &p); err != nil {
		return err
	}
	invitations, err := all[api.Invitation](a, hub, named("/v1/parties", p.ID)+"/invitations")
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, struct {
			api.Party
			Invitations []api.Invitation `json:"invitations"`
		}{p, invitations})
	}
	if err := printTable(a.stdout, partyHeader(), [][]string{partyRow(p)}); err != nil || len(invitations) == 0 {
		return err
	}
	fmt.Fprintln(a.stdout)
	rows := make([][]string, len(invitations))
	for i, v := range invitations {
		rows[i] = []string{v.ID, v.State, whenever(v.Made), whenever(v.Until), v.By}
	}
	return printTable(a.stdout, []string{"INVITATION", "STATE", "MADE", "UNTIL", "BY"}, rows)
}

type partyInviteCmd struct {
	Party string `arg:"" help:"A name or an id."`
	hubFlags
	outputFlags
}

func (*partyInviteCmd) Help() string {
	return `Makes a link that works once, for 7 days. Whoever opens it makes the party's own credential: hand it over in person or by a way you both trust.
That it was made, and by whom, stands on the party's record for good.

Example:
  holdfast party invite "Ada Lovelace" --data DATA`
}

func (c *partyInviteCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var v api.Invited
	if err := hub.Do(a.ctx, http.MethodPost, named("/v1/parties", c.Party)+"/invitations", nil, &v); err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, v)
	}
	fmt.Fprintf(a.stdout, "%s\n\nIt works once, until %s. In a browser, or:\n\n  holdfast token redeem '%s' --out my.token\n", v.Link, when(v.Until), v.Link)
	return nil
}
