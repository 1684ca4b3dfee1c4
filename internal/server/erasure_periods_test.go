package server

import (
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// The preview of an erasure says that a shift which is not over ends with it; a range of
// time does not end it, and who takes the range stays whose the rest is.
func TestAPreviewSaysWhatEnds(t *testing.T) {
	h := newHouse(t)
	anna, ben := h.person("Anna"), h.person("Ben")
	van := h.device(anna.Party, "van")
	spec := custody.PeriodSpec{Device: van.Device, Subject: ben.Party, Terms: custody.Terms{Basis: custody.Employ}}
	if _, err := h.custody.AddPeriod(t.Context(), anna.Credential, spec); err != nil {
		t.Fatal(err)
	}
	h.mustSend(van, number("speed", time.Now(), 1))
	part := h.scope(h.custody.ScopeOfSlice(t.Context(), van.Device, ben.Party))
	part.Span = holdfast.Span{From: time.Now().Add(-time.Hour).UnixNano(), To: time.Now().UnixNano()}
	for _, x := range []struct {
		name string
		s    holdfast.Scope
		want int
	}{
		{"the slice", h.scope(h.custody.ScopeOfSlice(t.Context(), van.Device, ben.Party)), 1},
		{"the party", h.scope(h.custody.ScopeOfParty(t.Context(), ben.Party)), 1},
		{"a range of the slice", part, 0},
	} {
		p, err := h.Server.erasure.Preview(t.Context(), ben, x.s, erasure.Wish{})
		if err != nil || p.Ends != x.want {
			t.Errorf("%s: %d periods end, want %d: %v", x.name, p.Ends, x.want, err)
		}
	}
	h.passes(h.wants(ben, part, erasure.Wish{}).ID, erasure.Done)
	h.mustSend(van, number("speed", time.Now(), 2))
	h.has(ben, van, "speed", 1)
	h.has(anna, van, "speed", 0)
}
