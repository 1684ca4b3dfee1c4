package query

import (
	"runtime/debug"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// TestPurse: large reads leave room for small ones, one that is too large for any
// time is told so, and what was taken comes back once.
func TestPurse(t *testing.T) {
	p := newPurse(Budget{Memory: 64 << 20})
	if p.Query != 16<<20 || p.Rows != defaultRows {
		t.Errorf("%+v", p.Budget)
	}
	if _, err := p.take(p.Query + 1); holdfast.KindOf(err) != holdfast.TooLarge {
		t.Error(err)
	}
	var large []func()
	for range 3 {
		release, err := p.take(16 << 20)
		if err != nil {
			t.Fatal(err)
		}
		large = append(large, release)
	}
	if _, err := p.take(16 << 20); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Error("a fourth:", err)
	}
	for i := range 16 {
		release, err := p.take(p.small())
		if err != nil {
			t.Fatalf("small read %d: %v", i, err)
		}
		defer release()
	}
	if _, err := p.take(p.small()); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Error("beyond all of it:", err)
	}
	for range 2 {
		large[0]()
	}
	if p.taken != 48<<20 {
		t.Error(p.taken, "are taken")
	}
}

// TestBudgetKnowsTheMemoryLimit: GOMEMLIMIT is what a budget is made from.
func TestBudgetKnowsTheMemoryLimit(t *testing.T) {
	for limit, want := range map[int64]int64{400 << 20: 100 << 20, 16 << 30: defaultMemory, 1 << 20: leastMemory} {
		before := debug.SetMemoryLimit(limit)
		if b := (Budget{}).withDefaults(); b.Memory != want || b.Query != want/4 {
			t.Errorf("of %d: %+v", limit, b)
		}
		debug.SetMemoryLimit(before)
	}
}
