package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
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
	State         string     `json:"state" enum:"approval,waiting,asked,destroyed,done,undone,refused,expired" doc:"approval: a second administrator is to approve it, nothing has happened; waiting: refused on every path, and can be undone until then; or for the word of every adult of the household, see joint; asked: refused on every path; destroyed: the keys are gone; done: the ciphertext too; undone, refused, expired: nothing was destroyed."`
	Outcome       string     `json:"outcome,omitempty" enum:"fulfilled,partly fulfilled" doc:"Of one that is done. Partly: see kept."`
	Until         *time.Time `json:"until,omitempty" doc:"Until when it can be undone, or approved."`
	Ended         *time.Time `json:"ended,omitempty" doc:"Of one that was undone, refused or expired."`
	Pending       string     `json:"pending,omitempty" doc:"Why it does not get on; it is tried again. To administrators in full."`
	Deciders      []string   `json:"deciders,omitempty" doc:"The administrators who could approve or refuse it, by their credentials; to administrators. Of one in bulk that waits."`
	Told          *int       `json:"recipients_told,omitempty" doc:"Recipients who were told to delete what they have."`
	Acked         *int       `json:"recipients_confirmed,omitempty" doc:"Of these, who say that they have."`
	Month         string     `json:"month,omitempty" doc:"What arrived in it."`
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
	Wait seconds `query:"wait"`
	Body wantedErasure
}

// wantedErasure is what is to be erased, and how. What is given and empty is refused: it
// would be taken for left out, and more erased than was meant.
type wantedErasure struct {
	Party    string `json:"party,omitempty" minLength:"1" doc:"All of a party, by name or id; with category or month, that of all that is about it."`
	Device   string `json:"device,omitempty" minLength:"1" doc:"All of a device, by label or id."`
	Whose    string `json:"whose,omitempty" minLength:"1" doc:"Of a device that several use: what is this party's, by name or id."`
	Stream   string `json:"stream,omitempty" minLength:"1" doc:"One stream of the device, by name."`
	Category string `json:"category,omitempty" minLength:"1" doc:"The streams of a DPV category, or a narrower one, of a party, a device or an assignment."`
	Period   string `json:"assignment,omitempty" minLength:"1" doc:"One assignment of a device, by id; of device: all those whose data are the caller's, for administrators its owner's."`
	From     string `json:"from,omitempty" minLength:"1" doc:"The earliest reading to erase; left out: all before."`
	To       string `json:"to,omitempty" minLength:"1" doc:"The latest; left out: all after."`
	Month    string `json:"month,omitempty" minLength:"1" doc:"What arrived in a month that is over, as 2026-03: its keys go as they are, nothing is sealed again."`
	Rest     bool   `json:"rest,omitempty" doc:"Erase what no hold keeps; without it, a hold on any of it refuses all."`
	Undo     string `json:"undo,omitempty" minLength:"1" doc:"How long it can be undone before anything is destroyed: 24h, 7d; at most 30d."`
}

func (a *API) erasures() {
	ask := writes(access.Administrator, access.Owner)
	ask.slow, ask.settles = true, true
	handle(a, route{method: "POST", path: "/v1/erasures", summary: "Erase a party, a device or a stream, a category, a month, or a span of time.", rule: ask}, a.addErasure)
	look := ask
	look.asks = true
	handle(a, route{method: "POST", path: "/v1/erasures/preview", summary: "What an erasure would do, without doing it.", rule: look}, a.previewErasure)
	mine := reads(access.Administrator, access.Owner, access.Auditor)
	mine.leaving = true
	handle(a, route{method: "GET", path: "/v1/erasures", summary: "List erasures: an owner's own, to administrators all.", rule: mine}, a.listErasures)
	handle(a, route{method: "GET", path: "/v1/erasures/{id}", summary: "Show how far an erasure has come. The id is enough: no credential is needed.",
		rule: rule{slow: true}},
		func(ctx context.Context, by access.Principal, in *struct {
			ID   string `path:"id"`
			Wait int    `query:"wait" minimum:"0" maximum:"60" doc:"How many seconds to wait for the end."`
		}) (*erasureReply, error) {
			id, err := erasureID(in.ID)
			if err != nil {
				return nil, err
			}
			return a.wait(ctx, by, id, in.Wait)
		})
	undo := writes(access.Administrator, access.Owner)
	undo.leaving = true
	handle(a, route{method: "DELETE", path: "/v1/erasures/{id}", summary: "Undo an erasure that waits: who asked for it, or the owner.", rule: undo}, a.decideErasure(a.Erasure.Undo))
	second := settling(access.Administrator)
	handle(a, route{method: "POST", path: "/v1/erasures/{id}/approve", summary: "Approve an erasure in bulk that another administrator asked for, or an owner whom another invited.", rule: second}, a.decideErasure(a.Erasure.Approve))
	handle(a, route{method: "POST", path: "/v1/erasures/{id}/refuse", summary: "Refuse one.", rule: writes(access.Administrator)}, a.decideErasure(a.Erasure.Refuse))
	a.retractions()
}

