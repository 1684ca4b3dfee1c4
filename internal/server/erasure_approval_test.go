package server

import (
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// administrator is one with a credential of his own, who goes back to nobody here.
func (h *house) administrator() access.Principal {
	h.t.Helper()
	by := h.admin()
	by.Holder = by.Credential
	_, id := h.certified(by, access.Spec{Role: access.Administrator, Scopes: access.ScopeRead | access.ScopeWrite})
	p, err := h.access.Again(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	p.Settled = true
	return p
}

// alone ends every administrator's credential but one's, as init's own.
func (h *house) alone(stays access.Principal) {
	h.t.Helper()
	all, err := h.access.Credentials(h.t.Context(), h.admin(), stays.Party)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, c := range all {
		if c.ID != stays.Credential {
			if err := h.access.Revoke(h.t.Context(), stays, c.ID, "left"); err != nil {
				h.t.Fatal(err)
			}
		}
	}
}

// What one administrator asks for in bulk waits for another; until then nothing has
// happened.
func TestErasureInBulkIsApproved(t *testing.T) {
	h := newHouse(t)
	h.Server.erasure.Policy.Bulk = 2
	gate, first := h.Server.erasure, h.administrator()
	anna := h.person("Anna")
	var bands []identity.Peer
	at := time.Now().Add(-time.Hour)
	for _, label := range []string{"one", "two", "three"} {
		bands = append(bands, h.device(anna.Party, label))
		h.mustSend(bands[len(bands)-1], number("pulse", at, 60))
	}
	bulk := func(n int) holdfast.Scope {
		s := h.scope(h.custody.ScopeOfDevice(t.Context(), bands[0].Device))
		s.Assignments = nil
		for _, b := range bands[:n] {
			s.Assignments = append(s.Assignments, b.Assignment)
		}
		return s
	}

	// Where nobody else can approve there are three days to see it.
	h.alone(first)
	p, err := gate.Preview(t.Context(), first, bulk(3), erasure.Wish{})
	if err != nil || p.Approval || p.Undo != erasure.SafeUndo {
		t.Errorf("preview alone: approval %v, undo %v, %v", p.Approval, p.Undo, err)
	}
	e := h.wants(first, bulk(3), erasure.Wish{})
	if e.State != erasure.Waiting || e.Undo != erasure.SafeUndo {
		t.Errorf("alone: %s, undo %v", e.State, e.Undo)
	}
	h.has(anna, bands[2], "pulse", 0)
	if _, err := gate.Undo(t.Context(), anna, e.ID); err != nil {
		t.Fatalf("the owner undoes it: %v", err)
	}

	second := h.administrator()
	if p, err := gate.Preview(t.Context(), first, bulk(3), erasure.Wish{}); err != nil || !p.Approval {
		t.Errorf("preview: approval %v, %v", p.Approval, err)
	}
	if p, err := gate.Preview(t.Context(), anna, bulk(3), erasure.Wish{}); err != nil || p.Approval {
		t.Errorf("preview of the owner: approval %v, %v", p.Approval, err)
	}
	ask := func() erasure.Erasure {
		e := h.wants(first, bulk(3), erasure.Wish{})
		if e.State != erasure.Approval {
			t.Fatalf("in bulk: %s", e.State)
		}
		h.has(anna, bands[2], "pulse", 1)
		return e
	}
	e = ask()
	if all, err := gate.Erasures(t.Context(), anna); err != nil || len(all) != 2 || all[1].ID != e.ID {
		t.Errorf("the owner sees %d erasures: %v", len(all), err)
	}
	h.refused("asked for twice", holdfast.Conflict, first, bulk(3), erasure.Wish{})
	for name, who := range map[string]access.Principal{"who asked": first, "the owner": anna} {
		if _, err := gate.Approve(t.Context(), who, e.ID); holdfast.KindOf(err) != holdfast.Denied {
			t.Errorf("approved by %s: %v", name, err)
		}
	}
	if e, err := gate.Refuse(t.Context(), second, e.ID); err != nil || e.State != erasure.Refused {
		t.Errorf("refused: %s, %v", e.State, err)
	}
	if _, err := gate.Approve(t.Context(), second, e.ID); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("approved after that: %v", err)
	}
	h.has(anna, bands[2], "pulse", 1)

	e = ask()
	h.later(erasure.ApproveWithin)
	if _, err := gate.Approve(t.Context(), second, e.ID); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("approved after seven days: %v", err)
	}
	h.passes(e.ID, erasure.Expired)

	e = ask()
	if e, err := gate.Approve(t.Context(), second, e.ID); err != nil || e.State != erasure.Asked {
		t.Fatalf("approved: %s, %v", e.State, err)
	}
	h.has(anna, bands[2], "pulse", 0)
	h.passes(e.ID, erasure.Done)
	h.device(anna.Party, "four") // she stays
}
