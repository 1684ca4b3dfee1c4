package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// Hold keeps data as they are, or keeps them from being used or collected.
type Hold struct {
	ID          string     `json:"id"`
	Kind        string     `json:"kind" enum:"restriction,objection,collection,claim,law"`
	Party       *PartyRef  `json:"party" doc:"Whose data it is on."`
	Purpose     string     `json:"purpose,omitempty" doc:"Of an objection."`
	Devices     []string   `json:"devices,omitempty" doc:"Ids; left out: all, now and later."`
	Assignments []string   `json:"assignments,omitempty" doc:"Ids of those of these devices that it is on; left out: all, now and later."`
	Streams     []string   `json:"streams,omitempty" doc:"Names; left out: all, now and later."`
	Reason      string     `json:"reason,omitempty"`
	Secret      bool       `json:"secret,omitempty" doc:"The law forbids telling the owner."`
	OwnWord     bool       `json:"own_word" doc:"Set with the owner's own credential: only that ends it."`
	State       string     `json:"state" enum:"stands,lifting,ended" doc:"lifting: the owner was told that it ends."`
	Set         *time.Time `json:"set"`
	Lifts       *time.Time `json:"lifts,omitempty" doc:"When it ends by itself."`
	Ended       *time.Time `json:"ended,omitempty"`
}

type addHold struct {
	Body struct {
		Kind        string   `json:"kind" enum:"restriction,objection,collection,claim,law"`
		Party       string   `json:"party,omitempty" doc:"Whose data; left out: the caller's own, or whose the devices or assignments are."`
		Devices     []string `json:"devices,omitempty" maxItems:"1000" doc:"By label or id; left out: all, now and later."`
		Assignments []string `json:"assignments,omitempty" maxItems:"1000" doc:"By id: what lies in these only."`
		Streams     []string `json:"streams,omitempty" maxItems:"1000" doc:"Names; left out: all, now and later."`
		Purpose     string   `json:"purpose,omitempty" doc:"Of an objection."`
		Reason      string   `json:"reason,omitempty" maxLength:"4096" doc:"Required of a claim or law."`
		Secret      bool     `json:"secret,omitempty" doc:"The law forbids telling the owner."`
	}
}

func holder(by access.Principal) grant.HoldBy {
	return grant.HoldBy{Caller: caller(by), Administrator: by.Role == access.Administrator}
}

func (a *API) holds() {
	both := []access.Role{access.Owner, access.Administrator}
	handle(a, route{method: "POST", path: "/v1/holds", summary: "Set a hold: restrict or object to use, stop collection, or keep data for a claim or by law.",
		status: http.StatusCreated, rule: writes(both...)}, a.addHold)
	handle(a, route{method: "GET", path: "/v1/holds", summary: "List holds: an owner those on his own data, an administrator all.", rule: reads(both...)}, a.listHolds)
	handle(a, route{method: "GET", path: "/v1/holds/{id}", summary: "Show a hold.", rule: reads(both...)},
		func(ctx context.Context, by access.Principal, in *struct {
			ID string `path:"id"`
		}) (*reply[Hold], error) {
			h, err := a.hold(ctx, by, in.ID)
			if err != nil {
				return nil, err
			}
			return a.holdReply(ctx, by, h)
		})
	handle(a, route{method: "DELETE", path: "/v1/holds/{id}",
		summary: "End a hold. One that the hub has set for an owner goes on for a day after he was told; the answer says until when.", rule: writes(both...)},
		func(ctx context.Context, by access.Principal, in *struct {
			ID string `path:"id"`
		}) (*reply[Hold], error) {
			h, err := a.hold(ctx, by, in.ID)
			if err != nil {
				return nil, err
			}
			if h, err = a.Grants.EndHold(ctx, holder(by), h.ID); err != nil {
				return nil, err
			}
			return a.holdReply(ctx, by, h)
		})
}

func (a *API) addHold(ctx context.Context, by access.Principal, in *addHold) (*reply[Hold], error) {
	b := &in.Body
	s := grant.HoldSpec{Kind: grant.HoldKind(b.Kind), Purpose: holdfast.Purpose(b.Purpose), Streams: b.Streams, Reason: b.Reason, Secret: b.Secret}
	switch {
	case b.Party != "":
		p, err := a.party(ctx, by, b.Party)
		if err != nil {
			return nil, err
		}
		if p.State == custody.Erased {
			return nil, noParty()
		}
		s.Whose = p.ID
	case by.Role == access.Owner:
		s.Whose = by.Party
	case len(b.Devices)+len(b.Assignments) == 0:
		return nil, holdfast.Errorf(holdfast.Invalid, "say whose data: a party, devices or assignments")
	}
	if err := a.heldOf(ctx, by, in, &s); err != nil {
		return nil, err
	}
	h, err := a.Grants.AddHold(ctx, holder(by), s)
	if err != nil {
		return nil, err
	}
	return a.holdReply(ctx, by, h)
}

