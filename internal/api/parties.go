package api

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
)

// Party is a person, household, organisation or service.
type Party struct {
	ID    string     `json:"id"`
	Name  string     `json:"name"`
	Kind  string     `json:"kind" enum:"person,household,organisation,service"`
	State string     `json:"state" enum:"operating,active,leaving,erased"`
	Added *time.Time `json:"added,omitempty"`
}

func partyDoc(p custody.Party) Party {
	return Party{ID: p.ID.String(), Name: p.Name, Kind: string(p.Kind), State: p.State, Added: moment(p.Added)}
}

// Invited is a new invitation, whose code is shown this once.
type Invited struct {
	Party PartyRef  `json:"party"`
	Code  string    `json:"code" doc:"What its holder shows to /v1/invitations/redeem, once."`
	Link  string    `json:"link" doc:"A page for a browser that does the same."`
	Until time.Time `json:"until"`
}

// Invitation is one that was made.
type Invitation struct {
	ID    string     `json:"id" doc:"Also that of the credential it makes."`
	By    string     `json:"by"`
	Made  *time.Time `json:"made"`
	Until *time.Time `json:"until"`
	State string     `json:"state" enum:"open,redeemed,replaced,expired"`
}

type addParty struct {
	Body struct {
		Name string `json:"name" minLength:"1"`
		Kind string `json:"kind" enum:"person,household,organisation,service"`
	}
}

// Named is a path to one thing.
type Named struct {
	ID string `path:"id" doc:"A name or an id."`
}

func (a *API) parties() {
	handle(a, route{method: "POST", path: "/v1/parties", summary: "Add a party.", status: http.StatusCreated, rule: writes(access.Administrator)},
		func(ctx context.Context, by access.Principal, in *addParty) (*reply[Party], error) {
			p, err := a.Custody.AddParty(ctx, by.Credential, in.Body.Name, custody.PartyKind(in.Body.Kind))
			return &reply[Party]{partyDoc(p)}, err
		})
	handle(a, route{method: "GET", path: "/v1/parties", summary: "List the parties.", rule: reads(access.Administrator, access.Auditor)},
		func(ctx context.Context, _ access.Principal, in *struct{ Paging }) (*reply[Page[Party]], error) {
			all, err := a.Custody.Parties(ctx)
			if err != nil {
				return nil, err
			}
			page, err := paged(all, func(p custody.Party) string { return p.ID.String() }, in.Paging)
			return &reply[Page[Party]]{mapped(page, partyDoc)}, err
		})
	handle(a, route{method: "GET", path: "/v1/parties/{id}", summary: "Show a party.", rule: reads(access.Administrator, access.Owner, access.Auditor)},
		func(ctx context.Context, by access.Principal, in *Named) (*reply[Party], error) {
			p, err := a.party(ctx, by, in.ID)
			return &reply[Party]{partyDoc(p)}, err
		})
	handle(a, route{method: "POST", path: "/v1/parties/{id}/invitations", summary: "Invite a party to make a credential of its own.",
		status: http.StatusCreated, rule: settling(access.Administrator, access.Owner)}, a.invite)
	handle(a, route{method: "GET", path: "/v1/parties/{id}/invitations", summary: "List a party's invitations.",
		rule: reads(access.Administrator, access.Owner, access.Auditor)}, a.listInvitations)
}

func (a *API) invite(ctx context.Context, by access.Principal, in *Named) (*reply[Invited], error) {
	p, err := a.party(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	code, until, err := a.Access.Invite(ctx, by, p.ID)
	if err != nil {
		return nil, err
	}
	return &reply[Invited]{Invited{
		Party: PartyRef{ID: p.ID.String(), Name: p.Name}, Code: code, Until: until,
		Link: "https://" + a.address() + "/v1/invitations#" + code, // behind # it stays in the browser
	}}, nil
}

func (a *API) listInvitations(ctx context.Context, by access.Principal, in *struct {
	Named
	Paging
}) (*reply[Page[Invitation]], error) {
	p, err := a.party(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	all, err := a.Access.Invitations(ctx, by, p.ID)
	if err != nil {
		return nil, err
	}
	page, err := paged(all, func(i access.Invitation) string { return i.ID.String() }, in.Paging)
	return &reply[Page[Invitation]]{mapped(page, func(i access.Invitation) Invitation {
		return Invitation{ID: i.ID.String(), By: i.By.String(), Made: moment(i.Made), Until: moment(i.NotAfter), State: i.State}
	})}, err
}

// address is where people reach this listener.
func (a *API) address() string {
	if api, _ := a.Addresses(); api != "" {
		return api
	}
	return net.JoinHostPort(a.Identity.Hosts()[0], "8443")
}
