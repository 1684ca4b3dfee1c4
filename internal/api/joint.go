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

// JointErasure is the wish to erase what is a household's: it begins when every
// adult has confirmed it.
type JointErasure struct {
	ID        string     `json:"id"`
	Party     *PartyRef  `json:"party" doc:"The household."`
	Device    string     `json:"device,omitempty" doc:"Left out: the household itself, with all it has."`
	Stream    string     `json:"stream,omitempty"`
	From      *time.Time `json:"from,omitempty"`
	To        *time.Time `json:"to,omitempty"`
	State     string     `json:"state" enum:"waiting,begun,withdrawn,expired"`
	By        *PartyRef  `json:"by"`
	Asked     *time.Time `json:"asked"`
	Until     *time.Time `json:"until" doc:"When it ends if a word is missing still."`
	Confirmed []string   `json:"confirmed" doc:"Ids of the adults who have confirmed."`
	Missing   []string   `json:"missing" doc:"Of those whose word it waits for."`
	Erasure   string     `json:"erasure,omitempty" doc:"The erasure that it became: GET /v1/erasures/ID."`
}

func (a *API) joint() {
	handle(a, route{method: "GET", path: "/v1/joint-erasures", summary: "List the erasures of one's households that wait, or waited, for the word of every adult.",
		rule: reads(access.Owner)}, a.listJoints)
	slow := settling(access.Owner)
	slow.slow = true
	handle(a, route{method: "POST", path: "/v1/joint-erasures/{id}/confirmation", summary: "Confirm a joint erasure. With the last adult's word it begins.", rule: slow},
		func(ctx context.Context, by access.Principal, in *byID) (*reply[JointErasure], error) {
			id, err := jointID(in.ID)
			if err != nil {
				return nil, err
			}
			j, err := a.Desk.Confirm(ctx, by, id)
			if err != nil {
				return nil, err
			}
			n, err := a.names(ctx, by)
			return &reply[JointErasure]{jointDoc(j, n)}, err
		})
	handle(a, route{method: "DELETE", path: "/v1/joint-erasures/{id}", summary: "Withdraw a joint erasure that has not begun.", rule: writes(access.Owner)},
		func(ctx context.Context, by access.Principal, in *byID) (*nothing, error) {
			id, err := jointID(in.ID)
			if err != nil {
				return nil, err
			}
			return &nothing{}, a.Custody.WithdrawJoint(ctx, handover.Actor(by), id)
		})
}

func jointID(text string) (holdfast.JointID, error) {
	id, err := holdfast.ParseID[holdfast.JointID](text)
	if err != nil {
		err = holdfast.Errorf(holdfast.NotFound, "there is no such joint erasure")
	}
	return id, err
}

func (a *API) listJoints(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[JointErasure]], error) {
	parties, err := a.actsFor(ctx, by)
	if err != nil {
		return nil, err
	}
	var all []custody.Joint
	for _, p := range append([]holdfast.PartyID{by.Party}, parties...) {
		of, err := a.Custody.Joints(ctx, p)
		if err != nil {
			return nil, err
		}
		all = append(all, of...)
	}
	n, err := a.names(ctx, by)
	if err != nil {
		return nil, err
	}
	page, err := paged(all, func(j custody.Joint) string { return j.ID.String() }, in.Paging)
	return &reply[Page[JointErasure]]{mapped(page, func(j custody.Joint) JointErasure { return jointDoc(j, n) })}, err
}

func jointDoc(j custody.Joint, n names) JointErasure {
	out := JointErasure{ID: j.ID.String(), Party: n.ref(j.Party), Stream: j.Stream, State: j.State, By: n.ref(j.By), Asked: moment(j.Asked), Until: moment(j.Until),
		Confirmed: []string{}, Missing: []string{}}
	if !j.Device.IsZero() {
		out.Device = j.Device.String()
	}
	if j.Span != holdfast.Always {
		out.From, out.To = momentOf(j.Span.From), momentOf(j.Span.To)
	}
	for _, p := range j.Words {
		out.Confirmed = append(out.Confirmed, p.String())
	}
	for _, p := range j.Missing {
		out.Missing = append(out.Missing, p.String())
	}
	if !j.Erasure.IsZero() {
		out.Erasure = j.Erasure.String()
	}
	return out
}

// jointly asks for the erasure of what is a household's in the name of all its
// adults. ok is false where the erasure is the caller's alone to ask for.
func (a *API) jointly(ctx context.Context, by access.Principal, seconds int, j custody.Joint) (_ *erasureReply, ok bool, err error) {
	if ok, err := a.stands(ctx, by, j.Party); err != nil || !ok && by.Role != access.Administrator {
		return nil, false, err
	}
	j, ok, err = a.Desk.Jointly(ctx, by, j)
	if err != nil || !ok {
		return nil, ok, err
	}
	if !j.Erasure.IsZero() {
		out, err := a.wait(ctx, by, j.Erasure, seconds)
		return out, true, err
	}
	n, err := a.names(ctx, by)
	doc := jointDoc(j, n)
	return &erasureReply{Status: http.StatusAccepted, Body: Erasure{Party: j.Party.String(), State: custody.Waiting, By: by.Role.String(), Asked: moment(j.Asked),
		Whole: j.Device.IsZero(), Assignments: []string{}, Joint: &doc}}, true, err
}