// heldOf looks up the assignments that a hold is on: the named ones, and of a named
// device all whose data are that party's.
func (a *API) heldOf(ctx context.Context, by access.Principal, in *addHold, s *grant.HoldSpec) error {
	for _, text := range in.Body.Assignments {
		x, err := a.assignment(ctx, by, text)
		if err != nil {
			return err
		}
		if s.Whose.IsZero() {
			s.Whose = x.Whose()
		}
		if x.Whose() != s.Whose {
			return holdfast.Errorf(holdfast.Denied, "the data of a named assignment are somebody else's")
		}
		s.Assignments = append(s.Assignments, x.ID)
	}
	for _, text := range in.Body.Devices {
		d, err := a.device(ctx, by, text)
		if err != nil {
			return err
		}
		if s.Whose.IsZero() {
			s.Whose = whose(d)
		}
		slice, err := a.Custody.ScopeOfSlice(ctx, d.ID, s.Whose)
		if err != nil {
			return err
		}
		if len(slice.Assignments) == 0 {
			return holdfast.Errorf(holdfast.Denied, "the data of a named device are somebody else's")
		}
		s.Assignments = append(s.Assignments, slice.Assignments...)
	}
	slices.SortFunc(s.Assignments, func(x, y holdfast.AssignmentID) int { return slices.Compare(x[:], y[:]) })
	s.Assignments = slices.Compact(s.Assignments)
	return nil
}

// hold returns a hold to those who may know of it.
func (a *API) hold(ctx context.Context, by access.Principal, text string) (grant.Hold, error) {
	missing := holdfast.Errorf(holdfast.NotFound, "there is no such hold")
	id, err := holdfast.ParseID[holdfast.HoldID](text)
	if err != nil {
		return grant.Hold{}, missing
	}
	h, err := a.Grants.Hold(ctx, id)
	if err == nil && by.Role != access.Administrator && (h.Whose != by.Party || h.Secret) {
		return grant.Hold{}, missing
	}
	return h, err
}

func (a *API) listHolds(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[Hold]], error) {
	var all []grant.Hold
	var err error
	if by.Role == access.Administrator {
		all, err = a.Grants.Holds(ctx)
	} else {
		all, err = a.Grants.HoldsOn(ctx, by.Party, false)
	}
	if err != nil {
		return nil, err
	}
	n, err := a.names(ctx, by)
	if err != nil {
		return nil, err
	}
	page, err := paged(all, func(h grant.Hold) string { return h.ID.String() }, in.Paging)
	if err != nil {
		return nil, err
	}
	out := Page[Hold]{Items: []Hold{}, Next: page.Next}
	for _, h := range page.Items {
		doc, err := a.holdDoc(ctx, h, n)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, doc)
	}
	return &reply[Page[Hold]]{out}, nil
}

func (a *API) holdReply(ctx context.Context, by access.Principal, h grant.Hold) (*reply[Hold], error) {
	n, err := a.namesOf(ctx, by, h.Whose)
	if err != nil {
		return nil, err
	}
	doc, err := a.holdDoc(ctx, h, n)
	return &reply[Hold]{doc}, err
}

func (a *API) holdDoc(ctx context.Context, h grant.Hold, n names) (Hold, error) {
	out := Hold{ID: h.ID.String(), Kind: string(h.Kind), Party: n.ref(h.Whose), Purpose: string(h.Purpose), Streams: h.Streams, Reason: h.Reason,
		Secret: h.Secret, OwnWord: h.OwnWord, State: "stands", Set: moment(h.Set), Lifts: moment(h.Lifts), Ended: moment(h.Ended)}
	switch {
	case !h.Ended.IsZero():
		out.State = "ended"
	case !h.Lifts.IsZero():
		out.State = "lifting"
	}
	for _, id := range h.Assignments {
		x, err := a.Custody.Assignment(ctx, id)
		switch {
		case holdfast.KindOf(err) == holdfast.NotFound:
			continue
		case err != nil:
			return out, err
		}
		out.Assignments = append(out.Assignments, id.String())
		if id := x.Device.String(); !slices.Contains(out.Devices, id) {
			out.Devices = append(out.Devices, id)
		}
	}
	return out, nil
}
