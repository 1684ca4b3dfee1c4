package api

import (
	"context"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// Rekey is the replacement of keys that may have become known, and how far it has
// come.
type Rekey struct {
	ID     string `json:"id"`
	Party  string `json:"party,omitempty" doc:"Whose; left out: of all."`
	Owners int    `json:"owners" doc:"Owner keys to replace: a party's own and one for each assignment."`
	Left   int    `json:"left" doc:"Of them not yet."`
	State  string `json:"state" enum:"asked,done"`
}

func rekeyDoc(r erasure.Rekey) Rekey {
	d := Rekey{ID: r.ID.String(), Owners: r.Owners, Left: r.Left, State: "asked"}
	if !r.Party.IsZero() {
		d.Party = r.Party.String()
	}
	if r.Left == 0 {
		d.State = "done"
	}
	return d
}

func (a *API) rekeys() {
	ask := writes(access.Administrator)
	ask.settles = true
	handle(a, route{method: "POST", path: "/v1/rekeys", summary: "Seal what is stored again under fresh keys, when keys may have become known.", rule: ask},
		func(ctx context.Context, by access.Principal, in *struct {
			Body struct {
				Party string `json:"party,omitempty" doc:"A party with its assignments, by name or id."`
				All   bool   `json:"all,omitempty" doc:"Everybody, and the hub."`
			}
		}) (*reply[Rekey], error) {
			if (in.Body.Party == "") == !in.Body.All {
				return nil, holdfast.Errorf(holdfast.Invalid, "say whose keys to replace: a party's, or all")
			}
			var whose holdfast.PartyID
			var assignments []holdfast.AssignmentID
			if !in.Body.All {
				p, err := a.party(ctx, by, in.Body.Party)
				if err != nil {
					return nil, err
				}
				held, err := a.Custody.Holdings(ctx, p.ID)
				if err != nil {
					return nil, err
				}
				whose = p.ID
				for _, h := range held {
					assignments = append(assignments, h.ID)
				}
			}
			r, err := a.Erasure.AskRekey(ctx, by, whose, assignments)
			return &reply[Rekey]{rekeyDoc(r)}, err
		})
	handle(a, route{method: "GET", path: "/v1/rekeys", summary: "List replacements of keys, the oldest first.", rule: reads(access.Administrator)},
		func(ctx context.Context, _ access.Principal, in *struct{ Paging }) (*reply[Page[Rekey]], error) {
			all, err := a.Erasure.Rekeys(ctx)
			if err != nil {
				return nil, err
			}
			page, err := paged(all, func(r erasure.Rekey) string { return r.ID.String() }, in.Paging)
			return &reply[Page[Rekey]]{mapped(page, rekeyDoc)}, err
		})
	handle(a, route{method: "GET", path: "/v1/rekeys/{id}", summary: "Show how far a replacement of keys has come.", rule: reads(access.Administrator)},
		func(ctx context.Context, _ access.Principal, in *struct {
			ID string `path:"id"`
		}) (*reply[Rekey], error) {
			all, err := a.Erasure.Rekeys(ctx)
			for _, r := range all {
				if r.ID.String() == in.ID {
					return &reply[Rekey]{rekeyDoc(r)}, nil
				}
			}
			if err == nil {
				err = holdfast.Errorf(holdfast.NotFound, "there is no such replacement of keys")
			}
			return nil, err
		})
}
