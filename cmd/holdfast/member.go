package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/api"
)

type memberCmd struct {
	Add      memberAddCmd      `cmd:"" help:"Offer a party a place in a household or an organisation."`
	List     memberListCmd     `cmd:"" help:"List the members of one, or your own memberships."`
	Accept   memberAcceptCmd   `cmd:"" help:"Accept your membership: from then on it counts."`
	End      memberEndCmd      `cmd:"" help:"End a membership, at once, or decline it."`
	Notices  memberNoticesCmd  `cmd:"" help:"What waits for your word."`
	Confirm  memberConfirmCmd  `cmd:"" help:"Confirm the erasure of what is your household's."`
	Withdraw memberWithdrawCmd `cmd:"" help:"Withdraw such an erasure before it has begun."`
}

func (*memberCmd) Help() string {
	return `An adult acts in the place of his household, a guardian in the place of a child until its majority: with --for, or just by reading. Nobody makes
himself an adult: another adult or an administrator adds him, and he accepts with his own credential.

Example:
  holdfast member add Home Anna --kind adult --data DATA
  holdfast member accept MEMBERSHIP --token anna.token --hub https://HOST:8443
  holdfast query door/open --token anna.token --hub https://HOST:8443`
}

type memberAddCmd struct {
	Of     string `arg:"" help:"The household or organisation: a name or an id."`
	Member string `arg:"" help:"Who: a person by the id that he gave you, to an administrator also by name."`
	Kind   string `required:"" enum:"adult,child,guardian,employee,tenant" help:"adult, child or guardian of a household, employee or tenant." placeholder:"KIND" env:"-"`
	Ward   string `help:"Of a guardian: the child of the household in whose place he acts." placeholder:"PARTY" env:"-"`
	From   string `help:"When it begins; now if left out." placeholder:"TIME" env:"-"`
	To     string `help:"When it ends by itself; of a child, the day of majority." placeholder:"TIME" env:"-"`
	hubFlags
	outputFlags
}

func (*memberAddCmd) Help() string {
	return `Offers a place. It counts from when the member accepts; at once, if an administrator adds an employee, a tenant, or a child that has no credential.

Example:
  holdfast member add Home Kim --kind child --to 2032-04-01 --data DATA
  holdfast member add Home Anna --kind guardian --ward Kim --data DATA`
}

func (c *memberAddCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var m api.Membership
	body := map[string]string{"of": c.Of, "member": c.Member, "kind": c.Kind, "ward": c.Ward, "from": c.From, "to": c.To}
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/members", body, &m); err != nil {
		return err
	}
	return c.print(a, m, memberHeader(), [][]string{memberRow(m)})
}

func memberHeader() []string {
	return []string{"MEMBERSHIP", "OF", "MEMBER", "KIND", "WARD", "STATE", "FROM", "TO"}
}

func memberRow(m api.Membership) []string {
	return []string{m.ID, partyName(m.Of), partyName(m.Member), m.Kind, partyName(m.Ward), m.State, whenever(m.From), whenever(m.To)}
}

type memberListCmd struct {
	Of string `arg:"" optional:"" help:"The household or organisation; your own memberships if left out."`
	hubFlags
	outputFlags
}

func (*memberListCmd) Help() string {
	return `Lists members, those that have ended too.

Example:
  holdfast member list Home --data DATA`
}

func (c *memberListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	members, err := all[api.Membership](a, hub, "/v1/members?of="+url.QueryEscape(c.Of))
	if err != nil {
		return err
	}
	rows := make([][]string, len(members))
	for i, m := range members {
		rows[i] = memberRow(m)
	}
	return c.print(a, members, memberHeader(), rows)
}

type memberAcceptCmd struct {
	Membership string `arg:"" help:"Its id: holdfast member list shows it."`
	hubFlags
	outputFlags
}

func (*memberAcceptCmd) Help() string {
	return `Accepts a membership that was offered to you, with your own credential.

Example:
  holdfast member accept MEMBERSHIP --token anna.token --hub https://HOST:8443`
}

func (c *memberAcceptCmd) Run(a *app) error {
	return changeMember(a, &c.hubFlags, c.outputFlags, http.MethodPost, named("/v1/members", c.Membership)+"/acceptance")
}

type memberEndCmd struct {
	Membership string `arg:"" help:"Its id."`
	hubFlags
	outputFlags
}

func (*memberEndCmd) Help() string {
	return `Ends a membership: your own, or one of a household or organisation that you speak for. Whoever acted by it acts no more from this moment.

Example:
  holdfast member end MEMBERSHIP --token anna.token --hub https://HOST:8443`
}

func (c *memberEndCmd) Run(a *app) error {
	return changeMember(a, &c.hubFlags, c.outputFlags, http.MethodDelete, named("/v1/members", c.Membership))
}

