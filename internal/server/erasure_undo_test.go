package server

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// What waits is refused as if it had begun, and is there again, with what the device
// kept meanwhile, when it is undone.
func TestAnErasureIsUndone(t *testing.T) {
	h := newHouse(t)
	o, gate := h.owner("anna"), h.Server.erasure
	at := time.Now().Add(-time.Minute)
	h.mustSend(o.device, number("pulse", at, 60))
	s, err := h.custody.ScopeOfParty(t.Context(), o.Party)
	if err != nil {
		t.Fatal(err)
	}
	e, err := gate.Request(t.Context(), o.Principal, s, erasure.Wish{Undo: time.Hour, Guarded: true})
	if err != nil || e.State != erasure.Waiting {
		t.Fatalf("asked: %s, %v", e.State, err)
	}
	if rows, err := h.read(o.Principal, o.device, "pulse"); err == nil && len(rows) > 0 {
		t.Error("what waits is read")
	}
	if err := h.send(o.device, number("pulse", at.Add(time.Second), 61)); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("a reading of what waits: %v", err)
	}
	if _, err := gate.Request(t.Context(), o.Principal, s, erasure.Wish{Undo: time.Hour, Guarded: true}); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("asked to wait twice: %v", err)
	}
	if err := gate.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := gate.Undo(t.Context(), h.owner("ben").Principal, e.ID); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("undone by another: %v", err)
	}
	if e, err = gate.Undo(t.Context(), o.Principal, e.ID); err != nil || e.State != erasure.Undone {
		t.Fatalf("undone: %s, %v", e.State, err)
	}
	h.mustSend(o.device, number("pulse", at.Add(time.Second), 61))
	if rows, err := h.read(o.Principal, o.device, "pulse"); err != nil || len(rows) != 2 {
		t.Errorf("after the undo: %v, %v", rows, err)
	}
	if _, err := gate.Undo(t.Context(), o.Principal, e.ID); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("undone twice: %v", err)
	}
}

// What waits while another erasure ends its party comes to its end all the same, when
// its window is over.
func TestWhatWaitsEndsWithItsParty(t *testing.T) {
	for _, whole := range []bool{false, true} {
		h := newHouse(t)
		o, gate := h.owner("anna"), h.Server.erasure
		h.mustSend(o.device, number("pulse", time.Now().Add(-time.Minute), 60))
		all, err := h.custody.ScopeOfParty(t.Context(), o.Party)
		if err != nil {
			t.Fatal(err)
		}
		s := all
		if !whole {
			if s, err = h.custody.ScopeOfDevice(t.Context(), o.device.Device); err != nil {
				t.Fatal(err)
			}
		}
		waiting, err := gate.Request(t.Context(), o.Principal, s, erasure.Wish{Undo: time.Hour, Guarded: true})
		if err != nil || waiting.State != erasure.Waiting {
			t.Fatalf("whole %v: asked: %s, %v", whole, waiting.State, err)
		}
		if _, err := gate.Ask(t.Context(), o.Principal, all); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the party goes; what waited is found to be due, and goes
			if err := gate.Once(t.Context()); err != nil {
				t.Fatal(err)
			}
			h.later(2 * time.Hour)
		}
		e, err := gate.Erasure(t.Context(), waiting.ID)
		if err != nil || e.State != erasure.Done {
			t.Errorf("whole %v: what waited is %s: %v, %v", whole, e.State, gate.Why(e.ID), err)
		}
	}
}

// What arrives after an erasure that waits was asked for is not covered, even if the
// hub was started again on a clock that was set back in between, and nothing else had
// arrived.
func TestWhatArrivesAfterTheAskingStays(t *testing.T) {
	h := newHouse(t)
	o := h.owner("anna")
	h.mustSend(o.device, number("pulse", time.Now(), 60))
	s, err := h.custody.ScopeOfStream(t.Context(), o.device.Device, "pulse")
	if err != nil {
		t.Fatal(err)
	}
	h.later(2 * time.Hour) // the system's clock is behind by as much from here on
	if _, err := h.Server.erasure.Request(t.Context(), o.Principal, s, erasure.Wish{Undo: time.Hour, Guarded: true}); err != nil {
		t.Fatal(err)
	}
	h.halt()
	h.start()
	untimed := number("pulse", time.Now(), 61)
	untimed.Time, untimed.Timed = 0, false
	h.mustSend(o.device, untimed)
	if rows, err := h.read(o.Principal, o.device, "pulse"); err != nil || len(rows) != 1 {
		t.Errorf("after the asking came one, %d are read: %v", len(rows), err)
	}
}

// A hub starts without the only copy of its keyring: who is to be erased stays refused,
// the others come in, and the erasure is done when the copy is back.
func TestAnErasureThatCantGoOnStopsNoStart(t *testing.T) {
	h := newHouse(t)
	h.halt()
	disk := t.TempDir()
	safe, away := filepath.Join(disk, "safe"), filepath.Join(disk, "away")
	if err := os.Mkdir(safe, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := AddCopy(t.Context(), Config{Data: h.dir}, "safe", "file:"+safe); err != nil {
		t.Fatal(err)
	}
	h.start()
	anna, ben := h.person("Anna"), h.person("Ben")
	hers, his := h.device(anna.Party, "watch"), h.device(ben.Party, "band")
	for _, p := range []identity.Peer{hers, his} {
		h.mustSend(p, number("pulse", time.Now(), 60))
	}
	if err := os.Rename(safe, away); err != nil {
		t.Fatal(err)
	}
	e, err := h.Server.erasure.Ask(t.Context(), anna, h.scope(h.custody.ScopeOfParty(t.Context(), anna.Party)))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Server.erasure.Once(t.Context()); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Fatalf("erase without a copy: %v", err)
	}
	h.halt()
	h.start()
	h.has(anna, hers, "pulse", 0)
	h.has(ben, his, "pulse", 1)
	if err := os.Rename(away, safe); err != nil {
		t.Fatal(err)
	}
	if err := h.stores.vault.TendCopies(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.passes(e.ID, erasure.Done)
	h.has(ben, his, "pulse", 1)
}
