package server

import (
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
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
