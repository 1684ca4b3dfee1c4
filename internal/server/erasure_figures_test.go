package server

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// What is asked for together costs one rotation of the root key, and its keys are dead
// within a minute. With HOLDFAST_LONG=1 it is a thousand owners.
func TestQueuedErasuresCostOneRotation(t *testing.T) {
	n := 50
	if long() {
		n = 1000
	}
	h := newHouse(t)
	asked := make([]erasure.Erasure, n)
	for i := range asked {
		o := h.owner(fmt.Sprint("leaving ", i))
		h.mustSend(o.device, number("pulse", time.Now(), 60))
		asked[i] = h.ask(o)
	}
	before, began := h.stores.vault.Generation(), time.Now()
	if err := h.Server.erasure.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	done := time.Since(began)
	var last time.Duration
	for _, e := range asked {
		e = h.passes(e.ID, erasure.Done)
		if e.To != before+1 {
			t.Errorf("an erasure is of rotation %d, not %d", e.To, before+1)
		}
		last = max(last, e.KeysDeadAt.Sub(began))
	}
	t.Logf("%d erasures: %d rotations, all keys dead after %v, all done after %v", n, h.stores.vault.Generation()-before, last.Round(time.Millisecond), done.Round(time.Millisecond))
	if got := h.stores.vault.Generation() - before; got != 1 {
		t.Errorf("%d rotations", got)
	}
	if last > time.Minute {
		t.Errorf("the last key died after %v", last)
	}
}

// A span takes as long as there are rows that survive it and are sealed again: the line
// that is logged says how much. A whole device of as many takes none of that.
func TestAPartGrowsWithItsRows(t *testing.T) {
	sizes := []int{1000, 20_000}
	if long() {
		sizes = []int{1000, 100_000, 300_000, 1_000_000}
	}
	h := newHouse(t)
	for _, n := range sizes {
		o, begin := h.owner(fmt.Sprint("rows ", n)), time.Now()
		h.pour(o.device, n)
		if err := h.series.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := h.scope(h.custody.ScopeOfStream(t.Context(), o.device.Device, "pulse"))
		s.Span = holdfast.Span{From: begin.Add(-10 * time.Second).UnixNano(), To: holdfast.Always.To}
		e, err := h.Server.erasure.Ask(t.Context(), o.Principal, s)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		e = h.passes(e.ID, erasure.Done)
		part := e.KeysDeadAt.Sub(began)
		rows, err := h.read(o.Principal, o.device, "pulse")
		if err != nil || len(rows) < n-100 || len(rows) >= n {
			t.Errorf("%d of %d readings are left, %v", len(rows), n, err)
		}
		e = h.ask(o)
		began = time.Now()
		e = h.passes(e.ID, erasure.Done)
		t.Logf("%8d rows sealed again: keys dead after %7.1f ms, %.2f us a row; of the whole owner after %.1f ms",
			len(rows), ms(part), 1000*ms(part)/float64(n), ms(e.KeysDeadAt.Sub(began)))
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