func erasureID(text string) (holdfast.ErasureID, error) {
	id, err := holdfast.ParseID[holdfast.ErasureID](text)
	if err != nil {
		err = holdfast.Errorf(holdfast.NotFound, "there is no such erasure")
	}
	return id, err
}

func (a *API) listErasures(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[Erasure]], error) {
	all, err := a.Erasure.Erasures(ctx, by)
	if err != nil {
		return nil, err
	}
	page, err := paged(all, func(e erasure.Erasure) string { return e.ID.String() }, in.Paging)
	if err != nil {
		return nil, err
	}
	out := mapped(page, func(e erasure.Erasure) Erasure { return a.erasureDoc(e, by) })
	for i, e := range page.Items {
		if err := a.waitsFor(ctx, by, e, &out.Items[i]); err != nil {
			return nil, err
		}
	}
	return &reply[Page[Erasure]]{out}, nil
}

// decideErasure is a handler for what somebody says to an erasure that waits.
func (a *API) decideErasure(decide func(context.Context, access.Principal, holdfast.ErasureID) (erasure.Erasure, error)) func(context.Context, access.Principal, *byID) (*reply[Erasure], error) {
	return func(ctx context.Context, by access.Principal, in *byID) (*reply[Erasure], error) {
		id, err := erasureID(in.ID)
		if err != nil {
			return nil, err
		}
		if e, err := a.Erasure.Erasure(ctx, id); err == nil && by.Role == access.Owner { // an adult of the household that it is about
			if by, err = a.inPlaceOf(ctx, by, e.Party); err != nil {
				return nil, err
			}
		}
		e, err := decide(ctx, by, id)
		if err != nil {
			return nil, err
		}
		out := a.erasureDoc(e, by)
		return &reply[Erasure]{out}, a.waitsFor(ctx, by, e, &out)
	}
}

func (a *API) addErasure(ctx context.Context, by access.Principal, in *addErasure) (*erasureReply, error) {
	j, err := a.target(ctx, by, &in.Body)
	if err != nil {
		return nil, err
	}
	w, err := in.Body.wish()
	if err != nil {
		return nil, err
	}
	if err := a.mayBeJoint(ctx, by, j, &in.Body); err != nil {
		return nil, err
	}
	if out, ok, err := a.jointly(ctx, by, in.Wait.or(waitForErasure), j); ok || err != nil {
		return out, err
	}
	if by, err = a.inPlaceOf(ctx, by, j.Party); err != nil {
		return nil, err
	}
	out, err := a.erase(ctx, by, in.Wait.or(waitForErasure), w, func() (holdfast.Scope, error) { return a.scope(ctx, by, &in.Body) })
	return out, a.goneAlready(ctx, by, &in.Body, err)
}

func (b *wantedErasure) wish() (erasure.Wish, error) {
	w := erasure.Wish{Rest: b.Rest, Guarded: true}
	if b.Undo == "" {
		return w, nil
	}
	text := b.Undo
	unit := time.Duration(1)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		text, unit = days+"h", 24
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > erasure.MaxUndo/unit {
		return w, holdfast.Errorf(holdfast.Invalid, "undo is how long an erasure can be undone, as 24h or 7d, at most %dd", erasure.MaxUndo/(24*time.Hour))
	}
	w.Undo = d * unit
	return w, nil
}

// mayBeJoint refuses of a household's what its adults can't be asked about.
func (a *API) mayBeJoint(ctx context.Context, by access.Principal, j custody.Joint, b *wantedErasure) error {
	if b.Category+b.Month+b.Undo == "" || j.Party.IsZero() {
		return nil
	}
	adults, err := a.Custody.Adults(ctx, j.Party)
	if err == nil && len(adults) > 0 {
		err = holdfast.Errorf(holdfast.Invalid, "what is a household's is erased by device, stream or time, at the word of its adults, who can withdraw it until the last has spoken: leave out category, month and undo")
	}
	return err
}

