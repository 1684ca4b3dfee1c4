package grant

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func (h *hub) ownHold(p holdfast.PartyID) HoldBy { return HoldBy{Caller: h.own(p)} }
func (h *hub) adminHold() HoldBy {
	return HoldBy{Caller: Caller{Credential: h.admin, Party: h.lab}, Administrator: true}
}

func (h *hub) hold(by HoldBy, s HoldSpec) Hold {
	h.t.Helper()
	got, err := h.AddHold(h.t.Context(), by, s)
	if err != nil {
		h.t.Fatal(err)
	}
	return got
}

func TestHoldIsSetByWhoMay(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	program := HoldBy{Caller: Caller{Credential: h.admin, Party: h.ada}}
	for name, c := range map[string]struct {
		by    HoldBy
		spec  HoldSpec
		kind  holdfast.Kind
		words string
	}{
		"another owner":       {h.ownHold(h.bob), HoldSpec{Kind: Restriction, Whose: h.ada}, holdfast.Denied, "own credential"},
		"a program":           {program, HoldSpec{Kind: Restriction, Whose: h.ada}, holdfast.Denied, "own credential"},
		"legal by the owner":  {h.ownHold(h.ada), HoldSpec{Kind: Claim, Whose: h.ada, Reason: "x"}, holdfast.Denied, "administrator"},
		"legal, no reason":    {h.adminHold(), HoldSpec{Kind: Law, Whose: h.ada}, holdfast.Invalid, "reason"},
		"a secret claim":      {h.adminHold(), HoldSpec{Kind: Claim, Whose: h.ada, Reason: "x", Secret: true}, holdfast.Invalid, "only a hold by law"},
		"objection to all":    {h.ownHold(h.ada), HoldSpec{Kind: Objection, Whose: h.ada}, holdfast.Invalid, "names the purpose"},
		"restricted purpose":  {h.ownHold(h.ada), HoldSpec{Kind: Restriction, Whose: h.ada, Purpose: "research"}, holdfast.Invalid, "no other"},
		"objection to myself": {h.ownHold(h.ada), HoldSpec{Kind: Objection, Whose: h.ada, Purpose: holdfast.OwnAccess}, holdfast.Invalid, "own-access"},
		"unknown purpose":     {h.ownHold(h.ada), HoldSpec{Kind: Objection, Whose: h.ada, Purpose: "nothing"}, holdfast.Invalid, "does not exist"},
		"unknown kind":        {h.ownHold(h.ada), HoldSpec{Kind: "freeze", Whose: h.ada}, holdfast.Invalid, "a hold is one of"},
		"nobody's":            {h.adminHold(), HoldSpec{Kind: Restriction}, holdfast.Invalid, "of a party"},
		"no name":             {h.ownHold(h.ada), HoldSpec{Kind: Restriction, Whose: h.ada, Streams: []string{""}}, holdfast.Invalid, "name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.AddHold(ctx, c.by, c.spec)
			wants(t, err, c.kind, c.words)
		})
	}
	if all, err := h.Holds(ctx); err != nil || len(all) != 0 || h.AnyHold() {
		t.Errorf("refused holds left %+v, %v", all, err)
	}
}

// Holds of his own don't keep an owner's data from the law's, and don't tell of one
// that the law keeps from him.
func TestOwnHoldsLeaveRoomForTheLaw(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	h.hold(h.adminHold(), HoldSpec{Kind: Law, Whose: h.ada, Reason: "x", Secret: true})
	for range maxHolds {
		h.hold(h.ownHold(h.ada), HoldSpec{Kind: CollectionStop, Whose: h.ada, Streams: []string{"a"}})
	}
	_, err := h.AddHold(ctx, h.ownHold(h.ada), HoldSpec{Kind: CollectionStop, Whose: h.ada, Streams: []string{"a"}})
	wants(t, err, holdfast.TooLarge, "at most")
	h.hold(h.adminHold(), HoldSpec{Kind: Claim, Whose: h.ada, Reason: "case 1"})
}

