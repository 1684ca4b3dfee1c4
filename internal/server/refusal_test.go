package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/twin"
)

// Of a message with many readings, the refusal says which one was wrong, and none
// of the others comes in.
func TestRefusalNamesTheReading(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	now := time.Now()
	h.mustSend(hers, number("pulse", now, 60))
	err := h.send(hers, number("steps", now, 1), holdfast.Sample{Stream: "pulse", Value: holdfast.TextValue("fast")}, number("steps", now, 2))
	if holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), "reading 2 of 3") || strings.Contains(err.Error(), "pulse") {
		t.Errorf("refused: %v", err)
	}
	if got, err := h.read(anna, hers, "steps"); err == nil && len(got) > 0 {
		t.Errorf("%d readings of a refused message came in", len(got))
	}
}

// A batch of many children's messages keeps what was accepted, to the reading,
// when others are refused half-way: of a child that had readings in it already,
// and of one that had none.
func TestRefusalAmongMany(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	gateway := h.device(anna.Party, "gateway")
	children := make([]identity.Peer, 40)
	for i := range children {
		d, err := h.custody.AddDevice(t.Context(), h.admin().Credential, custody.DeviceSpec{Label: fmt.Sprint("child ", i), Owner: anna.Party, Gateway: gateway.Device})
		if err != nil {
			t.Fatal(err)
		}
		children[i] = identity.Peer{Device: d.Device.ID, Assignment: d.Device.Assignment}
		h.mustSend(children[i], number("temperature", time.Unix(1, 0), 0))
	}
	at := time.Now()
	bad := holdfast.Sample{Stream: "temperature", Value: holdfast.TextValue("warm")}
	b := h.ingest.Batch(t.Context(), gateway, "")
	for round := range 3 {
		for i := range children {
			name, when := fmt.Sprint("child ", i), at.Add(time.Duration(round)*time.Second)
			good := []holdfast.Sample{number("temperature", when, float64(i)), number("temperature", when.Add(time.Millisecond), float64(i))}
			if refused := (i+round)%3 == 0; refused {
				if err := b.Add(name, append(good, bad), ingest.Delivery{}); holdfast.KindOf(err) != holdfast.Invalid {
					t.Fatalf("child %d, round %d: %v", i, round, err)
				}
			} else if err := b.Add(name, good, ingest.Delivery{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	done := make(chan error, 1)
	b.Commit(func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i, c := range children {
		got, err := h.read(anna, c, "temperature")
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1+2*2 {
			t.Errorf("child %d has %d readings, want 5", i, len(got))
		}
		for _, r := range got[1:] {
			if r.Value.Number() != float64(i) || (int64(i)+(r.Time-at.UnixNano())/1e9)%3 == 0 {
				t.Errorf("child %d has %v at round %d", i, r.Value.Number(), (r.Time-at.UnixNano())/1e9)
			}
		}
	}
}

// What waits to be erased is refused on every path, and is there again when that is
// undone: what a device has measured, its commands and its state, in both directions.
// Its own page stays, for who is to see what he would undo.
func TestWhatWaitsIsRefusedOnEveryPath(t *testing.T) {
	s := tell(t, 0)
	anna := s.someone("Anna", custody.Person)
	watch := s.enrolled(anna.Party, "watch")
	s.mustSend(watch.Peer, number("pulse", time.Now().Add(-time.Minute), 71))
	device, peer := watch.Device.String(), twin.Peer{Device: watch.Device, Assignment: watch.Assignment}
	command := s.wish(anna.Principal, watch.Device, "blink").String()
	if _, err := s.twin.Report(t.Context(), peer, "", twin.Change{State: []byte(`{"is":"asleep"}`)}); err != nil {
		t.Fatal(err)
	}
	open, err := s.twin.Subscribe(t.Context(), peer, "cmd/#", "")
	s.must(err)
	defer open.Close()

	people := func(method, path, body, shows string) func() (bool, string) {
		return func() (bool, string) {
			status, b := s.do(anna.token, method, path, body)
			return status/100 == 2 && strings.Contains(string(b), shows), fmt.Sprintf("%d %.200s", status, b)
		}
	}
	devices := func(do func() error) func() (bool, string) {
		return func() (bool, string) {
			err := do()
			return holdfast.KindOf(err) != holdfast.Unavailable, fmt.Sprint(err)
		}
	}
	sent := 0
	paths := []struct {
		name string
		goes func() (ok bool, said string)
	}{
		{"readings", people("GET", "/v1/readings?stream=pulse&device="+device, "", `"value":71`)},
		{"streams on the device's page", people("GET", "/v1/devices/"+device, "", `"pulse"`)},
		{"streams among all that is hers", people("GET", "/v1/me/data", "", `"pulse"`)},
		{"state", people("GET", "/v1/devices/"+device+"/twin", "", "asleep")},
		{"wanted state", people("PATCH", "/v1/devices/"+device+"/twin", `{"as":"blink"}`, "")},
		{"a command", people("POST", "/v1/commands", `{"device":"watch","name":"ring"}`, "")},
		{"commands", people("GET", "/v1/commands?device=watch", "", "blink")},
		{"its command", people("GET", "/v1/commands/"+command, "", "blink")},
		{"a reading of the device", devices(func() error {
			sent++
			return s.send(watch.Peer, number("pulse", time.Now().Add(time.Duration(sent)*time.Millisecond), 72))
		})},
		{"its poll for commands", devices(func() error { _, err := s.twin.Poll(t.Context(), peer, "", holdfast.CommandID{}, 0); return err })},
		{"its wanted state", devices(func() error { _, err := s.twin.DesiredFor(t.Context(), peer, "", 0, 0); return err })},
		{"its report", devices(func() error {
			_, err := s.twin.Report(t.Context(), peer, "", twin.Change{State: []byte(`{"is":"asleep"}`)})
			return err
		})},
		{"its subscription", devices(func() error {
			u, err := s.twin.Subscribe(t.Context(), peer, "cmd/#", "")
			if err == nil {
				err = u.Close()
			}
			return err
		})},
		{"a subscription that is open", func() (bool, string) {
			if len(s.waiting(anna.Principal)) == 0 {
				return true, "nothing waits: asked when it does"
			}
			ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer stop()
			m, err := open.Next(ctx)
			return err == nil, fmt.Sprintf("%s %v", m.Topic, err)
		}},
		{"its result", devices(func() error { return s.twin.Result(t.Context(), peer, "", command, []byte(`{"status":"accepted"}`)) })},
		{"taking back its command", people("DELETE", "/v1/commands/"+s.wish(anna.Principal, watch.Device, "beep").String(), "", "")},
	}
	each := func(when string, goes bool) {
		t.Helper()
		for _, p := range paths {
			if ok, said := p.goes(); ok != goes {
				t.Errorf("%s: %s goes %v: %s", when, p.name, ok, said)
			}
		}
	}
	var e struct{ ID, State string }
	s.asks(anna, http.StatusAccepted, "POST", "/v1/erasures?wait=0", `{"device":"watch","undo":"1h"}`, &e)
	each("waiting", false)
	if ok, said := people("GET", "/v1/devices/"+device, "", `"watch"`)(); !ok {
		t.Errorf("the device's page: %s", said)
	}
	s.asks(anna, http.StatusOK, "DELETE", "/v1/erasures/"+e.ID, "", nil)
	each("undone", true)
}

// waiting are the erasures of somebody's that can be undone.
func (h *house) waiting(who access.Principal) []erasure.Erasure {
	h.t.Helper()
	all, err := h.Server.erasure.Erasures(h.t.Context(), who)
	if err != nil {
		h.t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(e erasure.Erasure) bool { return e.State != erasure.Waiting })
}
