package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
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