// check refuses combinations that make no sense.
func (b *wantedErasure) check() error {
	given := 0
	for _, text := range []string{b.Party, b.Device, b.Period} {
		if text != "" {
			given++
		}
	}
	part := b.Category + b.Month
	switch {
	case given != 1:
		return holdfast.Errorf(holdfast.Invalid, "say what to erase: a party, a device or an assignment, or a stream of one of these two")
	case b.Stream != "" && b.Party != "":
		return holdfast.Errorf(holdfast.Invalid, "say what to erase: a stream is of a device or an assignment, not of a party")
	case b.Stream != "" && b.Category != "":
		return holdfast.Errorf(holdfast.Invalid, "name a stream or a category, not both")
	case b.Whose != "" && b.Device == "":
		return holdfast.Errorf(holdfast.Invalid, "whose is for a device that several use: name the device")
	case b.Month != "" && b.From+b.To != "":
		return holdfast.Errorf(holdfast.Invalid, "month is when readings arrived, from and to are when they were taken: give one or the other")
	case b.Party != "" && part == "" && b.From+b.To != "":
		return holdfast.Errorf(holdfast.Invalid, "a span of time is erased of a device, a stream or a category, not of a party")
	case b.Stream != "":
		return holdfast.CheckName("stream", b.Stream)
	}
	return nil
}

// month reads what is given as 2026-03; 0: nothing is.
func (b *wantedErasure) month() (int, error) {
	if b.Month == "" {
		return 0, nil
	}
	t, err := time.Parse("2006-01", b.Month)
	if err != nil || t.Year() < 1970 {
		return 0, holdfast.Errorf(holdfast.Invalid, "a month looks like 2026-03")
	}
	return 100*t.Year() + int(t.Month()), nil
}

// target says what is to be erased, and whose it is.
func (a *API) target(ctx context.Context, by access.Principal, b *wantedErasure) (j custody.Joint, err error) {
	j.Span = holdfast.Always
	if err := b.check(); err != nil {
		return j, err
	}
	if _, err := b.month(); err != nil {
		return j, err
	}
	if b.Party != "" {
		p, err := a.party(ctx, by, b.Party)
		j.Party = p.ID
		return j, err
	}
	if j.Party, j.Device, err = a.whoseSlice(ctx, by, b); err != nil {
		return j, err
	}
	j.Stream = b.Stream
	if b.From != "" || b.To != "" {
		j.Span, err = span(b.From, b.To, time.Now(), holdfast.Always.From, holdfast.Always.To)
	}
	return j, err
}

// scopes is how often the scope of an erasure is made: a party may be given a
// device between that and the asking, which then is a conflict.
const scopes = 3

func (a *API) erase(ctx context.Context, by access.Principal, seconds int, w erasure.Wish, scope func() (holdfast.Scope, error)) (*erasureReply, error) {
	for try := 1; ; try++ {
		s, err := scope()
		if err != nil {
			return nil, err
		}
		e, err := a.Erasure.Request(ctx, by, s, w)
		switch {
		case err == nil:
			out, err := a.wait(ctx, by, e.ID, seconds)
			if err == nil && e.State == erasure.Waiting && w.Undo == 0 && out.Body.Pending == "" {
				out.Body.Pending = everyOneWaits
			}
			return out, err
		case holdfast.KindOf(err) != holdfast.Conflict || !s.Whole || try == scopes:
			return nil, err
		}
	}
}

func (a *API) scope(ctx context.Context, by access.Principal, b *wantedErasure) (s holdfast.Scope, err error) {
	var whose holdfast.PartyID
	if b.Party != "" {
		p, err := a.party(ctx, by, b.Party)
		if err != nil {
			return s, err
		}
		whose = p.ID
		if s, err = a.Custody.ScopeOfParty(ctx, p.ID); err != nil {
			return s, err
		}
	} else if s, err = a.slice(ctx, by, b); err != nil {
		return s, err
	}
	switch {
	case b.Stream != "":
		s, err = a.Custody.OfStream(ctx, s, b.Stream)
	case b.Category != "":
		s, err = a.Custody.OfCategory(ctx, s, whose, b.Category)
	case b.Month != "" && b.Party != "":
		s, err = a.Custody.About(ctx, s, whose)
	}
	if err != nil {
		return s, err
	}
	if s.Month, err = b.month(); err != nil || b.From+b.To == "" {
		return s, err
	}
	s.Span, err = span(b.From, b.To, time.Now(), holdfast.Always.From, holdfast.Always.To)
	return s, err
}

