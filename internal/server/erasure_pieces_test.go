package server

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// What needs a second administrator in bulk needs him in pieces: what one has erased
// alone counts for a day, under all credentials that are his. It counts no more when it
// was undone, and what was refused or what the owner wants never does.
func TestErasureInPiecesIsApproved(t *testing.T) {
	h := newHouse(t)
	const most = 3
	h.Server.erasure.Policy.Bulk = most
	first, second := h.administrator(), h.administrator()
	anna := h.person("Anna")
	n := 0
	device := func() identity.Peer {
		n++
		d := h.device(anna.Party, fmt.Sprint("device ", n))
		h.mustSend(d, number("pulse", time.Now().Add(-time.Minute), 60), number("steps", time.Now().Add(-time.Minute), 60))
		return d
	}
	wants := func(what, state string, who access.Principal, s holdfast.Scope, undo time.Duration) erasure.Erasure {
		t.Helper()
		p, err := h.Server.erasure.Preview(t.Context(), who, s, erasure.Wish{Undo: undo})
		if err != nil || p.Approval != (state == erasure.Approval) {
			t.Errorf("preview of %s: approval %v, %v", what, p.Approval, err)
		}
		e := h.wants(who, s, erasure.Wish{Undo: undo})
		if e.State != state {
			t.Errorf("%s: %s, not %s", what, e.State, state)
		}
		return e
	}
	all := func(d identity.Peer) holdfast.Scope { return h.scope(h.custody.ScopeOfDevice(t.Context(), d.Device)) }
	stream := func(d identity.Peer, name string) holdfast.Scope {
		return h.scope(h.custody.ScopeOfStream(t.Context(), d.Device, name))
	}

	wants("the first", erasure.Asked, first, all(device()), 0)
	lamp := device()
	wants("a stream of the second", erasure.Asked, first, stream(lamp, "pulse"), 0)
	h.halt() // what counts is on the disk
	h.start()
	h.Server.erasure.Policy.Bulk = most
	wants("another stream of the second", erasure.Asked, first, stream(lamp, "steps"), 0)
	empty := h.person("Nobody")
	wants("a party without devices, as the third", erasure.Asked, first, h.scope(h.custody.ScopeOfParty(t.Context(), empty.Party)), 0)
	fourth := device()
	e := wants("the fourth", erasure.Approval, first, all(fourth), 0)
	if _, err := h.Server.erasure.Refuse(t.Context(), second, e.ID); err != nil {
		t.Fatal(err)
	}
	e = wants("the fourth, once refused", erasure.Approval, first, all(fourth), 0)
	if _, err := h.Server.erasure.Approve(t.Context(), second, e.ID); err != nil {
		t.Fatal(err)
	}
	_, id := h.certified(first, access.Spec{Role: access.Administrator, Scopes: access.ScopeRead | access.ScopeWrite})
	again, err := h.access.Again(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	again.Settled = true
	e = wants("the fifth, under a fresh credential", erasure.Approval, again, all(device()), 0)
	if _, err := h.Server.erasure.Undo(t.Context(), anna, e.ID); err != nil {
		t.Fatal(err)
	}
	for range most + 2 {
		wants("her own word", erasure.Asked, anna, all(device()), 0)
	}
	wants("by the other", erasure.Asked, second, all(device()), 0)

	// A day, to the minute. What was approved has not counted.
	waits := device()
	h.later(24*time.Hour - 10*time.Minute)
	e = wants("before a day is over", erasure.Approval, first, all(waits), 0)
	if _, err := h.Server.erasure.Undo(t.Context(), first, e.ID); err != nil {
		t.Fatal(err)
	}
	h.later(12 * time.Minute)
	e = wants("after a day", erasure.Waiting, first, all(waits), time.Hour)
	wants("the second of it", erasure.Asked, first, all(device()), 0)
	wants("the third of it", erasure.Asked, first, all(device()), 0)
	last := device()
	refused := wants("the fourth of it", erasure.Approval, first, all(last), 0)
	if _, err := h.Server.erasure.Undo(t.Context(), first, refused.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Server.erasure.Undo(t.Context(), anna, e.ID); err != nil {
		t.Fatal(err)
	}
	wants("when one was undone", erasure.Asked, first, all(last), 0)

	// Asked for at once, as many get through as one after the other.
	h.later(25 * time.Hour)
	scopes := make([]holdfast.Scope, 2*most)
	for i := range scopes {
		scopes[i] = all(device())
	}
	states := make([]string, len(scopes))
	var asking sync.WaitGroup
	for i, s := range scopes {
		asking.Go(func() {
			e, err := h.Server.erasure.Request(t.Context(), first, s, erasure.Wish{Guarded: true})
			if states[i] = e.State; err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	count := map[string]int{}
	for _, s := range states {
		count[s]++
	}
	if count[erasure.Asked] != most || count[erasure.Approval] != most {
		t.Errorf("at once: %v", count)
	}
	if err := h.Server.erasure.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Where nobody else can approve, what is asked for in pieces can be undone for three days.
func TestErasureInPiecesAlone(t *testing.T) {
	h := newHouse(t)
	h.Server.erasure.Policy.Bulk = 1
	first := h.administrator()
	h.alone(first)
	anna := h.person("Anna")
	for i, state := range []string{erasure.Asked, erasure.Waiting, erasure.Waiting} {
		d := h.device(anna.Party, fmt.Sprint("device ", i))
		e := h.wants(first, h.scope(h.custody.ScopeOfDevice(t.Context(), d.Device)), erasure.Wish{})
		if e.State != state || state == erasure.Waiting && e.Undo != erasure.SafeUndo {
			t.Errorf("number %d: %s, undo %v", i, e.State, e.Undo)
		}
	}
}
