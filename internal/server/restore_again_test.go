package server

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// A restore that carries out an erasure takes back more, as the device's certificate;
// the hub that it made is backed up, loses its folder and is restored like any other.
func TestARestoredHubIsRestoredAgain(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	keeper, lamp, later := h.owner("keeper"), h.owner("lamp"), h.owner("later")
	at := time.Now().Add(-time.Hour)
	for _, o := range []owner{keeper, lamp, later} {
		h.mustSend(o.device, number("lux", at, 1))
	}
	h.halt()
	ring := t.TempDir()
	if err := AddCopy(t.Context(), Config{Data: h.dir}, "safe", "file:"+ring); err != nil {
		t.Fatal(err)
	}
	h.start()
	scope := func(s holdfast.Scope, err error) holdfast.Scope {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	lose := func() {
		t.Helper()
		if err := h.stores.vault.TendCopies(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.halt()
	}
	restore := func() {
		t.Helper()
		drill, err := Drill(t.Context(), Config{Data: t.TempDir(), RootKey: h.rootKey}, b.options(ring))
		if err != nil || drill.Suspended != "" || drill.TakenBack == 0 {
			t.Fatalf("the drill finds %+v, %v", drill, err)
		}
		new := filepath.Join(t.TempDir(), "new")
		r, err := Restore(t.Context(), Config{Data: new, RootKey: h.rootKey}, b.options(ring))
		if err != nil || r.Suspended != "" || r.TakenBack != drill.TakenBack {
			t.Fatalf("restored: %+v, %v", r, err)
		}
		if err := os.RemoveAll(h.dir); err != nil {
			t.Fatal(err)
		}
		h.dir = new
		h.start()
		t.Cleanup(h.halt)
	}
	b.take(h)
	h.erase(lamp.Principal, scope(h.custody.ScopeOfDevice(t.Context(), lamp.device.Device)))
	lose()
	restore()
	b.take(h)
	h.erase(later.Principal, scope(h.custody.ScopeOfParty(t.Context(), later.Party)))
	lose()
	restore()
	b.take(h)
	h.erase(lamp.Principal, scope(h.custody.ScopeOfParty(t.Context(), lamp.Party)))
	lose()
	restore()
	if n := h.readings(keeper.Principal, keeper, "lux"); n != 1 {
		t.Errorf("%d readings of whom nobody erased", n)
	}
	for _, o := range []owner{lamp, later} {
		if n := h.readings(o.Principal, o, "lux"); n != 0 {
			t.Errorf("%d erased readings are there", n)
		}
	}
}
