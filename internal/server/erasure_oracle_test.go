package server

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// expected says which readings of a stream must be readable: those that were sent and no
// erasure that counts covers.
type expected struct {
	sent  map[int64]bool
	gone  map[int64]bool
	waits map[holdfast.ErasureID]holdfast.Span
}

func (m *expected) readable() []int64 {
	var out []int64
	for at := range m.sent {
		hidden := m.gone[at]
		for _, s := range m.waits {
			hidden = hidden || s.Contains(at)
		}
		if !hidden {
			out = append(out, at)
		}
	}
	slices.Sort(out)
	return out
}

// Erasures of parts that overlap, some of which wait and some of which are undone,
// hide and destroy what a simple model says, no more and no less, also after restarts.
func TestOverlappingErasuresAgainstAModel(t *testing.T) {
	seed, steps := testseed.Of(t), 40
	if long() {
		steps = 600
	}
	r := rand.New(rand.NewPCG(seed, 0))
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	m := expected{sent: map[int64]bool{}, gone: map[int64]bool{}, waits: map[holdfast.ErasureID]holdfast.Span{}}
	base, next := time.Now().Add(-24*time.Hour).UnixNano(), 0
	at := func(i int) int64 { return base + int64(i)*int64(time.Second) }
	more := func() {
		next++
		m.sent[at(next)] = true
		h.mustSend(hers, number("pulse", time.Unix(0, at(next)), float64(next)))
	}
	for range 20 {
		more()
	}
	for range steps {
		switch r.IntN(7) {
		case 0, 1:
			more()
		case 2, 3:
			m.ask(h, r, anna, hers, at, next)
		case 4:
			if ids := slices.Collect(maps.Keys(m.waits)); len(ids) > 0 {
				id := ids[r.IntN(len(ids))]
				if _, err := h.Server.erasure.Undo(t.Context(), anna, id); err != nil {
					t.Fatalf("undo: %v", err)
				}
				delete(m.waits, id)
			}
		case 5:
			if err := h.Server.erasure.Once(t.Context()); err != nil {
				t.Fatal(err)
			}
		case 6:
			h.halt()
			h.start()
		}
		rows, err := h.read(anna, hers, "pulse")
		if err != nil {
			t.Fatal(err)
		}
		got := make([]int64, 0, len(rows))
		for _, row := range rows {
			got = append(got, row.Time)
		}
		if want := m.readable(); !slices.Equal(got, want) {
			t.Fatalf("readable: %v, the model says %v", got, want)
		}
	}
}

// ask has a span erased, at once or with a window.
func (m *expected) ask(h *house, r *rand.Rand, who access.Principal, p identity.Peer, at func(int) int64, next int) {
	h.t.Helper()
	s := h.scope(h.custody.ScopeOfStream(h.t.Context(), p.Device, "pulse"))
	from := 1 + r.IntN(next)
	s.Span = holdfast.Span{From: at(from), To: at(min(next, from+r.IntN(5)))} // what is sent later is not barred
	w := erasure.Wish{Guarded: true}
	if r.IntN(2) == 0 {
		w.Undo = time.Hour
	}
	e, err := h.Server.erasure.Request(h.t.Context(), who, s, w)
	switch kind := holdfast.KindOf(err); {
	case err == nil && w.Undo > 0:
		m.waits[e.ID] = s.Span
	case err == nil:
		for t := range m.sent {
			m.gone[t] = m.gone[t] || s.Span.Contains(t)
		}
		if err := h.Server.erasure.Once(h.t.Context()); err != nil {
			h.t.Fatal(err)
		}
	case kind == holdfast.NotFound: // nothing is left there
	case kind == holdfast.Conflict && w.Undo > 0:
		for _, have := range m.waits {
			if have.Covers(s.Span) {
				return
			}
		}
		h.t.Fatalf("nothing that waits covers it: %v", err)
	default:
		h.t.Fatalf("ask: %v", err)
	}
}

// Erasures that are queued together cost one rotation of the root key.
func TestErasuresTogetherCostOneRotation(t *testing.T) {
	n := 50
	if long() {
		n = 1000
	}
	h := newHouse(t)
	owners := make([]owner, n)
	for i := range owners {
		owners[i] = h.owner("leaving " + holdfast.NewID[holdfast.ErasureID]().String())
		h.mustSend(owners[i].device, number("pulse", time.Now(), 60))
	}
	before := h.stores.vault.Generation()
	for _, o := range owners {
		h.ask(o)
	}
	began := time.Now()
	if err := h.Server.erasure.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d erasures, with their certificates, in %v", n, time.Since(began))
	if after := h.stores.vault.Generation(); after != before+1 {
		t.Errorf("%d rotations", after-before)
	}
	all, err := h.Server.erasure.Erasures(t.Context(), h.admin())
	if err != nil || len(all) != n {
		t.Fatalf("%d erasures: %v", len(all), err)
	}
	for _, e := range all {
		if e.State != erasure.Done || e.To != before+1 {
			t.Fatalf("erasure is %s, of rotation %d", e.State, e.To)
		}
	}
}
