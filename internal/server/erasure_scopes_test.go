package server

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
)

// later moves the time of arrival on, which then is ahead of the system's clock: that
// was set back.
func (h *house) later(d time.Duration) {
	h.clock = ingest.NewClock(h.clock.Now() + int64(d))
	h.ingest = ingest.New(h.custody, h.grants, h.stores.vault, h.stores.journal, h.series, h.sessions, h.clock, ingest.Options{Hold: h.Server.erasure.Hold})
}

// wants asks for an erasure as somebody at the hub's door does.
func (h *house) wants(who access.Principal, s holdfast.Scope, w erasure.Wish) erasure.Erasure {
	h.t.Helper()
	w.Guarded = true
	e, err := h.Server.erasure.Request(h.t.Context(), who, s, w)
	if err != nil {
		h.t.Fatalf("ask: %v", err)
	}
	return e
}

// passes lets all that is due happen, and fails unless the erasure is in a state then.
func (h *house) passes(id holdfast.ErasureID, state string) erasure.Erasure {
	h.t.Helper()
	if err := h.Server.erasure.Once(h.t.Context()); err != nil {
		h.t.Fatalf("erase: %v", err)
	}
	e, err := h.Server.erasure.Erasure(h.t.Context(), id)
	if err != nil || e.State != state {
		h.t.Fatalf("erasure is %s, not %s: %v", e.State, state, err)
	}
	return e
}

// has fails unless a stream has so many readings for who.
func (h *house) has(who access.Principal, p identity.Peer, stream string, n int) {
	h.t.Helper()
	rows, err := h.read(who, p, stream)
	if holdfast.KindOf(err) == holdfast.NotFound || holdfast.KindOf(err) == holdfast.Denied {
		err = nil
	}
	if err != nil || len(rows) != n {
		h.t.Errorf("%s has %d readings, not %d: %v", stream, len(rows), n, err)
	}
}

