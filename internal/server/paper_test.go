package server

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/recovery"
)

// TestEscrowOfACertificate: what is pending is the shares of every deal that was in
// force by then, until enough of each are gone.
func TestEscrowOfACertificate(t *testing.T) {
	at := time.Now()
	three := escrow.Public{ID: escrow.ID{1}, Threshold: 2, Shareholders: []escrow.Shareholder{{Name: "notary"}, {Name: "safe"}, {Name: "board"}}}
	gone := []recovery.Gone{{Name: "safe"}, {Name: "board"}}
	after := recovery.Deal{Public: three, Since: at.Add(time.Hour)}
	before := recovery.Deal{Public: three, Since: at.Add(-time.Hour)}
	half, done := before, before
	half.Gone, done.Gone = gone[:1], gone
	vouched := before
	vouched.Gone = []recovery.Gone{{Name: "safe"}, {Name: "board", Vouched: "Ada"}}
	unknown := recovery.Deal{Public: escrow.Public{ID: escrow.ID{2}}, Since: at.Add(-time.Minute)}
	one := " (deal " + three.ID.String() + ")"
	for what, c := range map[string]struct {
		deals []recovery.Deal
		want  erasure.Escrow
	}{
		"never dealt":    {nil, erasure.Escrow{State: erasure.EscrowNone}},
		"dealt after":    {[]recovery.Deal{after}, erasure.Escrow{State: erasure.EscrowNone}},
		"half destroyed": {[]recovery.Deal{after, half}, erasure.Escrow{State: erasure.EscrowPending, N: 3, K: 2, Names: []string{"notary" + one, "board" + one}}},
		"vouched":        {[]recovery.Deal{vouched}, erasure.Escrow{State: erasure.EscrowDestroyed, N: 3, K: 2, Vouched: []string{"board" + one + ": Ada"}}},
		"enough":         {[]recovery.Deal{after, done}, erasure.Escrow{State: erasure.EscrowDestroyed, N: 3, K: 2}},
		"unknown":        {[]recovery.Deal{unknown, done}, erasure.Escrow{State: erasure.EscrowPending, Names: []string{"whoever has shares of deal " + unknown.ID.String()}}},
	} {
		if diff := cmp.Diff(c.want, escrowOf(c.deals, at)); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}