// whoseSlice says whose data are to be erased: of a device those of the party that the
// caller is or acts for, first of all the one whose device it is; of an assignment
// those of the one whose it is. An administrator names whom he likes.
func (a *API) whoseSlice(ctx context.Context, by access.Principal, b *wantedErasure) (whom holdfast.PartyID, of holdfast.DeviceID, err error) {
	var held []custody.Assignment
	var named holdfast.PartyID
	if b.Period != "" {
		x, err := a.assignment(ctx, by, b.Period)
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
		d, err := a.device(ctx, by, b.Device)
		if err != nil {
			return whom, of, err
		}
		if b.Whose != "" {
			p, err := a.party(ctx, by, b.Whose)
			if err != nil {
				return whom, of, err
			}
			named = p.ID
		}
		of = d.ID
		if held, err = a.Custody.Holders(ctx, of); err != nil {
			return whom, of, err
		}
	}
	if !named.IsZero() {
		if held = slices.DeleteFunc(held, func(x custody.Assignment) bool { return x.Whose() != named }); len(held) == 0 {
			return whom, of, holdfast.Errorf(holdfast.NotFound, "nothing of this device is this party's")
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
func (a *API) slice(ctx context.Context, by access.Principal, b *wantedErasure) (s holdfast.Scope, err error) {
	whom, of, err := a.whoseSlice(ctx, by, b)
	switch {
	case err != nil:
		return s, err
	case b.Period != "":
		x, err := a.assignment(ctx, by, b.Period)
		return a.Custody.ScopeOfAssignment(x), err
	case by.Role != access.Owner && b.Whose == "":
		return a.Custody.ScopeOfDevice(ctx, of)
	}
	return a.Custody.ScopeOfSlice(ctx, of, whom)
}

// wait answers when an erasure has ended or the time is over, whichever is first.
func (a *API) wait(ctx context.Context, by access.Principal, id holdfast.ErasureID, seconds int) (*erasureReply, error) {
	e, err := a.Erasure.Erasure(ctx, id)
	if err != nil {
		return nil, err
	}
	if limit := min(time.Duration(seconds)*time.Second, a.Limits.ErasureWait); underWay(e.State) && limit > 0 {
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
	out := &erasureReply{Status: http.StatusOK, Body: a.erasureDoc(e, by)}
	if err := a.waitsFor(ctx, by, e, &out.Body); err != nil {
		return nil, err
	}
	told, acked, err := a.Erasure.Retractions(ctx, id)
	if err != nil {
		return nil, err
	}
	out.Body.Told, out.Body.Acked = &told, &acked
	if underWay(e.State) || e.State == erasure.Waiting || e.State == erasure.Approval {
		out.Status = http.StatusAccepted
	}
	return out, nil
}

// underWay reports that an erasure is being carried out.
func underWay(state string) bool { return state == erasure.Asked || state == erasure.Destroyed }

// pending says why an erasure does not get on: all of it to those who run the hub.
func (a *API) pending(e erasure.Erasure, by access.Principal) string {
	why := a.Erasure.Why(e.ID)
	switch {
	case e.State == erasure.Done:
		return unshown(e, by)
	case why == nil:
		return ""
	case by.Role == access.Administrator || by.Role == access.Auditor:
		return why.Error()
	case e.State == erasure.Waiting:
		return "something keeps what is to be erased: it begins when that has ended"
	case e.State == erasure.Destroyed:
		return "the keys are gone; the ciphertext can't be removed yet: it is tried again"
	}
	return "the keys can't be destroyed yet, a place or a holder of keys does not answer: it is tried again"
}

func (a *API) erasureDoc(e erasure.Erasure, by access.Principal) Erasure {
	out := Erasure{ID: e.ID.String(), Party: e.Party.String(), State: e.State, Whole: e.Scope.Whole, From: e.Scope.From, To: e.Scope.To,
		By: e.By, Asked: moment(e.AskedAt), Refused: moment(e.RefusedAt), KeysDestroyed: moment(e.KeysDeadAt), Purged: moment(e.PurgedAt),
		Certificate: string(e.Certificate), Assignments: []string{}, Ended: moment(e.EndedAt), Month: e.Scope.Month, Pending: a.pending(e, by)}
	if e.State == erasure.Waiting || e.State == erasure.Approval {
		out.Until = moment(e.Until)
	}
	if e.State == erasure.Done {
		if out.Outcome = "fulfilled"; len(e.Kept) > 0 {
			out.Outcome = "partly fulfilled"
		}
	}
	if e.Party.IsZero() {
		out.Party = ""
	}
	if e.Clipped && e.Scope.From != nil && e.Scope.From.UnixNano() == holdfast.Always.From { // all there was
		out.From, out.To = nil, nil
	}
	for _, s := range e.Scope.Assignments {
		out.Assignments = append(out.Assignments, s.String())
	}
	for _, s := range e.Scope.Streams {
		out.Streams = append(out.Streams, s.String())
	}
	for _, k := range e.Kept {
		out.Kept = append(out.Kept, keptDoc(k))
	}
	if out.Certificate != "" {
		out.Verifier = a.Ledger.VerifierKey()
	}
	return out
}
