package api

import (
	"context"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/policy"
)

// Grant is an owner's word that a recipient may use streams for a purpose.
type Grant struct {
	ID          string     `json:"id"`
	Owner       *PartyRef  `json:"owner"`
	Recipient   *PartyRef  `json:"recipient"`
	Purpose     string     `json:"purpose"`
	Devices     []string   `json:"devices,omitempty" doc:"Ids; left out: all, now and later."`
	Assignments []string   `json:"assignments,omitempty" doc:"Ids: what lies in these assignments only; left out: in any."`
	Streams     []string   `json:"streams,omitempty" doc:"Names; left out: all, now and later."`
	Categories  []string   `json:"categories,omitempty" doc:"IRIs: streams of these categories and of narrower ones only."`
	From        *time.Time `json:"from,omitempty" doc:"The earliest reading; left out: all before."`
	To          *time.Time `json:"to,omitempty" doc:"The latest reading; left out: all after."`
	Until       *time.Time `json:"until" doc:"When the grant ends by itself."`
	Made        *time.Time `json:"made"`
	Ended       *time.Time `json:"ended,omitempty"`
	Live        bool       `json:"live"`
	Supersedes  string     `json:"supersedes,omitempty" doc:"The grant that ended when this one was made."`
	Obligations *Asked     `json:"obligations,omitempty" doc:"What is asked of whatever is given out under it."`
}

// Asked are the obligations of a grant.
type Asked struct {
	Every    string   `json:"every,omitempty" doc:"Windows of at least this length in place of readings: 15m, 1d."`
	Decimals *int     `json:"decimals,omitempty" minimum:"0" maximum:"6" doc:"Those kept of a latitude and a longitude."`
	Step     float64  `json:"step,omitempty" minimum:"0" doc:"Numbers are rounded to its multiples."`
	Delay    string   `json:"delay,omitempty" doc:"Readings are held back until they are so old: 1h."`
	Drop     []string `json:"drop,omitempty" maxItems:"4" doc:"Fields that are left out: device, sequence, altitude, mark."`
	MinGroup int      `json:"min_group,omitempty" minimum:"0" maximum:"100000" doc:"Only windows over a declared group, with so many data subjects in each."`
}

// obligations reads what a grant asks.
func (o *Asked) obligations() (out policy.Obligations, err error) {
	if o == nil {
		return out, nil
	}
	out = policy.Obligations{Decimals: o.Decimals, Step: o.Step, MinGroup: o.MinGroup}
	for _, f := range o.Drop {
		out.Drop = append(out.Drop, policy.Field(f))
	}
	for _, d := range []struct {
		text string
		to   *time.Duration
	}{{o.Every, &out.Every}, {o.Delay, &out.Delay}} {
		if d.text == "" {
			continue
		}
		if *d.to, err = ParseDuration(d.text); err != nil {
			return out, err
		}
	}
	return out, out.Check()
}

func askedDoc(o policy.Obligations) *Asked {
	if o.IsZero() {
		return nil
	}
	out := &Asked{Decimals: o.Decimals, Step: o.Step, MinGroup: o.MinGroup}
	if o.Every != 0 {
		out.Every = o.Every.String()
	}
	if o.Delay != 0 {
		out.Delay = o.Delay.String()
	}
	for _, f := range o.Drop {
		out.Drop = append(out.Drop, string(f))
	}
	return out
}

type addGrant struct {
	Body struct {
		Recipient   string   `json:"recipient" minLength:"1" doc:"The id of a party, or the name of an organisation or service."`
		Purpose     string   `json:"purpose" minLength:"1"`
		Devices     []string `json:"devices,omitempty" maxItems:"1000" doc:"Own devices by label or id; left out: all, now and later."`
		Assignments []string `json:"assignments,omitempty" maxItems:"1000" doc:"By id, with data of one's own: what lies in these only; left out: in any, now and later."`
		Streams     []string `json:"streams,omitempty" maxItems:"1000" doc:"Names; left out: all, now and later."`
		From        string   `json:"from,omitempty" doc:"The earliest reading; left out: all before."`
		To          string   `json:"to,omitempty" doc:"The latest reading; left out: all after."`
		Until       string   `json:"until" minLength:"1" doc:"When the grant ends: RFC 3339, a date, or +30d; at most two years ahead."`
		Categories  []string `json:"categories,omitempty" maxItems:"100" doc:"Of the W3C Data Privacy Vocabulary, by IRI or short form (pd:Location): streams of these and of narrower ones only."`
		Supersedes  string   `json:"supersedes,omitempty" doc:"An own grant to the same recipient that ends when this one is made."`
		Obligations *Asked   `json:"obligations,omitempty"`
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
	s := grant.Spec{Recipient: p.ID, Purpose: holdfast.Purpose(b.Purpose), AllDevices: len(b.Devices) == 0, AllStreams: len(b.Streams) == 0, Streams: b.Streams, Categories: b.Categories}
	for _, text := range b.Devices {
		d, err := a.device(ctx, by, text)
		if err != nil {
			return nil, err
		}
		s.Devices = append(s.Devices, d.ID)
	}
	for _, text := range b.Assignments {
		x, err := a.assignment(ctx, by, text)
		if err != nil {
			return nil, err
		}
		s.Assignments = append(s.Assignments, x.ID)
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
	if s.Obligations, err = b.Obligations.obligations(); err != nil {
		return nil, err
	}
	if b.Supersedes != "" {
		if s.Supersedes, err = holdfast.ParseID[holdfast.GrantID](b.Supersedes); err != nil {
			return nil, holdfast.Errorf(holdfast.Invalid, "the grant to supersede is named by its id")
		}
	}
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
	var after holdfast.GrantID
	if in.After != "" {
		var err error
		if after, err = holdfast.ParseID[holdfast.GrantID](in.After); err != nil {
			return nil, holdfast.Errorf(holdfast.Conflict, "the item where the page begins is gone: ask again from the start")
		}
	}
	all, more, err := a.Grants.PageOfGrants(ctx, by.Party, by.Role == access.Owner, after, in.Limit)
	if err != nil {
		return nil, err
	}
	n, err := a.grantNames(ctx, by, all)
	if err != nil {
		return nil, err
	}
	page := Page[grant.Grant]{Items: all}
	if more && len(all) > 0 {
		page.Next = all[len(all)-1].ID.String()
	}
	return &reply[Page[Grant]]{mapped(page, func(g grant.Grant) Grant { return grantDoc(g, n) })}, nil
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
		Until: moment(g.Until), Made: moment(g.Made), Ended: moment(g.Ended), Live: g.Live(time.Now()), Categories: g.Categories, Obligations: askedDoc(g.Obligations)}
	if !g.Supersedes.IsZero() {
		out.Supersedes = g.Supersedes.String()
	}
	for _, d := range g.Devices {
		out.Devices = append(out.Devices, d.String())
	}
	for _, x := range g.Assignments {
		out.Assignments = append(out.Assignments, x.String())
	}
	if g.Data.From != holdfast.Always.From {
		out.From = momentOf(g.Data.From)
	}
	if g.Data.To != holdfast.Always.To {
		out.To = momentOf(g.Data.To)
	}
	return out
}
