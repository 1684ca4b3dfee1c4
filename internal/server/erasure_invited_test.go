package server

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/handover"
)

// invited is an owner's credential by an invitation of by's.
func (h *house) invited(by access.Principal, party holdfast.PartyID) access.Principal {
	h.t.Helper()
	code, _, err := h.access.Invite(h.t.Context(), by, party)
	if err != nil {
		h.t.Fatal(err)
	}
	m, err := h.access.Redeem(h.t.Context(), access.Redemption{Code: code, From: "192.0.2.1"})
	if err != nil {
		h.t.Fatal(err)
	}
	p, err := h.access.Again(h.t.Context(), m.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

// bulk is a hub where an administrator may have two assignments erased alone, and two
// who are nobody's other hand.
type bulk struct {
	*house
	first, second access.Principal
	devices       int
}

func newBulk(t *testing.T) *bulk {
	h := newHouse(t)
	h.Server.erasure.Policy.Bulk = 2
	return &bulk{house: h, first: h.administrator(), second: h.administrator()}
}

// of gives an owner a device with a reading and returns what asks for all of it.
func (b *bulk) of(owner holdfast.PartyID) holdfast.Scope {
	b.t.Helper()
	b.devices++
	d := b.device(owner, fmt.Sprint("device ", b.devices))
	b.mustSend(d, number("pulse", time.Now().Add(-time.Minute), 60))
	return b.scope(b.custody.ScopeOfDevice(b.t.Context(), d.Device))
}

// fill has an administrator have erased what he may alone.
func (b *bulk) fill(who access.Principal) {
	b.t.Helper()
	for range b.Server.erasure.Policy.Bulk {
		if e := b.wants(who, b.of(who.Party), erasure.Wish{}); e.State != erasure.Asked {
			b.t.Fatalf("alone: %s", e.State)
		}
	}
}

// older makes a credential a month older than it is.
func (b *bulk) older(p access.Principal) {
	b.t.Helper()
	err := b.stores.catalog.Write(b.t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(b.t.Context(), `UPDATE access_credential SET since = since - $1 WHERE holder = $2`, int64(31*day), p.Holder)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// household is one with an adult for each of who, who have all confirmed that it is
// erased: what became of it.
func (b *bulk) household(who ...access.Principal) erasure.Erasure {
	b.t.Helper()
	ctx := b.t.Context()
	must := func(err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	b.devices++
	home, err := b.custody.AddParty(ctx, b.admin().Credential, fmt.Sprint("Home ", b.devices), custody.Household)
	must(err)
	staff := handover.Actor(b.admin())
	for _, adult := range who {
		m, err := b.custody.AddMember(ctx, staff, custody.MemberSpec{Of: home.ID, Member: adult.Party, Kind: custody.Adult})
		must(err)
		_, err = b.custody.AcceptMembership(ctx, handover.Actor(adult), m.ID)
		must(err)
	}
	b.of(home.ID)
	j, ok, err := b.desk.Jointly(ctx, who[0], custody.Joint{Party: home.ID, Span: holdfast.Always})
	if must(err); !ok {
		b.t.Fatal("the household decides alone")
	}
	for _, adult := range who[1:] {
		j, err = b.desk.Confirm(ctx, adult, j.ID)
		must(err)
	}
	e, err := b.Server.erasure.Erasure(ctx, j.Erasure)
	must(err)
	return e
}

// TestWhoseWordItIsInBulk has each rule of docs/erasure.md about approval.
func TestWhoseWordItIsInBulk(t *testing.T) {
	b := newBulk(t)
	b.fill(b.first)
	gate, n := b.Server.erasure, 0
	invited := func(by access.Principal) access.Principal {
		n++
		return b.invited(by, b.person(fmt.Sprint("person ", n)).Party)
	}
	own := func(who access.Principal, w erasure.Wish) erasure.Erasure { return b.wants(who, b.of(who.Party), w) }
	acme := b.first.Party
	for _, c := range []struct {
		name  string
		do    func() erasure.Erasure
		state string
		safe  bool
		undo  time.Duration
	}{
		{"an administrator, where another could approve", func() erasure.Erasure { return b.wants(b.first, b.of(acme), erasure.Wish{}) }, erasure.Approval, false, 0},
		{"another administrator, who has asked for nothing yet", func() erasure.Erasure { return b.wants(b.second, b.of(acme), erasure.Wish{}) }, erasure.Asked, false, 0},
		{"an owner whom another administrator invited", func() erasure.Erasure { return own(invited(b.second), erasure.Wish{}) }, erasure.Asked, false, 0},
		{"an owner whom he invited lately", func() erasure.Erasure { return own(invited(b.first), erasure.Wish{}) }, erasure.Waiting, true, erasure.SafeUndo},
		{"the same with a longer window of his own", func() erasure.Erasure { return own(invited(b.first), erasure.Wish{Undo: 7 * day}) }, erasure.Waiting, true, 7 * day},
		{"the same with a shorter window of his own", func() erasure.Erasure { return own(invited(b.first), erasure.Wish{Undo: day}) }, erasure.Waiting, true, erasure.SafeUndo},
		{"an owner whom he invited a month ago", func() erasure.Erasure {
			old := invited(b.first)
			b.older(old)
			return own(old, erasure.Wish{})
		}, erasure.Asked, false, 0},
		{"his own organisation's owner, whom he invited", func() erasure.Erasure { return own(b.invited(b.first, acme), erasure.Wish{}) }, erasure.Waiting, true, erasure.SafeUndo},
		{"what such an owner made of himself", func() erasure.Erasure {
			owner := invited(b.first)
			m, err := b.access.Add(t.Context(), owner, access.Spec{Label: "another", Party: owner.Party, Role: access.Owner}, nil)
			if err != nil {
				t.Fatal(err)
			}
			other, err := b.access.Again(t.Context(), m.ID)
			if err != nil {
				t.Fatal(err)
			}
			return own(other, erasure.Wish{})
		}, erasure.Waiting, true, erasure.SafeUndo},
		{"a household whose adults he invited, all", func() erasure.Erasure { return b.household(invited(b.first), invited(b.first)) }, erasure.Waiting, true, erasure.SafeUndo},
		{"a household of one adult whom he invited", func() erasure.Erasure { return b.household(invited(b.first)) }, erasure.Waiting, true, erasure.SafeUndo},
		{"a household one of whose adults another invited", func() erasure.Erasure { return b.household(invited(b.first), invited(b.second)) }, erasure.Asked, false, 0},
		{"a household one of whose adults he invited a month ago", func() erasure.Erasure {
			old := invited(b.first)
			b.older(old)
			return b.household(invited(b.first), old)
		}, erasure.Asked, false, 0},
	} {
		e := c.do()
		if e.State != c.state || e.Safe != c.safe || e.Undo != c.undo {
			t.Errorf("%s: %s, safe %v, undo %v", c.name, e.State, e.Safe, e.Undo)
		}
		if e.State == erasure.Waiting && !gate.All(e.Scope.Assignments[0], holdfast.StreamID{}) {
			t.Errorf("%s: it is not refused at once", c.name)
		}
	}
	if _, err := gate.Deciders(t.Context(), own(invited(b.first), erasure.Wish{})); err != nil {
		t.Error(err)
	}
}

// An owner always gets himself erased: nobody's word is needed, the one who invited him
// has none, and another's stop holds for a month at most.
func TestAnOwnersWordIsEnough(t *testing.T) {
	b := newBulk(t)
	b.fill(b.first)
	gate := b.Server.erasure
	anna := b.invited(b.first, b.person("Anna").Party)
	scope := b.of(anna.Party)
	ask := func() erasure.Erasure {
		t.Helper()
		e := b.wants(anna, scope, erasure.Wish{})
		if e.State != erasure.Waiting || !e.Safe {
			t.Fatalf("%s, safe %v", e.State, e.Safe)
		}
		return e
	}
	decides := func(what string, want holdfast.Kind, state string, decide func() (erasure.Erasure, error)) {
		t.Helper()
		e, err := decide()
		if holdfast.KindOf(err) != want || err == nil && e.State != state {
			t.Errorf("%s: %s, %v", what, e.State, err)
		}
	}
	e := ask()
	for what, decide := range map[string]func(access.Principal) (erasure.Erasure, error){
		"approved by who invited": func(p access.Principal) (erasure.Erasure, error) { return gate.Approve(t.Context(), p, e.ID) },
		"refused by who invited":  func(p access.Principal) (erasure.Erasure, error) { return gate.Refuse(t.Context(), p, e.ID) },
		"undone by who invited":   func(p access.Principal) (erasure.Erasure, error) { return gate.Undo(t.Context(), p, e.ID) },
	} {
		decides(what, holdfast.Denied, "", func() (erasure.Erasure, error) { return decide(b.first) })
	}
	decides("undone by herself", 0, erasure.Undone, func() (erasure.Erasure, error) { return gate.Undo(t.Context(), anna, e.ID) })
	e = ask()
	decides("refused by another", 0, erasure.Refused, func() (erasure.Erasure, error) { return gate.Refuse(t.Context(), b.second, e.ID) })
	if gate.All(scope.Assignments[0], holdfast.StreamID{}) {
		t.Error("it is refused and hidden still")
	}
	e = ask()
	decides("approved by another", 0, erasure.Asked, func() (erasure.Erasure, error) { return gate.Approve(t.Context(), b.second, e.ID) })

	scope = b.of(anna.Party)
	e = b.wants(anna, scope, erasure.Wish{Undo: 7 * day})
	decides("approved, with a window of her own", 0, erasure.Waiting, func() (erasure.Erasure, error) { return gate.Approve(t.Context(), b.second, e.ID) })
	decides("refused after that", holdfast.Conflict, "", func() (erasure.Erasure, error) { return gate.Refuse(t.Context(), b.second, e.ID) })
	if now, err := gate.Erasure(t.Context(), e.ID); err != nil || now.Undo != 7*day || now.Safe {
		t.Errorf("her window is %v, safe %v, %v", now.Undo, now.Safe, err)
	}
	decides("undone by herself", 0, erasure.Undone, func() (erasure.Erasure, error) { return gate.Undo(t.Context(), anna, e.ID) })

	e = ask()
	b.halt() // what is known of it is on the disk
	b.start()
	b.Server.erasure.Policy.Bulk = 2
	b.later(erasure.SafeUndo - time.Hour)
	b.passes(e.ID, erasure.Waiting)
	b.later(erasure.SafeUndo + time.Hour)
	b.passes(e.ID, erasure.Done)

	gate, scope = b.Server.erasure, b.of(anna.Party)
	b.older(anna)
	if e := b.wants(anna, scope, erasure.Wish{}); e.State != erasure.Asked {
		t.Errorf("a month later: %s", e.State)
	}
}

// On a young hub all administrators are of one hand: in bulk there is a window, and it is
// said who could approve.
func TestBulkOnAYoungHub(t *testing.T) {
	b := newBulk(t)
	young := func(by access.Principal) access.Principal {
		_, id := b.certified(by, access.Spec{Role: access.Administrator, Scopes: access.ScopeRead | access.ScopeWrite})
		p, err := b.access.Again(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		p.Settled = true
		return p
	}
	b.alone(b.first)
	other := young(b.first)
	b.fill(b.first)
	gate := b.Server.erasure
	p, err := gate.Preview(t.Context(), b.first, b.of(b.first.Party), erasure.Wish{})
	if err != nil || p.Approval || !p.Safe || p.Undo != erasure.SafeUndo || len(p.Deciders) != 0 {
		t.Errorf("preview: approval %v, safe %v, undo %v, %d could approve, %v", p.Approval, p.Safe, p.Undo, len(p.Deciders), err)
	}
	e := b.wants(b.first, b.of(b.first.Party), erasure.Wish{})
	if e.State != erasure.Waiting || !e.Safe {
		t.Errorf("%s, safe %v", e.State, e.Safe)
	}
	if _, err := gate.Approve(t.Context(), other, e.ID); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("approved by one of his own making: %v", err)
	}
	if fresh := b.wants(other, b.of(b.first.Party), erasure.Wish{}); fresh.State != erasure.Waiting {
		t.Errorf("by one of his own making: %s", fresh.State)
	}

	// A month later the other is somebody else.
	b.older(other)
	if all, err := gate.Deciders(t.Context(), e); err != nil || len(all) != 1 || all[0] != other.Credential {
		t.Errorf("%v could decide, %v", all, err)
	}
	if e := b.wants(b.first, b.of(b.first.Party), erasure.Wish{}); e.State != erasure.Approval {
		t.Errorf("a month later: %s", e.State)
	}
	if e, err := gate.Approve(t.Context(), other, e.ID); err != nil || e.State != erasure.Asked {
		t.Errorf("what waits is approved: %s, %v", e.State, err)
	}
}
