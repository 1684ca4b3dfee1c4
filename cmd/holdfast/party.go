package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
)

type partyCmd struct {
	Add    partyAddCmd    `cmd:"" help:"Add a party."`
	List   partyListCmd   `cmd:"" help:"List the parties."`
	Show   partyShowCmd   `cmd:"" help:"Show a party."`
	Invite partyInviteCmd `cmd:"" help:"Make a one-time link with which a party makes a credential of its own."`
	Redeem partyRedeemCmd `cmd:"" help:"Make one's own credential with an invitation."`
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
	address := "https://HOST:8443"
	if link, err := url.Parse(v.Link); err == nil {
		address = "https://" + link.Host
	}
	fmt.Fprintf(a.stdout, "In a browser, once, until %s:\n\n  %s\n\nOr, which also makes sure that it is this hub:\n\n  holdfast party redeem %s --hub %s --out my.token\n",
		when(v.Until), v.Link, v.Code, address)
	if r, err := readRunning(c.Data); c.Data != "" && err == nil && ofThisMachine(r.API) && !ofThisMachine(address) {
		fmt.Fprintln(a.stderr, "\nThe hub lets nobody in from other machines: start it with --listen-api :8443.")
	}
	return nil
}

// ofThisMachine reports whether an address can be reached from this machine alone.
func ofThisMachine(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

type partyRedeemCmd struct {
	Invitation string `arg:"" help:"The invitation: its link, or the code that begins with hfi1; - reads it from standard input."`
	Label      string `help:"What you call this credential." default:"my token" env:"-"`
	Out        string `required:"" help:"Write the token to this new file, which only you can read." placeholder:"FILE" type:"path" env:"-"`
	Hub        string `help:"The hub's address, https://HOST:8443; the link's if left out." placeholder:"URL"`
	Data       string `help:"The running hub of this data folder." placeholder:"DIR" type:"path"`
	outputFlags
}

func (*partyRedeemCmd) Help() string {
	return `Makes your own credential with an invitation, once. The invitation also says which hub to trust: no other one gets it.

Example:
  holdfast party redeem 'https://HOST:8443/v1/invitations#hfi1...' --out my.token
  holdfast query temperature --token my.token --hub https://HOST:8443`
}

func (c *partyRedeemCmd) Run(a *app) error {
	address, code, pin, err := c.read(a)
	if err != nil {
		return err
	}
	local := c.Data != "" && c.Hub == "" && !strings.HasPrefix(c.Invitation, "https://")
	hub, err := client.New(client.Options{Hub: address, Pin: pin, AnyName: local}) // the address is then the hub's own word
	if err != nil {
		return err
	}
	defer hub.Close()
	file, err := newSecretFile(c.Out)
	if err != nil {
		return err
	}
	var n api.NewCredential
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/invitations/redeem", api.Redemption{Code: code, Label: c.Label}, &n); err != nil {
		return errors.Join(err, file.drop())
	}
	if n.Token == "" {
		return errors.Join(holdfast.Errorf(holdfast.Internal, "the hub made no token"), file.drop())
	}
	if err := handOut(a, c.outputFlags, n, file); err != nil || c.json() {
		return err
	}
	where := "--hub " + address
	if local {
		where = "--data " + quoted(shown(c.Data))
	}
	tellWho(a, client.Options{Hub: address, Pin: pin, AnyName: local, Token: n.Token})
	fmt.Fprintf(a.stdout, "\nWhat is yours, and its record:\n\n  holdfast device list --token %s %s\n  holdfast ledger show --token %s %s\n",
		quoted(shown(c.Out)), where, quoted(shown(c.Out)), where)
	return nil
}

// tellWho says by which name the hub knows whose the new token is: export and erase ask
// for it. The token is made, whatever comes of this.
func tellWho(a *app, o client.Options) {
	hub, err := client.New(o)
	if err != nil {
		return
	}
	defer hub.Close()
	var me api.Me
	if err := hub.Do(a.ctx, http.MethodGet, "/v1/me", nil, &me); err == nil && me.Party.Name != "" {
		fmt.Fprintf(a.stdout, "\nHere you are called %s.\n", quoted(me.Party.Name))
	}
}

// read takes an invitation apart: where the hub is, the code, and whom to trust.
func (c *partyRedeemCmd) read(a *app) (address, code string, pin [32]byte, err error) {
	address, code = c.Hub, secretArg(a, c.Invitation)
	if link, err := url.Parse(code); err == nil && link.Scheme == "https" {
		code = link.Fragment
		if address == "" {
			address = "https://" + link.Host
		}
	}
	parts := strings.Split(code, ".")
	if len(parts) != 4 || parts[0] != "hfi1" {
		return "", "", pin, usagef("an invitation looks like https://HOST:8443/v1/invitations#hfi1.ID.SECRET.CA-SPKI-SHA256")
	}
	b, err := hex.DecodeString(parts[3])
	if err != nil || len(b) != len(pin) {
		return "", "", pin, usagef("the invitation is damaged: copy it whole")
	}
	if address == "" && c.Data != "" {
		r, err := readRunning(c.Data)
		if err != nil {
			return "", "", pin, err
		}
		address = reachable(r.API)
	}
	if address == "" {
		return "", "", pin, usagef("say which hub: --hub https://HOST:8443")
	}
	return address, code, [32]byte(b), nil
}
