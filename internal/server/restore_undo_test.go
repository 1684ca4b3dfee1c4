package server

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// What waits in a backup, and was undone after it, is not carried out when the backup
// is restored; and as long as nobody knows whether it was undone, it does not begin.
func TestARestoreDoesNotBeginWhatWasUndone(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	o, gate := h.owner("anna"), h.Server.erasure
	at := time.Now().Add(-time.Minute)
	h.mustSend(o.device, number("pulse", at, 60))
	scope, err := h.custody.ScopeOfParty(t.Context(), o.Party)
	if err != nil {
		t.Fatal(err)
	}
	e, err := gate.Request(t.Context(), o.Principal, scope, erasure.Wish{Undo: time.Hour, Guarded: true})
	if err != nil || e.State != erasure.Waiting {
		t.Fatalf("asked: %s, %v", e.State, err)
	}
	ben := h.owner("ben")
	other, err := h.custody.ScopeOfParty(t.Context(), ben.Party)
	if err != nil {
		t.Fatal(err)
	}
	over, err := gate.Request(t.Context(), ben.Principal, other, erasure.Wish{Undo: time.Nanosecond, Guarded: true})
	if err != nil {
		t.Fatal(err)
	}
	asker := h.admin()
	asker.Holder = asker.Credential
	cleo := h.owner("cleo")
	third, err := h.custody.ScopeOfParty(t.Context(), cleo.Party)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := gate.Request(t.Context(), asker, third, erasure.Wish{Undo: time.Hour, Guarded: true})
	if err != nil || theirs.State != erasure.Waiting {
		t.Fatalf("asked: %s, %v", theirs.State, err)
	}
	b.take(h)
	if _, err := gate.Undo(t.Context(), o.Principal, e.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.ledger.SignTakeBacks(t.Context(), h.stores.vault.Generation()); err != nil {
		t.Fatal(err)
	}
	names, err := h.ledger.TakeBackFiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	beside := map[string][]byte{}
	for name := range names {
		if beside[name], err = h.ledger.TakeBackFile(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	h.halt()

	blind := filepath.Join(t.TempDir(), "blind")     // of a copy without take-backs
	spare := filepath.Join(t.TempDir(), "spare.key") // it erases, which replaces its root key
	if key, err := os.ReadFile(h.rootKey); err != nil || os.WriteFile(spare, key, 0o600) != nil {
		t.Fatal(err)
	}
	if r, err := Restore(t.Context(), Config{Data: blind, RootKey: spare}, b.options(filepath.Join(h.dir, keyringDir))); err != nil || r.Suspended == "" {
		t.Fatalf("restored: %+v, %v", r, err)
	}
	restored := &house{t: t, dir: blind, rootKey: spare}
	restored.start()
	if err := restored.Server.erasure.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if have, err := restored.Server.erasure.Erasure(t.Context(), over.ID); err != nil || have.State != erasure.Waiting {
		t.Errorf("on a suspended hub it is %s, %v", have.State, err)
	}
	restored.halt()

	state, err := readRestored(osFolder(blind))
	if err != nil || len(state.Admins) != 1 {
		t.Fatalf("%+v, %v", state, err)
	}
	// Whoever asked has his whole window again, from the confirmation on.
	confirmed := time.Now()
	done, err := ConfirmRestore(t.Context(), Config{Data: blind, RootKey: spare})
	if err != nil || len(done.Waiting) != 3 {
		t.Fatalf("confirmed: %+v, %v", done, err)
	}
	for _, w := range done.Waiting {
		if again := confirmed.Add(time.Hour); w.Erasure == e.ID && (w.Until.Before(again) || !w.Until.After(e.Until)) {
			t.Errorf("it begins %s, before %s", w.Until, again)
		}
	}
	restored.start()
	if rows, err := restored.read(o.Principal, o.device, "pulse"); err == nil && len(rows) > 0 {
		t.Errorf("what waits is shown: %v", rows)
	}
	if have, err := restored.Server.erasure.Erasure(t.Context(), over.ID); err != nil || have.State == erasure.Waiting {
		t.Errorf("what had a window of no time is %s, %v", have.State, err)
	}
	stranger, heir := restored.admin(), restored.admin()
	stranger.Holder = stranger.Credential
	heir.Credential = state.Admins[0]
	heir.Holder = heir.Credential
	if _, err := restored.Server.erasure.Undo(t.Context(), stranger, theirs.ID); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("another administrator undoes it: %v", err)
	}
	if _, err := restored.Server.erasure.Undo(t.Context(), heir, e.ID); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("the restore's administrator undoes what an owner asked for: %v", err)
	}
	if have, err := restored.Server.erasure.Undo(t.Context(), heir, theirs.ID); err != nil || have.State != erasure.Undone {
		t.Errorf("the restore's administrator can't undo what an administrator asked for: %v", err)
	}
	if _, err := restored.Server.erasure.Undo(t.Context(), o.Principal, e.ID); err != nil {
		t.Errorf("it can't be undone once more: %v", err)
	}
	if rows, err := restored.read(o.Principal, o.device, "pulse"); err != nil || len(rows) != 1 {
		t.Errorf("after that: %v, %v", rows, err)
	}
	restored.halt()

	for name, b := range beside {
		if err := os.WriteFile(filepath.Join(h.dir, keyringDir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole := filepath.Join(t.TempDir(), "whole")
	if r, err := b.restore(h, whole, "", b.ids); err != nil || r.Suspended != "" || r.TakenBack == 0 {
		t.Fatalf("restored: %+v, %v", r, err)
	}
	restored = &house{t: t, dir: whole, rootKey: h.rootKey}
	restored.start()
	t.Cleanup(restored.halt)
	if have, err := restored.Server.erasure.Erasure(t.Context(), e.ID); err != nil || have.State != erasure.Undone {
		t.Errorf("after the restore it is %s, %v", have.State, err)
	}
	if have, err := restored.Server.erasure.Erasure(t.Context(), over.ID); err != nil || have.State == erasure.Waiting {
		t.Errorf("what nobody undid is %s, %v", have.State, err)
	}
	if rows, err := restored.read(o.Principal, o.device, "pulse"); err != nil || len(rows) != 1 {
		t.Errorf("after the restore: %v, %v", rows, err)
	}
}
