package server

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// An erasure is under way and a holder does not answer: its owner, who looks for his
// readings, is told of it by its id wherever they are missing; nobody else is told
// anything, and nobody at all once the keys are dead, or it was undone.
func TestAnErasureUnderWayIsToldToItsOwnerAlone(t *testing.T) {
	e := newEstate(t)
	e.scene()
	anna, ben, gate := e.targets["anna"], e.targets["ben"], e.Server.erasure
	for _, x := range []*target{anna, ben} {
		e.must("an administrator", "DELETE", "/v1/holds/"+x.names["hold"], "", nil)
	}
	gate.Fault = func(step string) error {
		if step == "barred" {
			return errors.New("a holder hangs")
		}
		return nil
	}
	ask := func(x *target, as *reader, w erasure.Wish) holdfast.ErasureID {
		t.Helper()
		s, err := e.custody.ScopeOfDevice(t.Context(), x.device.Device)
		if err != nil {
			t.Fatal(err)
		}
		asked, err := gate.Request(t.Context(), as.as, s, w)
		if err != nil {
			t.Fatal(err)
		}
		return asked.ID
	}
	gone := ask(anna, e.readers[0], erasure.Wish{Guarded: true}).String()
	waits := ask(ben, e.readers[1], erasure.Wish{Undo: time.Hour, Guarded: true})
	if err := gate.Once(t.Context()); err == nil {
		t.Fatal("nothing keeps the erasure from getting on")
	}
	const never, always = "", "always"
	paths := map[string]string{ // what of Ben's, which can be undone, still answers without a word
		"/v1/readings?device={device}&stream={stream}": always, "/v1/readings?device={label}&from=2000-01-01": always, "/v1/readings?owner={party}&format=csv": always,
		"/v1/feed?device={device}&format=ndjson": always, "/v1/me/data": always, "/v1/devices/{device}": never,
	}
	told := func(r *reader, x *target, path string) (string, answer) {
		t.Helper()
		p, _, _ := way{path: path}.about(x)
		got := r.ask(e.at.API+p, http.MethodGet, "")
		if got.status >= 500 || got.status == 0 {
			t.Errorf("%s asks %s: %d %.300s", r.name, p, got.status, got.all)
		}
		return p, got
	}
	look := func(when string, annas, bens bool) {
		t.Helper()
		for path, of := range paths {
			for i, r := range e.readers {
				for _, x := range []*target{anna, ben} {
					p, got := told(r, x, path)
					for id, owner := range map[string]int{gone: 0, waits.String(): 1} {
						has := strings.Contains(string(got.all), id)
						own := i == owner && (owner == 0 && annas || owner == 1 && bens)
						if has && !own {
							t.Errorf("%s: %s asks %s and is told of an erasure: %d %.300s", when, r.name, p, got.status, got.all)
						}
						if own && !has && of == always && x == e.targets[[]string{"anna", "ben"}[owner]] {
							t.Errorf("%s: %s asks %s and is not told why there is nothing: %d %.300s", when, r.name, p, got.status, got.all)
						}
					}
					if got.status/100 == 4 && strings.Contains(string(got.body), "under way") && i > 1 {
						t.Errorf("%s: %s is told by words: %.300s", when, r.name, got.body)
					}
				}
			}
		}
	}
	look("both under way", true, true)
	if _, got := told(e.readers[0], anna, "/v1/devices/{device}"); got.status != http.StatusNotFound || !strings.Contains(string(got.body), "there is no such device. Erasure "+gone+" of yours is under way") {
		t.Errorf("the device that is erased: %d %s", got.status, got.body)
	}
	if _, got := told(e.readers[1], ben, "/v1/me/data"); !strings.Contains(string(got.body), `"state":"waiting"`) || !strings.Contains(string(got.body), `"until":`) {
		t.Errorf("what can be undone: %.400s", got.body)
	}
	gate.Fault = nil
	if err := gate.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	look("the keys are dead", false, true)
	if _, err := gate.Undo(t.Context(), e.readers[1].as, waits); err != nil {
		t.Fatal(err)
	}
	look("it was undone", false, false)
}
