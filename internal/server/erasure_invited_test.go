package server

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/erasure"
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

// Whoever invites himself as an owner has no more erased alone than without.
func TestAnInvitationIsNoWayRoundApproval(t *testing.T) {
	h := newHouse(t)
	h.Server.erasure.Policy.Bulk = 2
	first, second := h.administrator(), h.administrator()
	n := 0
	device := func(owner holdfast.PartyID) holdfast.Scope {
		n++
		d := h.device(owner, fmt.Sprint("device ", n))
		h.mustSend(d, number("pulse", time.Now().Add(-time.Minute), 60))
		return h.scope(h.custody.ScopeOfDevice(t.Context(), d.Device))
	}
	wants := func(what, state string, who access.Principal, s holdfast.Scope) erasure.Erasure {
		t.Helper()
		if p, err := h.Server.erasure.Preview(t.Context(), who, s, erasure.Wish{}); err != nil || p.Approval != (state == erasure.Approval) {
			t.Errorf("preview of %s: approval %v, %v", what, p.Approval, err)
		}
		e := h.wants(who, s, erasure.Wish{})
		if e.State != state {
			t.Errorf("%s: %s, not %s", what, e.State, state)
		}
		return e
	}
	acme := first.Party
	wants("his first", erasure.Asked, first, device(acme))
	owner := h.invited(first, acme)
	if !owner.Settled {
		t.Fatal("the first credential of the organisation is not settled")
	}
	wants("his second, as its owner", erasure.Asked, owner, device(acme))
	e := wants("his third, as its owner", erasure.Approval, owner, device(acme))
	wants("his fourth, as himself", erasure.Approval, first, device(acme))
	again, err := h.access.Add(t.Context(), owner, access.Spec{Label: "another", Party: acme, Role: access.Owner}, nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := h.access.Again(t.Context(), again.ID)
	if err != nil {
		t.Fatal(err)
	}
	wants("as what the owner made of himself", erasure.Approval, other, device(acme))
	wants("as whom the owner invited", erasure.Approval, h.invited(owner, acme), device(acme))
	ben := h.person("Ben")
	wants("as another party's first", erasure.Approval, h.invited(first, ben.Party), device(ben.Party))
	wants("by the other administrator", erasure.Asked, second, device(acme))

	if _, err := h.Server.erasure.Approve(t.Context(), first, e.ID); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("approved by who invited: %v", err)
	}
	if e, err := h.Server.erasure.Approve(t.Context(), second, e.ID); err != nil || e.State != erasure.Asked {
		t.Errorf("approved by the other: %s, %v", e.State, err)
	}

	// An owner who takes his wish back, and one whom another invited.
	e = wants("an owner's wish", erasure.Approval, owner, device(acme))
	if _, err := h.Server.erasure.Undo(t.Context(), owner, e.ID); err != nil {
		t.Errorf("taken back: %v", err)
	}
	cleo := h.person("Cleo")
	wants("whom another invited", erasure.Asked, h.invited(second, cleo.Party), device(cleo.Party))
}