func (h *house) scope(s holdfast.Scope, err error) holdfast.Scope {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// refused fails unless an erasure is, for a reason of that kind.
func (h *house) refused(what string, want holdfast.Kind, who access.Principal, s holdfast.Scope, w erasure.Wish) {
	h.t.Helper()
	w.Guarded = true
	before, err := h.Server.erasure.Erasures(h.t.Context(), h.admin())
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.Server.erasure.Request(h.t.Context(), who, s, w); holdfast.KindOf(err) != want {
		h.t.Errorf("%s: %v", what, err)
	}
	if after, err := h.Server.erasure.Erasures(h.t.Context(), h.admin()); err != nil || len(after) != len(before) {
		h.t.Errorf("%s: %d erasures, %d before: %v", what, len(after), len(before), err)
	}
}

const tracker = `{"name":"tracker","version":1,"streams":[
	{"name":"gps","type":"number","purposes":["operation"],"category":"pd:GPSCoordinate"},
	{"name":"home","type":"number","purposes":["operation"],"category":"pd:HomeLocation"},
	{"name":"steps","type":"number","purposes":["operation"]}]}`

func (h *house) tracker(owner holdfast.PartyID, label string) identity.Peer {
	h.t.Helper()
	if _, err := h.custody.AddProfile(h.t.Context(), h.admin().Credential, []byte(tracker)); err != nil {
		h.t.Fatal(err)
	}
	d, err := h.custody.AddDevice(h.t.Context(), h.admin().Credential, custody.DeviceSpec{Label: label, Owner: owner, Profile: "tracker"})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.peer(d.Device)
}

// Categories, slices of a device, months of arrival: what is in them goes, what is
// beside them stays, also after a crash.
func TestErasureScopes(t *testing.T) {
	h := newHouse(t)
	ctx, anna, ben := t.Context(), h.person("Anna"), h.person("Ben")
	at := time.Now().Add(-time.Minute)

	hers, his := h.tracker(anna.Party, "hers"), h.tracker(ben.Party, "his")
	for _, p := range []identity.Peer{hers, his} {
		h.mustSend(p, number("gps", at, 1), number("home", at, 2), number("steps", at, 3))
	}
	all := h.scope(h.custody.ScopeOfParty(ctx, anna.Party))
	places := h.scope(h.custody.OfCategory(ctx, all, anna.Party, "pd:Location"))
	if len(places.Streams) != 2 {
		t.Fatalf("%d streams of the category", len(places.Streams))
	}
	if _, err := h.custody.OfCategory(ctx, all, anna.Party, "pd:BloodType"); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("a category without streams: %v", err)
	}
	if _, err := h.custody.OfCategory(ctx, all, anna.Party, "pd:Nonsense"); err == nil {
		t.Error("a category that there is not")
	}
	h.refused("by another owner", holdfast.Denied, ben, places, erasure.Wish{})
	h.passes(h.wants(anna, places, erasure.Wish{}).ID, erasure.Done)
	h.has(anna, hers, "gps", 0)
	h.has(anna, hers, "home", 0)
	h.has(anna, hers, "steps", 1)
	h.has(ben, his, "gps", 1)

	// A car that is lent: what was measured then is the other's.
	car := h.device(anna.Party, "car")
	h.mustSend(car, number("speed", at, 50))
	if _, err := h.custody.AddPeriod(ctx, anna.Credential, custody.PeriodSpec{Device: car.Device, Owner: ben.Party,
		Terms: custody.Terms{Basis: custody.Loan, To: time.Now().Add(time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	h.mustSend(car, number("speed", time.Now(), 90))
	slice := h.scope(h.custody.ScopeOfSlice(ctx, car.Device, ben.Party))
	h.refused("another's slice", holdfast.Denied, anna, slice, erasure.Wish{})
	h.has(ben, car, "speed", 1)
	h.passes(h.wants(ben, slice, erasure.Wish{}).ID, erasure.Done)
	h.has(ben, car, "speed", 0)
	h.has(anna, car, "speed", 1)

	// A month goes when it is over, and nothing of the next.
	now := h.clock.Now()
	month := h.scope(h.custody.ScopeOfDevice(ctx, his.Device))
	y, m, _ := time.Unix(0, now).UTC().Date()
	month.Month = 100*y + int(m)
	h.refused("a month that is not over", holdfast.Invalid, ben, month, erasure.Wish{})
	h.later(40 * day)
	h.mustSend(his, number("steps", at.Add(time.Second), 4))
	empty := month
	empty.Month = 199901
	h.refused("a month without anything", holdfast.NotFound, ben, empty, erasure.Wish{})
	waits := h.wants(ben, month, erasure.Wish{Undo: time.Hour})
	h.has(ben, his, "gps", 0)
	h.has(ben, his, "steps", 1)
	if _, err := h.Server.erasure.Undo(ctx, ben, waits.ID); err != nil {
		t.Fatal(err)
	}
	h.has(ben, his, "steps", 2)
	e := h.passes(h.wants(ben, month, erasure.Wish{}).ID, erasure.Done)
	if e.Scope.Month == "" {
		t.Error("the month is not in the scope")
	}
	if c, err := erasure.VerifyCertificate(e.Certificate, h.ledger.VerifierKey()); err != nil || !c.InPart {
		t.Errorf("the certificate of a month: in part %v, %v", c.InPart, err)
	}
	for range 2 {
		h.has(ben, his, "gps", 0)
		h.has(ben, his, "steps", 1)
		h.has(anna, hers, "steps", 1)
		h.halt()
		h.start()
	}
	if err := h.send(his, number("steps", at, 3)); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("a reading of the month sent again: %v", err)
	}
}

// What makes no sense or matches nothing changes nothing, and says what is wrong.
func TestErasureBadScopes(t *testing.T) {
	h := newHouse(t)
	anna, ben := h.person("Anna"), h.person("Ben")
	hers := h.device(anna.Party, "watch")
	at := time.Now().Add(-time.Hour)
	h.mustSend(hers, number("pulse", at, 60))
	pulse := h.scope(h.custody.ScopeOfStream(t.Context(), hers.Device, "pulse"))
	span := func(from, to time.Time) holdfast.Scope {
		s := pulse
		s.Span = holdfast.Span{From: from.UnixNano(), To: to.UnixNano()}
		return s
	}
	h.refused("no assignment", holdfast.NotFound, anna, holdfast.Scope{Party: anna.Party, Span: holdfast.Always}, erasure.Wish{})
	h.refused("a span without readings", holdfast.NotFound, anna, span(at.Add(time.Minute), at.Add(time.Hour)), erasure.Wish{})
	h.refused("a span that ends first", holdfast.Invalid, anna, span(at.Add(time.Minute), at), erasure.Wish{})
	h.refused("the future, of which there is nothing", holdfast.NotFound, anna, span(time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)), erasure.Wish{})
	h.refused("a window of a year", holdfast.Invalid, anna, pulse, erasure.Wish{Undo: 365 * day})
	h.refused("no right", holdfast.Denied, ben, pulse, erasure.Wish{})
	reader := anna
	reader.Scopes = access.ScopeRead
	h.refused("a credential that reads", holdfast.Denied, reader, pulse, erasure.Wish{})
	fresh := anna
	fresh.Settled = false
	h.refused("a credential that is not settled", holdfast.Denied, fresh, pulse, erasure.Wish{})
	month := pulse
	month.Month = 202513
	h.refused("a thirteenth month", holdfast.Invalid, anna, month, erasure.Wish{})
	month.Month, month.Span = 202501, span(at, at).Span
	h.refused("a month and a span", holdfast.Invalid, anna, month, erasure.Wish{})
	h.has(anna, hers, "pulse", 1)

	// Overlapping: what waits is not asked for to wait again; at once it may be.
	e := h.wants(anna, pulse, erasure.Wish{Undo: time.Hour})
	h.refused("what waits", holdfast.Conflict, anna, pulse, erasure.Wish{Undo: time.Hour})
	h.refused("a part of it", holdfast.Conflict, anna, span(at, at), erasure.Wish{Undo: time.Hour})
	h.passes(h.wants(anna, span(at, at), erasure.Wish{}).ID, erasure.Done)
	if _, err := h.Server.erasure.Undo(t.Context(), anna, e.ID); err != nil {
		t.Fatal(err)
	}
	h.has(anna, hers, "pulse", 0)
}

// A part that may be undone is hidden; what comes late of it comes in unseen, what is
// taken meanwhile is seen. After an undo all is there, after the window what was taken
// since the asking. Restarts and a clock that was set back change nothing of that.
func TestErasureOfAPartIsUndone(t *testing.T) {
	h := newHouse(t)
	gate := func() *erasure.Gate { return h.Server.erasure }
	anna, other := h.person("Anna"), h.owner("ben")
	hers := h.device(anna.Party, "watch")
	at := time.Now().Add(-time.Hour)
	h.mustSend(hers, number("pulse", at, 60), number("steps", at, 1))
	pulse := h.scope(h.custody.ScopeOfStream(t.Context(), hers.Device, "pulse"))

	e := h.wants(anna, pulse, erasure.Wish{Undo: time.Hour})
	h.mustSend(hers, number("pulse", at.Add(time.Second), 61), number("steps", at.Add(time.Second), 2))
	h.mustSend(hers, number("pulse", time.Now().Add(time.Second), 62))
	for range 2 {
		h.has(anna, hers, "pulse", 1)
		h.has(anna, hers, "steps", 2)
		h.passes(e.ID, erasure.Waiting)
		h.halt()
		h.start()
	}
	if _, err := gate().Undo(t.Context(), h.admin(), e.ID); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("the owner's erasure undone by staff: %v", err)
	}
	if _, err := gate().Undo(t.Context(), anna, e.ID); err != nil {
		t.Fatal(err)
	}
	h.has(anna, hers, "pulse", 3)

	e = h.wants(anna, h.scope(h.custody.ScopeOfStream(t.Context(), hers.Device, "pulse")), erasure.Wish{Undo: time.Hour})
	late := at.Add(2 * time.Second)
	h.mustSend(hers, number("pulse", late, 63))
	h.later(2 * time.Hour) // the system's clock is behind by as much from here on
	h.mustSend(other.device, number("pulse", at, 1))
	h.halt()
	h.start() // what has arrived is the floor
	if _, err := gate().Undo(t.Context(), anna, e.ID); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("undone after the window: %v", err)
	}
	h.passes(e.ID, erasure.Done)
	h.has(anna, hers, "pulse", 1) // of the second after the first asking
	h.has(anna, hers, "steps", 2)
	if err := h.send(hers, number("pulse", late, 63)); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("an erased reading sent again: %v", err)
	}
}

