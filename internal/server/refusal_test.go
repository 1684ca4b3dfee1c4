package server

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
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
