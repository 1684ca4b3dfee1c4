package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// Erasure is one erasure and how far it has come. It names ids only.
type Erasure struct {
	ID            string     `json:"id" doc:"Whoever knows it may ask how far the erasure has come."`
	Party         string     `json:"party"`
	State         string     `json:"state" enum:"waiting,asked,destroyed,done" doc:"waiting: for the word of every adult of the household, see joint; asked: refused on every path; destroyed: the keys are gone; done: the ciphertext too."`
	Whole         bool       `json:"whole_party,omitempty"`
	Assignments   []string   `json:"assignments"`
	Streams       []string   `json:"streams,omitempty"`
	From          *time.Time `json:"from,omitempty"`
	To            *time.Time `json:"to,omitempty"`
	By            string     `json:"by" doc:"The role that asked."`
	Asked         *time.Time `json:"asked"`
	Refused       *time.Time `json:"refused,omitempty"`
	KeysDestroyed *time.Time `json:"keys_destroyed,omitempty"`
	Purged        *time.Time `json:"purged,omitempty"`
	Kept          []Kept     `json:"kept,omitempty" doc:"What holds keep of what was asked for."`
	Certificate   string     `json:"certificate,omitempty" doc:"Signed text; holdfast verify checks it without a server."`
	Verifier      string     `json:"verifier,omitempty" doc:"The hub's public key for it."`

	Joint *JointErasure `json:"joint,omitempty" doc:"Of a household: whose word it waits for. It has no id of its own yet."`
}

// Kept is what a hold keeps of an assignment whose rest is erased.
type Kept struct {
	Assignment string   `json:"assignment"`
	Streams    []string `json:"streams,omitempty" doc:"Ids; left out: all."`
	Why        string   `json:"why" enum:"claim,law,restriction"`
	Hold       string   `json:"hold,omitempty"`
}

type erasureReply struct {
	Status int
	Body   Erasure
}

type addErasure struct {
	Wait int `query:"wait" minimum:"0" maximum:"60" default:"30" doc:"How many seconds to wait for the end."`
	Body struct {
		Party  string `json:"party,omitempty" doc:"All of a party, by name or id."`
		Device string `json:"device,omitempty" doc:"All of a device, by label or id."`
		Stream string `json:"stream,omitempty" doc:"One stream of the device, by name."`
		Period string `json:"assignment,omitempty" doc:"One assignment of a device, by id; of device: all those whose data are the caller's, for administrators its owner's."`
		From   string `json:"from,omitempty" doc:"The earliest reading to erase; left out: all before."`
		To     string `json:"to,omitempty" doc:"The latest; left out: all after."`
		Rest   bool   `json:"rest,omitempty" doc:"Erase what no hold keeps; without it, a hold on any of it refuses all."`
	}
}

func (a *API) erasures() {
	ask := writes(access.Administrator, access.Owner)
	ask.slow, ask.settles = true, true
	handle(a, route{method: "POST", path: "/v1/erasures", summary: "Erase a party, a device or a stream, or a span of time of the last two.", rule: ask}, a.addErasure)
	handle(a, route{method: "GET", path: "/v1/erasures", summary: "List erasures: an owner's own, to administrators all.",
		rule: reads(access.Administrator, access.Owner, access.Auditor)},
		func(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[Erasure]], error) {
			all, err := a.Erasure.Erasures(ctx, by)
			if err != nil {
				return nil, err
			}
			page, err := paged(all, func(e erasure.Erasure) string { return e.ID.String() }, in.Paging)
			return &reply[Page[Erasure]]{mapped(page, a.erasureDoc)}, err
		})
	handle(a, route{method: "GET", path: "/v1/erasures/{id}", summary: "Show how far an erasure has come. The id is enough: no credential is needed.",
		rule: rule{slow: true}},
		func(ctx context.Context, _ access.Principal, in *struct {
			ID   string `path:"id"`
			Wait int    `query:"wait" minimum:"0" maximum:"60" doc:"How many seconds to wait for the end."`
		}) (*erasureReply, error) {
			id, err := holdfast.ParseID[holdfast.ErasureID](in.ID)
			if err != nil {
				return nil, holdfast.Errorf(holdfast.NotFound, "there is no such erasure")
			}
			return a.wait(ctx, id, in.Wait)
		})
}

