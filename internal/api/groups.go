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

// Group is devices that a recipient asks about together.
type Group struct {
	ID      string     `json:"id"`
	Party   *PartyRef  `json:"party" doc:"The recipient whose it is."`
	Name    string     `json:"name"`
	Count   int        `json:"count" doc:"How many devices were declared."`
	Devices []string   `json:"devices,omitempty" doc:"Their ids; left out of lists."`
	Every   string     `json:"every" doc:"The length of its windows."`
	Zone    string     `json:"tz" doc:"Their time zone."`
	Made    *time.Time `json:"made"`
	Ended   *time.Time `json:"ended,omitempty"`
}

type addGroup struct {
	Body struct {
		Name    string   `json:"name" minLength:"1"`
		Party   string   `json:"party,omitempty" doc:"For administrators: the recipient whose it is; left out: the caller's own."`
		Devices []string `json:"devices" minItems:"1" maxItems:"100000" doc:"Ids of anybody's devices, or labels of one's own. Whether there is a device of an id is not told."`
		Every   string   `json:"every,omitempty" enum:"1h,2h,3h,4h,6h,8h,12h,1d,1w,1mo" doc:"The length of its windows; left out: 1d."`
		Zone    string   `json:"tz,omitempty" doc:"An IANA time zone, of days, weeks and months; left out: UTC."`
	}
}

// groupBody is room for all the ids that a group may have.
const groupBody = 4 << 20

func (a *API) groups() {
	add := writes()
	add.body = groupBody
	handle(a, route{method: "POST", path: "/v1/groups", summary: "Declare a group of devices to be asked about together. It can't be changed.",
		status: http.StatusCreated, rule: add}, a.addGroup)
	handle(a, route{method: "GET", path: "/v1/groups", summary: "List the groups of the caller's party, or for administrators of any.", rule: reads()},
		func(ctx context.Context, by access.Principal, in *struct {
			Paging
			Party string `query:"party" doc:"For administrators: whose; left out: the caller's own."`
		}) (*reply[Page[Group]], error) {
			whose, err := a.groupsOf(ctx, by, in.Party)
			if err != nil {
				return nil, err
			}
			all, err := a.Grants.Groups(ctx, whose)
			if err != nil {
				return nil, err
			}
			n, err := a.grantNames(ctx, by, nil)
			if err != nil {
				return nil, err
			}
			if err := a.withNames(ctx, n, whose); err != nil {
				return nil, err
			}
			page, err := paged(all, func(g grant.Group) string { return g.ID.String() }, in.Paging)
			return &reply[Page[Group]]{mapped(page, func(g grant.Group) Group { return groupDoc(g, n) })}, err
		})
	handle(a, route{method: "GET", path: "/v1/groups/{group}", summary: "Show a group, with the devices that were declared.", rule: reads()},
		func(ctx context.Context, by access.Principal, in *groupPath) (*reply[Group], error) {
			g, err := a.group(ctx, by, in.Group)
			if err != nil {
				return nil, err
			}
			return a.groupReply(ctx, by, g)
		})
	handle(a, route{method: "DELETE", path: "/v1/groups/{group}", summary: "End a group. What it was told stays remembered.", rule: writes()},
		func(ctx context.Context, by access.Principal, in *groupPath) (*nothing, error) {
			g, err := a.group(ctx, by, in.Group)
			if err != nil {
				return nil, err
			}
			return &nothing{}, a.Grants.EndGroup(ctx, by.Credential, g.ID)
		})
}

type groupPath struct {
	Group string `path:"group" doc:"A name of one's own, or an id."`
}

// groupsOf is the party whose groups a caller asks about: his own, unless he is an
// administrator.
func (a *API) groupsOf(ctx context.Context, by access.Principal, text string) (holdfast.PartyID, error) {
	if text == "" {
		return by.Party, nil
	}
	if by.Role != access.Administrator && text != by.Party.String() {
		return by.Party, holdfast.Errorf(holdfast.Denied, "only an administrator names the party whose group it is")
	}
	p, err := a.party(ctx, by, text)
	return p.ID, err
}

func (a *API) addGroup(ctx context.Context, by access.Principal, in *addGroup) (*reply[Group], error) {
	b := &in.Body
	whose, err := a.groupsOf(ctx, by, b.Party)
	if err != nil {
		return nil, err
	}
	s := grant.GroupSpec{Name: b.Name, Every: b.Every, Zone: b.Zone}
	if s.Every == "" {
		s.Every = "1d"
	}
	slices.Sort(b.Devices) // each is looked up once
	for _, text := range slices.Compact(b.Devices) {
		id, err := holdfast.ParseID[holdfast.DeviceID](text)
		if err != nil {
			d, err := a.device(ctx, by, text)
			if err != nil {
				return nil, err
			}
			id = d.ID
		}
		s.Devices = append(s.Devices, id)
	}
	g, err := a.Grants.AddGroup(ctx, by.Credential, whose, s)
	if err != nil {
		return nil, err
	}
	return a.groupReply(ctx, by, g)
}

// group finds a group by id or, of the caller's party, by name. Those of others are
// for administrators.
func (a *API) group(ctx context.Context, by access.Principal, text string) (grant.Group, error) {
	missing := holdfast.Errorf(holdfast.NotFound, "there is no such group")
	if id, err := holdfast.ParseID[holdfast.GroupID](text); err == nil {
		g, err := a.Grants.Group(ctx, id)
		if err == nil && g.Party != by.Party && by.Role != access.Administrator {
			return grant.Group{}, missing
		}
		return g, err
	}
	all, err := a.Grants.Groups(ctx, by.Party)
	if err != nil {
		return grant.Group{}, err
	}
	for _, g := range all {
		if g.Name == text && g.Ended.IsZero() {
			return g, nil
		}
	}
	return grant.Group{}, missing
}

func (a *API) groupReply(ctx context.Context, by access.Principal, g grant.Group) (*reply[Group], error) {
	n, err := a.grantNames(ctx, by, nil)
	if err != nil {
		return nil, err
	}
	if err := a.withNames(ctx, n, g.Party); err != nil {
		return nil, err
	}
	doc := groupDoc(g, n)
	for _, d := range g.Devices {
		doc.Devices = append(doc.Devices, d.String())
	}
	return &reply[Group]{doc}, nil
}

func groupDoc(g grant.Group, n names) Group {
	return Group{
		ID: g.ID.String(), Party: n.ref(g.Party), Name: g.Name, Count: len(g.Devices), Every: g.Every, Zone: g.Zone,
		Made: moment(g.Made), Ended: moment(g.Ended),
	}
}
