package server

import (
	"maps"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// The hub crashes when the keys of a stream are destroyed and its places are not
// purged. Nothing comes in before they are: what did would go with them, and was
// acknowledged.
func TestNothingComesInBeforeAnErasureHasLeftItsPlaces(t *testing.T) {
	h, fails := newHouse(t), ""
	h.halt()
	h.ground = Machine()
	h.ground.Erasing = func(step string) error {
		if step == fails {
			return errCrash
		}
		return nil
	}
	h.start()
	anna := h.owner("Anna")
	h.mustSend(anna.device, number("pulse", time.Now().Add(-time.Minute), 60), number("steps", time.Now(), 1))
	scope, err := h.custody.ScopeOfStream(t.Context(), anna.device.Device, "pulse")
	if err != nil {
		t.Fatal(err)
	}
	fails = "destroyed"
	if _, err := h.Server.erasure.Ask(t.Context(), anna.Principal, scope); err != nil {
		t.Fatal(err)
	}
	if err := h.Server.erasure.Once(t.Context()); err == nil {
		t.Fatal("it was to crash")
	}
	h.halt()
	fails = "Memory" // the first place after which there is another
	h.start()
	if err := h.send(anna.device, number("pulse", time.Now(), 70)); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("a reading is taken in that the purge will take: %v", err)
	}
	h.mustSend(anna.device, number("steps", time.Now(), 2))
	fails = ""
	if err := h.Server.erasure.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.mustSend(anna.device, number("pulse", time.Now(), 80))
	if err := h.series.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.has(anna.Principal, anna.device, "pulse", 1)
	h.has(anna.Principal, anna.device, "steps", 2)
}

// With a month go readings, and nothing else of a device that lives on: it stays
// connected, with its session, its certificate, what it was told and what it is to be.
func TestAMonthLeavesADeviceItsLife(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	watch := h.enrolled(anna.Party, "watch")
	at, _ := h.serve()
	own := h.paho5(watch, at, "own", make(chan string, 16))
	if code := own.ask("cmd/#", ""); code != 1 {
		t.Fatalf("SUBSCRIBE cmd/#: 0x%02X", code)
	}
	h.wish(anna, watch.Device, "wish")
	h.mustSend(watch.Peer, number("pulse", time.Now(), 60))
	if err := h.sessions.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	y, m, _ := time.Unix(0, h.clock.Now()).UTC().Date()
	h.clock.AtLeast(h.clock.Now() + int64(40*24*time.Hour))
	h.mustSend(watch.Peer, number("pulse", time.Now(), 61))
	scope := h.scope(h.custody.ScopeOfDevice(t.Context(), watch.Device))
	scope.Month = 100*y + int(m)
	x := &belongings{h: h, slug: "the watch", who: anna, device: watch}
	lives := maps.Clone(ofDevice)
	delete(lives, "arrivals of readings")
	lives["certificates"] = `device_certificate WHERE state < 4 AND device IN (SELECT id FROM device WHERE assignment = $1)`
	x.holds(lives, true)
	h.erase(anna, scope)
	h.has(anna, watch.Peer, "pulse", 1)
	x.holds(lives, true)
	select {
	case <-own.Done():
		t.Error("its connection was ended")
	default:
	}
}
