package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// Grant is an owner's word that a recipient may use streams for a purpose.
type Grant struct {
	ID        string     `json:"id"`
	Owner     *PartyRef  `json:"owner"`
	Recipient *PartyRef  `json:"recipient"`
	Purpose   string     `json:"purpose"`
	Devices   []string   `json:"devices,omitempty" doc:"Ids; left out: all, now and later."`
	Streams   []string   `json:"streams,omitempty" doc:"Names; left out: all, now and later."`
	From      *time.Time `json:"from,omitempty" doc:"The earliest reading; left out: all before."`
	To        *time.Time `json:"to,omitempty" doc:"The latest reading; left out: all after."`
	Until     *time.Time `json:"until" doc:"When the grant ends by itself."`
	Made      *time.Time `json:"made"`
	Ended     *time.Time `json:"ended,omitempty"`
	Live      bool       `json:"live"`
}

type addGrant struct {
	Body struct {
		Recipient string   `json:"recipient" minLength:"1" doc:"The id of a party, or the name of an organisation or service."`
		Purpose   string   `json:"purpose" minLength:"1"`
		Devices   []string `json:"devices,omitempty" maxItems:"1000" doc:"Own devices by label or id; left out: all, now and later."`
		Streams   []string `json:"streams,omitempty" maxItems:"1000" doc:"Names; left out: all, now and later."`
		From      string   `json:"from,omitempty" doc:"The earliest reading; left out: all before."`
		To        string   `json:"to,omitempty" doc:"The latest reading; left out: all after."`
		Until     string   `json:"until" minLength:"1" doc:"When the grant ends: RFC 3339, a date, or +30d; at most two years ahead."`
	}
}

func caller(by access.Principal) grant.Caller {
	return grant.Caller{Credential: by.Credential, Party: by.Party, Owner: by.Role == access.Owner}
}

func (a *API) grants() {
	handle(a, route{method: "POST", path: "/v1/grants", summary: "Let a recipient read own data for a purpose. Only an owner's own credential can.",
		status: http.StatusCreated, rule: writes(access.Owner)}, a.addGrant)
	handle(a, route{method: "GET", path: "/v1/grants", summary: "List the grants that the caller's party made or was given.", rule: reads()}, a.listGrants)
	handle(a, route{method: "GET", path: "/v1/grants/{id}", summary: "Show a grant.", rule: reads()},
		func(ctx context.Context, by access.Principal, in *struct {
			ID string `path:"id"`
		}) (*reply[Grant], error) {
			g, err := a.grant(ctx, by, in.ID)
			if err != nil {
				return nil, err
			}
			n, err := a.grantNames(ctx, by, []grant.Grant{g})
			return &reply[Grant]{grantDoc(g, n)}, err
		})
	handle(a, route{method: "DELETE", path: "/v1/grants/{id}", summary: "Take a grant back: from the next read on it allows nothing.",
		rule: writes(access.Owner)},
		func(ctx context.Context, by access.Principal, in *struct {
			ID string `path:"id"`
		}) (*nothing, error) {
			g, err := a.grant(ctx, by, in.ID)
			if err != nil {
				return nil, err
			}
			return &nothing{}, a.Grants.End(ctx, caller(by), g.ID)
		})
}

func (a *API) addGrant(ctx context.Context, by access.Principal, in *addGrant) (*reply[Grant], error) {
	b := &in.Body
	p, err := a.recipient(ctx, b.Recipient)
	if err != nil {
		return nil, err
	}
	s := grant.Spec{Recipient: p.ID, Purpose: holdfast.Purpose(b.Purpose), AllDevices: len(b.Devices) == 0, AllStreams: len(b.Streams) == 0, Streams: b.Streams}
	for _, text := range b.Devices {
		d, err := a.device(ctx, by, text)
		if err != nil {
			return nil, err
		}
		if whose(d) != by.Party {
			return nil, holdfast.Errorf(holdfast.Denied, "the data of a named device is somebody else's to grant")
		}
		s.Devices = append(s.Devices, d.ID)
	}
	now := time.Now()
	if s.Data, err = span(b.From, b.To, now, holdfast.Always.From, holdfast.Always.To); err != nil {
		return nil, err
	}
	until, err := ParseTime(b.Until, now, true)
	if err != nil {
		return nil, err
	}
	s.Until = time.Unix(0, until)
	g, err := a.Grants.Make(ctx, caller(by), s)
	if err != nil {
		return nil, err
	}
	n, err := a.grantNames(ctx, by, []grant.Grant{g})
	return &reply[Grant]{grantDoc(g, n)}, err
}

// grant returns a grant to those whom it concerns.
func (a *API) grant(ctx context.Context, by access.Principal, text string) (grant.Grant, error) {
	missing := holdfast.Errorf(holdfast.NotFound, "there is no such grant")
	id, err := holdfast.ParseID[holdfast.GrantID](text)
	if err != nil {
		return grant.Grant{}, missing
	}
	g, err := a.Grants.Grant(ctx, id)
	if err == nil && !(by.Role == access.Owner && g.Grantor == by.Party) && g.Recipient != by.Party {
		return grant.Grant{}, missing
	}
	return g, err
}

func (a *API) listGrants(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[Grant]], error) {
	all, err := a.Grants.GrantsTo(ctx, by.Party)
	if err != nil {
		return nil, err
	}
	if by.Role == access.Owner {
		made, err := a.Grants.GrantsBy(ctx, by.Party)
		if err != nil {
			return nil, err
		}
		all = append(all, made...)
	}
	slices.SortFunc(all, func(x, y grant.Grant) int { return y.Made.Compare(x.Made) })
	n, err := a.grantNames(ctx, by, all)
	if err != nil {
		return nil, err
	}
	page, err := paged(all, func(g grant.Grant) string { return g.ID.String() }, in.Paging)
	return &reply[Page[Grant]]{mapped(page, func(g grant.Grant) Grant { return grantDoc(g, n) })}, err
}

// grantNames are those that a caller may know: an owner named his recipients
// himself; who was given a grant learns the owner's id.
func (a *API) grantNames(ctx context.Context, by access.Principal, all []grant.Grant) (names, error) {
	n, err := a.names(ctx, by)
	if err != nil {
		return nil, err
	}
	for _, g := range all {
		if g.Grantor == by.Party {
			if err := a.withNames(ctx, n, g.Recipient); err != nil {
				return nil, err
			}
		}
	}
	return n, nil
}

func grantDoc(g grant.Grant, n names) Grant {
	out := Grant{ID: g.ID.String(), Owner: n.ref(g.Grantor), Recipient: n.ref(g.Recipient), Purpose: string(g.Purpose), Streams: g.Streams,
		Until: moment(g.Until), Made: moment(g.Made), Ended: moment(g.Ended), Live: g.Live(time.Now())}
	for _, d := range g.Devices {
		out.Devices = append(out.Devices, d.String())
	}
	if g.Data.From != holdfast.Always.From {
		out.From = momentOf(g.Data.From)
	}
	if g.Data.To != holdfast.Always.To {
		out.To = momentOf(g.Data.To)
	}
	return out
}