func TestRestrictionAndObjectionForbid(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	g, err := h.Make(ctx, h.own(h.ada), h.everything())
	if err != nil {
		t.Fatal(err)
	}
	device, other := holdfast.AssignmentID{1}, holdfast.AssignmentID{2}
	ask := func(a holdfast.AssignmentID, stream string) policy.Decision {
		t.Helper()
		set, err := h.Set(ctx, h.ada)
		if err != nil {
			t.Fatal(err)
		}
		return set.Decide(policy.Request{Reader: policy.Recipient, ReaderParty: h.lab, HeldPurposes: []holdfast.Purpose{"research"}, Purpose: "research", Live: true,
			Owner: h.ada, Assignment: a, Stream: stream, Span: holdfast.Always, Now: h.clock.UnixNano()})
	}
	if d := ask(device, "pulse"); !d.Allow || d.Grant != g.ID {
		t.Fatalf("%+v", d)
	}
	restriction := h.hold(h.ownHold(h.ada), HoldSpec{Kind: Restriction, Whose: h.ada, Assignments: []holdfast.AssignmentID{device}, Streams: []string{"pulse"}})
	if ask(device, "pulse").Allow || !ask(device, "steps").Allow || !ask(other, "pulse").Allow {
		t.Error("a restriction stops its scope and nothing else")
	}
	objection := h.hold(h.adminHold(), HoldSpec{Kind: Objection, Whose: h.ada, Purpose: "research", Reason: "her letter"})
	if ask(other, "steps").Allow {
		t.Error("read against an objection")
	}
	h.restart()
	if ask(other, "steps").Allow || ask(device, "pulse").Allow {
		t.Error("a restart forgot what is forbidden")
	}
	if _, err := h.EndHold(ctx, h.ownHold(h.ada), objection.ID); err != nil {
		t.Fatal(err)
	}
	if !ask(other, "steps").Allow || ask(device, "pulse").Allow {
		t.Error("the wrong hold has ended")
	}
	if _, err := h.EndHold(ctx, h.ownHold(h.ada), restriction.ID); err != nil {
		t.Fatal(err)
	}
	if !ask(device, "pulse").Allow {
		t.Error("an ended restriction goes on")
	}
}