func (a *API) addErasure(ctx context.Context, by access.Principal, in *addErasure) (*erasureReply, error) {
	j, err := a.target(ctx, by, in)
	if err != nil {
		return nil, err
	}
	if out, ok, err := a.jointly(ctx, by, in.Wait, j); ok || err != nil {
		return out, err
	}
	if by, err = a.inPlaceOf(ctx, by, j.Party); err != nil {
		return nil, err
	}
	return a.erase(ctx, by, in.Wait, in.Body.Rest, func() (holdfast.Scope, error) { return a.scope(ctx, by, in) })
}

// target says what is to be erased, and whose it is.
func (a *API) target(ctx context.Context, by access.Principal, in *addErasure) (j custody.Joint, err error) {
	b := &in.Body
	j.Span = holdfast.Always
	switch {
	case b.Party != "" && b.Device+b.Period != "" || b.Device != "" && b.Period != "" || b.Party+b.Device+b.Period == "" || b.Stream != "" && b.Party != "":
		return j, holdfast.Errorf(holdfast.Invalid, "say what to erase: a party, a device or an assignment, or a stream of one of these two")
	case b.Party != "" && (b.From != "" || b.To != ""):
		return j, holdfast.Errorf(holdfast.Invalid, "a span of time is erased of a device or a stream, not of a party")
	case b.Party != "":
		p, err := a.party(ctx, by, b.Party)
		j.Party = p.ID
		return j, err
	}
	if j.Party, j.Device, err = a.whoseSlice(ctx, by, b.Device, b.Period); err != nil {
		return j, err
	}
	j.Stream = b.Stream
	if b.Stream != "" {
		if err := holdfast.CheckName("stream", b.Stream); err != nil {
			return j, err
		}
	}
	if b.From != "" || b.To != "" {
		j.Span, err = span(b.From, b.To, time.Now(), holdfast.Always.From, holdfast.Always.To)
	}
	return j, err
}

// scopes is how often the scope of an erasure is made: a party may be given a
// device between that and the asking, which then is a conflict.
const scopes = 3

func (a *API) erase(ctx context.Context, by access.Principal, seconds int, rest bool, scope func() (holdfast.Scope, error)) (*erasureReply, error) {
	ask := a.Erasure.Ask
	if rest {
		ask = a.Erasure.AskRest
	}
	for try := 1; ; try++ {
		s, err := scope()
		if err != nil {
			return nil, err
		}
		e, err := ask(ctx, by, s)
		switch {
		case err == nil:
			return a.wait(ctx, e.ID, seconds)
		case holdfast.KindOf(err) != holdfast.Conflict || !s.Whole || try == scopes:
			return nil, err
		}
	}
}

func (a *API) scope(ctx context.Context, by access.Principal, in *addErasure) (s holdfast.Scope, err error) {
	b := &in.Body
	if b.Party != "" {
		p, err := a.party(ctx, by, b.Party)
		if err != nil {
			return s, err
		}
		return a.Custody.ScopeOfParty(ctx, p.ID)
	}
	if s, err = a.slice(ctx, by, b.Device, b.Period); err == nil && b.Stream != "" {
		s, err = a.Custody.OfStream(ctx, s, b.Stream)
	}
	if err != nil || b.From == "" && b.To == "" {
		return s, err
	}
	s.Span, err = span(b.From, b.To, time.Now(), holdfast.Always.From, holdfast.Always.To)
	return s, err
}