func changeMember(a *app, h *hubFlags, o outputFlags, method, path string) error {
	hub, err := h.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var m api.Membership
	if err := hub.Do(a.ctx, method, path, nil, &m); err != nil {
		return err
	}
	return o.print(a, m, memberHeader(), [][]string{memberRow(m)})
}

type memberNoticesCmd struct {
	hubFlags
	outputFlags
}

func (*memberNoticesCmd) Help() string {
	return `Shows what waits for your word: memberships and devices offered to you, devices of yours that are to be released, erasures of your household.

Example:
  holdfast member notices --token anna.token --hub https://HOST:8443`
}

func (c *memberNoticesCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var n api.Notices
	if err := hub.Do(a.ctx, http.MethodGet, "/v1/me/notices", nil, &n); err != nil {
		return err
	}
	var rows [][]string
	for _, m := range n.Memberships {
		rows = append(rows, []string{"membership", m.ID, m.Kind + " of " + partyName(m.Of), whenever(m.To), "holdfast member accept " + m.ID + c.again()})
	}
	for _, t := range n.Transfers {
		rows = append(rows, []string{"transfer", t.ID, "from " + partyName(t.Seller), whenever(t.Until), "holdfast device transfer take " + t.ID + c.again()})
	}
	for _, r := range n.Releases {
		rows = append(rows, []string{"release", r.ID, "of " + r.Device + ": " + r.Reason, whenever(r.Until), "holdfast device notice object " + r.ID + c.again()})
	}
	for _, j := range n.Erasures {
		rows = append(rows, []string{"erasure", j.ID, "of " + partyName(j.Party) + ", " + many(len(j.Missing), "word") + " missing", whenever(j.Until), "holdfast member confirm " + j.ID + c.again()})
	}
	return c.print(a, n, []string{"WHAT", "ID", "ABOUT", "UNTIL", "TO AGREE OR OBJECT"}, rows)
}

type memberConfirmCmd struct {
	Erasure     string `arg:"" help:"The id of the joint erasure: holdfast member notices shows it."`
	Certificate string `help:"If yours is the last word: wait, and write the certificate to this new file." placeholder:"FILE" type:"path" env:"-"`
	hubFlags
}

func (*memberConfirmCmd) Help() string {
	return `Gives your word, with your own credential, for an erasure of what is your household's. With the last adult's word it begins and can't be undone.

Example:
  holdfast member confirm ERASURE --certificate home.cert --token anna.token --hub https://HOST:8443`
}

func (c *memberConfirmCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var j api.JointErasure
	if err := hub.Do(a.ctx, http.MethodPost, named("/v1/joint-erasures", c.Erasure)+"/confirmation", nil, &j); err != nil {
		return err
	}
	if j.Erasure == "" {
		fmt.Fprintf(a.stdout, "Confirmed. It waits for the word of %s, until %s.\n", many(len(j.Missing), "more adult"), whenever(j.Until))
		return nil
	}
	e := api.Erasure{ID: j.Erasure}
	if err := hub.Do(a.ctx, http.MethodGet, named("/v1/erasures", e.ID), nil, &e); err != nil {
		return fmt.Errorf("erasure %s was confirmed by all: %w", e.ID, err)
	}
	if e.State == "waiting" {
		c.undoable(a, e)
		if c.Certificate != "" {
			return holdfast.Errorf(holdfast.Conflict, "there is no certificate yet: it can still be undone")
		}
		return nil
	}
	if c.Certificate == "" {
		fmt.Fprintf(a.stdout, "Confirmed by all: erasure %s has begun. Its certificate:\n\n  holdfast erasure show %s --certificate FILE%s\n", j.Erasure, j.Erasure, c.again())
		return nil
	}
	if err := c.awaitErasure(a, hub, &e); err != nil {
		return err
	}
	file, err := os.OpenFile(c.Certificate, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("make file for the certificate, which GET /v1/erasures/%s has: %w", e.ID, err)
	}
	_, err = file.WriteString(e.Certificate)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	fmt.Fprintf(a.stdout, "Erased. The certificate is in %s.\n", c.Certificate)
	return nil
}

type memberWithdrawCmd struct {
	Erasure string `arg:"" help:"The id of the joint erasure."`
	hubFlags
}

func (*memberWithdrawCmd) Help() string {
	return `Ends an erasure of what is your household's that still waits for a word. Any adult of it can.

Example:
  holdfast member withdraw ERASURE --token anna.token --hub https://HOST:8443`
}

func (c *memberWithdrawCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/joint-erasures", c.Erasure), nil, nil); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout, "Withdrawn: nothing is erased.")
	return nil
}
