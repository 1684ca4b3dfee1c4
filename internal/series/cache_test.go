package series

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// dense sends an hour's readings of streams, a chunk and a summary of each, and
// rolls them.
func (r *rig) dense(streams int) (wants []Want) {
	rng := rand.New(rand.NewPCG(1, 1))
	for n := range byte(streams) {
		r.send(bob, testStream(n), testArrival, temperatures(rng, testArrival, 1e9, 3600)...)
		wants = append(wants, Want{Assignment: bob, Stream: testStream(n), Span: holdfast.Always})
	}
	r.roll()
	return wants
}

func TestWhatIsAskedAgainIsKept(t *testing.T) {
	r := newSizedRig(t, Options{}, 1<<20)
	wants := r.dense(3)
	for range 4 {
		for i, rows := range r.read(wants) {
			if d := differ(rows, r.want(of{bob, wants[i].Stream}, holdfast.Always)); d != "" {
				t.Fatal(d)
			}
		}
		for _, w := range wants { // and by the minute
			got, stored := r.byMinutes(of{bob, w.Stream}, holdfast.Always)
			if want := stretches(r.want(of{bob, w.Stream}, holdfast.Always)); !slices.EqualFunc(got, want, sameStretch) || stored == 0 {
				t.Fatalf("%d minutes, %d stored", len(got), stored)
			}
		}
	}
	used, hits, misses := r.cache.stats()
	if hits != 2*2*3 || misses != 2*2*3 || used < 3*16*3600 || used > 3*64*3600 {
		t.Errorf("%d bytes, %d hits, %d misses", used, hits, misses)
	}
	for _, e := range r.cache.items {
		if n := e.Value.(*cached).users; n != 0 {
			t.Errorf("%d users are left", n)
		}
	}
	r.send(bob, testStream(0), testArrival, temperatures(rand.New(rand.NewPCG(2, 2)), testArrival+1e13, 1e9, 100)...)
	r.roll()
	r.merge()
	if after, _, _ := r.cache.stats(); after >= used {
		t.Errorf("%d bytes after a merge replaced chunks, %d before", after, used)
	}
}

func TestTheCacheHasItsLimit(t *testing.T) {
	const limit = 2 << 20
	r := newSizedRig(t, Options{CacheBytes: limit}, 1<<20)
	wants := r.dense(60)
	for range 3 {
		r.read(wants)
		if used, _, _ := r.cache.stats(); used > limit {
			t.Fatalf("%d bytes", used)
		}
	}
	if used, _, _ := r.cache.stats(); used < limit/2 {
		t.Errorf("%d bytes of %d are used", used, limit)
	}
	none := newSizedRig(t, Options{CacheBytes: -1}, 1<<20)
	wants = none.dense(1)
	for range 3 {
		none.read(wants)
	}
	if used, hits, _ := none.cache.stats(); used != 0 || hits != 0 {
		t.Errorf("no cache has %d bytes, %d hits", used, hits)
	}
}

// TestAnErasureEmptiesTheCache: what it covers is overwritten, at once, and does not
// come back by who was reading meanwhile.
func TestAnErasureEmptiesTheCache(t *testing.T) {
	r := newSizedRig(t, Options{}, 1<<20)
	wants := r.dense(2)
	r.read(wants)
	r.read(wants)
	var kept []*cached
	for _, e := range r.cache.items {
		kept = append(kept, e.Value.(*cached))
	}
	if len(kept) != 2 {
		t.Fatalf("%d chunks are kept", len(kept))
	}
	scope := holdfast.Scope{Assignments: []holdfast.AssignmentID{bob}, Streams: []holdfast.StreamID{testStream(1)}, Span: holdfast.Always}
	since := r.cache.now()
	r.must(r.Forget(t.Context(), scope))
	for _, x := range kept {
		wiped := !slices.ContainsFunc(x.columns.Times, func(v int64) bool { return v != 0 }) &&
			!slices.ContainsFunc(x.columns.Numbers, func(v float64) bool { return v != 0 })
		if wiped != (x.name.stream == testStream(1)) {
			t.Errorf("stream %x is overwritten: %t", x.name.stream[15], wiped)
		}
	}
	late := &cached{key: cacheKey{chunk: [16]byte{1}}, columns: kept[0].columns}
	for range 2 {
		if r.cache.put(late, since) {
			t.Error("what was read before the erasure came in after it")
		}
	}
	// Carried out, it empties what was read again while the keys lived.
	r.read(wants)
	r.read(wants)
	r.keys.destroy(bob)
	_, err := r.Erase(t.Context(), holdfast.Scope{Assignments: []holdfast.AssignmentID{bob}, Span: holdfast.Always, Whole: true})
	r.must(err)
	if used, _, _ := r.cache.stats(); used != 0 || len(r.cache.items) != 0 {
		t.Errorf("%d bytes of %d chunks are left", used, len(r.cache.items))
	}
}