// The party that waits to be erased can look and undo; its grants, readings and device
// are there again after it.
func TestErasureOfAPartyIsUndone(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	_, id := h.certified(anna, access.Spec{Role: access.Owner})
	lab := h.person("lab")
	hers := h.device(anna.Party, "watch")
	at := time.Now().Add(-time.Hour)
	h.mustSend(hers, number("pulse", at, 60))
	if _, err := h.grants.AddPurpose(t.Context(), h.admin().Credential, grant.Purpose{Name: "study", IRI: "https://w3id.org/dpv#AcademicResearch", LegalBasis: "consent", Text: "To study."}); err != nil {
		t.Fatal(err)
	}
	made, err := h.grants.Make(t.Context(), grant.Caller{Credential: anna.Credential, Party: anna.Party, Owner: true}, grant.Spec{
		Recipient: lab.Party, Purpose: "study", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: time.Now().Add(day)})
	if err != nil {
		t.Fatal(err)
	}
	e := h.wants(anna, h.scope(h.custody.ScopeOfParty(t.Context(), anna.Party)), erasure.Wish{Undo: 24 * time.Hour})
	for range 2 {
		if _, err := h.access.Again(t.Context(), id); holdfast.KindOf(err) != holdfast.Denied {
			t.Errorf("who leaves comes in: %v", err)
		}
		if err := h.send(hers, number("pulse", at.Add(time.Second), 61)); holdfast.KindOf(err) != holdfast.Unavailable {
			t.Errorf("its device sends: %v", err)
		}
		if _, err := h.custody.AddDevice(t.Context(), h.admin().Credential, custody.DeviceSpec{Label: "another", Owner: anna.Party}); err == nil {
			t.Error("who leaves gets a device")
		}
		h.halt()
		h.start()
	}
	if _, err := h.Server.erasure.Undo(t.Context(), anna, e.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := h.access.Again(t.Context(), id); err != nil {
		t.Errorf("who stays: %v", err)
	}
	h.mustSend(hers, number("pulse", at.Add(time.Second), 61))
	h.has(anna, hers, "pulse", 2)
	if all, err := h.grants.GrantsBy(t.Context(), anna.Party); err != nil || !slices.ContainsFunc(all, func(g grant.Grant) bool { return g.ID == made.ID && g.Live(time.Now()) }) {
		t.Errorf("the grant is not as before: %v", err)
	}
	h.device(anna.Party, "another")
}

// A claim that is set while an erasure waits keeps it waiting with the reason, or what
// it is on out of it.
func TestErasureWaitsForAHold(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	watch, band := h.device(anna.Party, "watch"), h.device(anna.Party, "band")
	at := time.Now().Add(-time.Hour)
	h.mustSend(watch, number("pulse", at, 60))
	h.mustSend(band, number("pulse", at, 61))
	both := h.scope(h.custody.ScopeOfDevice(t.Context(), watch.Device))
	both.Assignments = append(both.Assignments, band.Assignment)
	all := h.wants(anna, both, erasure.Wish{Undo: time.Hour})
	admin := h.admin()
	hold, err := h.grants.AddHold(t.Context(), grant.HoldBy{Caller: grant.Caller{Credential: admin.Credential, Party: admin.Party}, Administrator: true},
		grant.HoldSpec{Kind: grant.Claim, Whose: anna.Party, Assignments: []holdfast.AssignmentID{band.Assignment}, Reason: "case 12"})
	if err != nil {
		t.Fatal(err)
	}
	h.later(2 * time.Hour)
	h.passes(all.ID, erasure.Waiting)
	if why := h.Server.erasure.Why(all.ID); holdfast.KindOf(why) != holdfast.Denied {
		t.Errorf("it waits because of: %v", why)
	}
	e := h.passes(h.wants(anna, both, erasure.Wish{Rest: true}).ID, erasure.Done)
	if len(e.Kept) != 1 || e.Kept[0].Hold != hold.ID || e.Kept[0].Assignment != band.Assignment {
		t.Errorf("kept: %+v", e.Kept)
	}
	h.has(anna, watch, "pulse", 0)
	h.has(anna, band, "pulse", 0) // what waits hides it
	if c := h.certificate(e.ID); len(c.Kept) != 1 {
		t.Errorf("the certificate says of what is kept: %v", c.Kept)
	}
}
