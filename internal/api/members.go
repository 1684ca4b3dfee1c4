package api

import (
	"context"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/handover"
)

// Membership says that a party belongs to a household or an organisation.
type Membership struct {
	ID     string     `json:"id"`
	Of     *PartyRef  `json:"of" doc:"The household or organisation."`
	Member *PartyRef  `json:"member"`
	Kind   string     `json:"kind" enum:"adult,child,guardian,employee,tenant"`
	Ward   *PartyRef  `json:"ward,omitempty" doc:"Of a guardian: the child in whose place he acts."`
	State  string     `json:"state" enum:"offered,active,ended" doc:"offered: it waits for the member's own word."`
	From   *time.Time `json:"from"`
	To     *time.Time `json:"to,omitempty" doc:"Of a child: the day of majority."`
}

type addMember struct {
	Body struct {
		Of     string `json:"of" minLength:"1" doc:"The household or organisation, by name or id."`
		Member string `json:"member" minLength:"1" doc:"A party; a person by the id that he gave, to administrators also by name."`
		Kind   string `json:"kind" enum:"adult,child,guardian,employee,tenant"`
		Ward   string `json:"ward,omitempty" doc:"Of a guardian: the child of the household."`
		From   string `json:"from,omitempty" doc:"Default: now."`
		To     string `json:"to,omitempty" doc:"Default: open. Of a child it must be given: the day of majority, on which it ends by itself."`
	}
}

func (a *API) members() {
	handle(a, route{method: "POST", path: "/v1/members", summary: "Offer a party a place in a household or an organisation. It counts when the member accepts.",
		status: http.StatusCreated, rule: writes(access.Administrator, access.Owner)}, a.addMember)
	handle(a, route{method: "GET", path: "/v1/members", summary: "List the members of a household or organisation, or one's own memberships.",
		rule: reads(access.Administrator, access.Owner)}, a.listMembers)
	handle(a, route{method: "POST", path: "/v1/members/{id}/acceptance", summary: "Accept one's own membership.", rule: writes(access.Owner)},
		func(ctx context.Context, by access.Principal, in *byID) (*reply[Membership], error) {
			return a.changeMember(ctx, by, in.ID, a.Custody.AcceptMembership)
		})
	handle(a, route{method: "DELETE", path: "/v1/members/{id}", summary: "End a membership, at once and forward, or decline it.",
		rule: writes(access.Administrator, access.Owner)},
		func(ctx context.Context, by access.Principal, in *byID) (*reply[Membership], error) {
			return a.changeMember(ctx, by, in.ID, a.Custody.EndMembership)
		})
}

// byID is a path to what has no name.
type byID struct {
	ID string `path:"id"`
}

func (a *API) addMember(ctx context.Context, by access.Principal, in *addMember) (*reply[Membership], error) {
	b := &in.Body
	of, err := a.party(ctx, by, b.Of)
	if err != nil {
		return nil, err
	}
	s := custody.MemberSpec{Of: of.ID, Kind: custody.MemberKind(b.Kind)}
	if s.Member, err = a.memberNamed(ctx, by, b.Member); err != nil {
		return nil, err
	}
	if b.Ward != "" {
		if s.Ward, err = a.memberNamed(ctx, by, b.Ward); err != nil {
			return nil, err
		}
	}
	now := time.Now()
	for _, of := range []struct {
		text string
		to   *time.Time
	}{{b.From, &s.From}, {b.To, &s.To}} {
		if of.text == "" {
			continue
		}
		at, err := ParseTime(of.text, now, false)
		if err != nil {
			return nil, err
		}
		*of.to = time.Unix(0, at)
	}
	if by.Role == access.Administrator && s.Kind == custody.Minor {
		if s.Speaks, err = a.speaks(ctx, by, s.Member); err != nil {
			return nil, err
		}
	}
	m, err := a.Custody.AddMember(ctx, handover.Actor(by), s)
	if err != nil {
		return nil, err
	}
	return a.memberReply(ctx, by, m)
}

// memberNamed is a party as who may add members names it.
func (a *API) memberNamed(ctx context.Context, by access.Principal, text string) (holdfast.PartyID, error) {
	if by.Role == access.Administrator {
		p, err := a.party(ctx, by, text)
		return p.ID, err
	}
	p, err := a.recipient(ctx, text)
	return p.ID, err
}

// speaks reports whether a party has a credential of its own.
func (a *API) speaks(ctx context.Context, by access.Principal, party holdfast.PartyID) (bool, error) {
	by.Scopes |= access.ScopeRead
	all, err := a.Access.Credentials(ctx, by, party)
	for _, c := range all {
		if c.Role == access.Owner && c.Revoked.IsZero() && time.Now().Before(c.NotAfter) {
			return true, nil
		}
	}
	return false, err
}

func (a *API) listMembers(ctx context.Context, by access.Principal, in *struct {
	Of string `query:"of" doc:"The household or organisation; left out: one's own memberships."`
	Paging
}) (*reply[Page[Membership]], error) {
	var all []custody.Membership
	if in.Of == "" {
		var err error
		if all, err = a.Custody.Memberships(ctx, by.Party); err != nil {
			return nil, err
		}
	} else {
		p, err := a.party(ctx, by, in.Of)
		if err != nil {
			return nil, err
		}
		if all, err = a.Custody.Members(ctx, p.ID); err != nil {
			return nil, err
		}
	}
	n, err := a.memberNames(ctx, by, all...)
	if err != nil {
		return nil, err
	}
	page, err := paged(all, func(m custody.Membership) string { return m.ID.String() }, in.Paging)
	return &reply[Page[Membership]]{mapped(page, func(m custody.Membership) Membership { return memberDoc(m, n) })}, err
}

func (a *API) changeMember(ctx context.Context, by access.Principal, text string,
	change func(context.Context, custody.Actor, holdfast.MembershipID) (custody.Membership, error)) (*reply[Membership], error) {
	id, err := holdfast.ParseID[holdfast.MembershipID](text)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no such membership")
	}
	m, err := change(ctx, handover.Actor(by), id)
	if err != nil {
		return nil, err
	}
	return a.memberReply(ctx, by, m)
}

func (a *API) memberReply(ctx context.Context, by access.Principal, m custody.Membership) (*reply[Membership], error) {
	n, err := a.memberNames(ctx, by, m)
	return &reply[Membership]{memberDoc(m, n)}, err
}

// memberNames adds what the household is called: its members may know.
func (a *API) memberNames(ctx context.Context, by access.Principal, all ...custody.Membership) (names, error) {
	n, err := a.names(ctx, by)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if n[m.Of] == "" {
			p, err := a.Custody.Party(ctx, m.Of)
			if err != nil {
				return nil, err
			}
			n[m.Of] = p.Name
		}
	}
	return n, nil
}

func memberDoc(m custody.Membership, n names) Membership {
	return Membership{ID: m.ID.String(), Of: n.ref(m.Of), Member: n.ref(m.Member), Kind: string(m.Kind), Ward: n.ref(m.Ward), State: m.State,
		From: moment(m.From), To: moment(m.To)}
}