func TestLiftingTellsTheOwnerFirst(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	a := holdfast.AssignmentID{1}
	his := h.hold(h.ownHold(h.ada), HoldSpec{Kind: Restriction, Whose: h.ada})
	_, err := h.EndHold(ctx, h.adminHold(), his.ID)
	wants(t, err, holdfast.Denied, "only his own credential")
	_, err = h.EndHold(ctx, h.ownHold(h.bob), his.ID)
	wants(t, err, holdfast.NotFound, "no such hold")
	if _, err := h.EndHold(ctx, h.ownHold(h.ada), his.ID); err != nil {
		t.Fatal(err)
	}
	_, err = h.EndHold(ctx, h.ownHold(h.ada), his.ID)
	wants(t, err, holdfast.Conflict, "ended already")

	ours := h.hold(h.adminHold(), HoldSpec{Kind: Restriction, Whose: h.ada, Reason: "accuracy in doubt"})
	told, err := h.EndHold(ctx, h.adminHold(), ours.ID)
	if err != nil || !told.Ended.IsZero() || !told.Lifts.Equal(h.clock.Add(liftNotice)) {
		t.Fatalf("%+v, %v", told, err)
	}
	_, err = h.EndHold(ctx, h.adminHold(), ours.ID)
	wants(t, err, holdfast.Conflict, "ends by itself")
	kinds := h.diary.kinds(vault.OfParty(h.ada))
	if kinds[len(kinds)-1] != "hold to be lifted" {
		t.Errorf("the owner's record says %q", kinds)
	}
	h.restart()
	h.clock = h.clock.Add(liftNotice - time.Second)
	if err := h.lift(ctx); err != nil || !h.Pauses(a, "", h.ada) {
		t.Errorf("lifted before the owner's day was over: %v", err)
	}
	h.clock = h.clock.Add(time.Second)
	if err := h.lift(ctx); err != nil || h.Pauses(a, "", h.ada) {
		t.Errorf("not lifted: %v", err)
	}
	got, err := h.Hold(ctx, ours.ID)
	if err != nil || got.Ended.IsZero() || got.Reason != "accuracy in doubt" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWhatHoldsKeep(t *testing.T) {
	h := newHub(t)
	a, b := holdfast.AssignmentID{1}, holdfast.AssignmentID{2}
	h.hold(h.ownHold(h.ada), HoldSpec{Kind: Restriction, Whose: h.ada, Assignments: []holdfast.AssignmentID{a}})
	claim := h.hold(h.adminHold(), HoldSpec{Kind: Claim, Whose: h.ada, Assignments: []holdfast.AssignmentID{b}, Streams: []string{"pulse"}, Reason: "x"})
	h.hold(h.ownHold(h.bob), HoldSpec{Kind: CollectionStop, Whose: h.bob, Streams: []string{"steps"}})
	for name, c := range map[string]struct{ got, want bool }{
		"restricted pauses":             {h.Pauses(a, "pulse", h.ada), true},
		"claim pauses its stream":       {h.Pauses(b, "pulse", h.bob, h.ada), true},
		"claim pauses no other":         {h.Pauses(b, "steps", h.ada), false},
		"claim pauses the device":       {h.Pauses(b, "", h.ada), true},
		"a stop of collection does not": {h.Pauses(a, "steps", h.bob), false},
		"stopped":                       {h.Stopped(h.bob, a, "steps"), true},
		"another stream":                {h.Stopped(h.bob, a, "pulse"), false},
		"another's":                     {h.Stopped(h.ada, a, "steps"), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v", name, c.got)
		}
	}
	if _, kept := h.Keeps(a, "pulse", true, h.ada); kept {
		t.Error("the owner's own restriction keeps him from erasing")
	}
	if _, kept := h.Keeps(a, "pulse", false, h.ada); !kept {
		t.Error("an administrator may erase what its owner has restricted")
	}
	if got, kept := h.Keeps(b, "pulse", true, h.ada); !kept || got.ID != claim.ID {
		t.Error("an owner may erase what a claim needs")
	}
}

func TestWhatTheLawKeepsFromTheOwner(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	secret := h.hold(h.adminHold(), HoldSpec{Kind: Law, Whose: h.ada, Reason: "order 12", Secret: true})
	if got := h.diary.kinds(vault.OfParty(h.ada)); len(got) != 0 {
		t.Errorf("on her record: %q", got)
	}
	if got := h.diary.kinds(vault.Hub); !slices.Contains(got, "hold set") {
		t.Errorf("on the hub's record: %q", got)
	}
	if got, err := h.HoldsOn(ctx, h.ada, false); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := h.HoldsOn(ctx, h.ada, true); err != nil || !cmp.Equal(got, []Hold{secret}) {
		t.Errorf("%+v, %v", got, err)
	}
	_, err := h.EndHold(ctx, h.ownHold(h.ada), secret.ID)
	wants(t, err, holdfast.NotFound, "no such hold")
}

func TestNoHoldWithoutARecord(t *testing.T) {
	h := newHub(t)
	stands := h.hold(h.ownHold(h.ada), HoldSpec{Kind: Restriction, Whose: h.ada})
	away := errors.New("ledger away")
	h.diary.broken = away
	if _, err := h.AddHold(t.Context(), h.ownHold(h.bob), HoldSpec{Kind: Restriction, Whose: h.bob}); !errors.Is(err, away) {
		t.Error(err)
	}
	if _, err := h.EndHold(t.Context(), h.ownHold(h.ada), stands.ID); !errors.Is(err, away) {
		t.Error(err)
	}
	if h.Pauses(holdfast.AssignmentID{1}, "", h.bob) || !h.Pauses(holdfast.AssignmentID{1}, "", h.ada) {
		t.Error("it happened all the same")
	}
}

func TestHoldsGoWithTheParty(t *testing.T) {
	h := newHub(t)
	h.hold(h.ownHold(h.ada), HoldSpec{Kind: Restriction, Whose: h.ada})
	if err := h.Erase(t.Context(), holdfast.Scope{Party: h.ada, Span: holdfast.Always, Whole: true}); err != nil {
		t.Fatal(err)
	}
	if all, err := h.Holds(t.Context()); err != nil || len(all) != 0 || h.AnyHold() {
		t.Errorf("%+v, %v", all, err)
	}
}

// What ingest and retention ask of each reading and bucket.
func BenchmarkHolds(b *testing.B) {
	h := newHub(b)
	for range 100 {
		h.hold(h.ownHold(h.ada), HoldSpec{Kind: CollectionStop, Whose: h.ada, Assignments: []holdfast.AssignmentID{holdfast.NewID[holdfast.AssignmentID]()}})
	}
	a := holdfast.NewID[holdfast.AssignmentID]()
	b.Run("another owner", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.Stopped(h.bob, a, "pulse")
		}
	})
	b.Run("owner of 100 stops", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.Stopped(h.ada, a, "pulse")
		}
	})
}