// whoseSlice says whose data are to be erased: of a device those of the party that the
// caller is or acts for, first of all the one whose device it is; of an assignment
// those of the one whose it is. An administrator names whom he likes.
func (a *API) whoseSlice(ctx context.Context, by access.Principal, device, period string) (whom holdfast.PartyID, of holdfast.DeviceID, err error) {
	var held []custody.Assignment
	if period != "" {
		x, err := a.assignment(ctx, by, period)
		if err != nil {
			return whom, of, err
		}
		p, err := a.Custody.Party(ctx, x.Whose())
		if err != nil {
			return whom, of, err
		}
		if p.Kind == custody.Household {
			return whom, of, holdfast.Errorf(holdfast.Invalid, "a household's data are erased by device, with the word of its adults: name the device")
		}
		of, held = x.Device, []custody.Assignment{x}
	} else {
		d, err := a.device(ctx, by, device)
		if err != nil {
			return whom, of, err
		}
		of = d.ID
		if held, err = a.Custody.Holders(ctx, of); err != nil {
			return whom, of, err
		}
	}
	for _, x := range held {
		if by.Role != access.Owner {
			return x.Whose(), of, nil
		}
		if ok, err := a.stands(ctx, by, x.Whose()); err != nil || ok {
			return x.Whose(), of, err
		}
	}
	return whom, of, holdfast.Errorf(holdfast.Denied, "the readings are about somebody else: he or an administrator can have them erased")
}

// slice is the scope that is what a party has of a device, or one assignment.
func (a *API) slice(ctx context.Context, by access.Principal, device, period string) (s holdfast.Scope, err error) {
	whom, of, err := a.whoseSlice(ctx, by, device, period)
	switch {
	case err != nil:
		return s, err
	case period != "":
		x, err := a.assignment(ctx, by, period)
		return a.Custody.ScopeOfAssignment(x), err
	case by.Role != access.Owner:
		return a.Custody.ScopeOfDevice(ctx, of)
	}
	return a.Custody.ScopeOfSlice(ctx, of, whom)
}

// wait answers when an erasure has ended or the time is over, whichever is first.
func (a *API) wait(ctx context.Context, id holdfast.ErasureID, seconds int) (*erasureReply, error) {
	e, err := a.Erasure.Erasure(ctx, id)
	if err != nil {
		return nil, err
	}
	if limit := min(time.Duration(seconds)*time.Second, a.Limits.ErasureWait); e.State != erasure.Done && limit > 0 {
		waiting, cancel := context.WithTimeout(ctx, limit)
		err := a.Erasure.Wait(waiting, id)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		}
		if e, err = a.Erasure.Erasure(ctx, id); err != nil {
			return nil, err
		}
	}
	out := &erasureReply{Status: http.StatusOK, Body: a.erasureDoc(e)}
	if e.State != erasure.Done {
		out.Status = http.StatusAccepted
	}
	return out, nil
}

func (a *API) erasureDoc(e erasure.Erasure) Erasure {
	out := Erasure{ID: e.ID.String(), Party: e.Party.String(), State: e.State, Whole: e.Scope.Whole, From: e.Scope.From, To: e.Scope.To,
		By: e.By, Asked: moment(e.AskedAt), Refused: moment(e.RefusedAt), KeysDestroyed: moment(e.KeysDeadAt), Purged: moment(e.PurgedAt),
		Certificate: string(e.Certificate), Assignments: []string{}}
	if e.Party.IsZero() {
		out.Party = ""
	}
	for _, s := range e.Scope.Assignments {
		out.Assignments = append(out.Assignments, s.String())
	}
	for _, s := range e.Scope.Streams {
		out.Streams = append(out.Streams, s.String())
	}
	for _, k := range e.Kept {
		doc := Kept{Assignment: k.Assignment.String(), Why: string(k.Why)}
		for _, s := range k.Streams {
			doc.Streams = append(doc.Streams, s.String())
		}
		if !k.Hold.IsZero() {
			doc.Hold = k.Hold.String()
		}
		out.Kept = append(out.Kept, doc)
	}
	if out.Certificate != "" {
		out.Verifier = a.Ledger.VerifierKey()
	}
	return out
}
