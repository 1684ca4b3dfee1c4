package series

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// merged is what Scan gives by the clear way: all sources merged reading by
// reading.
func (r *rig) merged(o of, span holdfast.Span) (out []holdfast.Reading) {
	r.t.Helper()
	v, err := r.snapshot(r.t.Context(), streamName{o.a, o.s}, span)
	r.must(err)
	defer v.leave()
	r.must(v.readTail(r.t.Context()))
	r.must(v.cursor().each(r.t.Context(), &unsealer{s: r.Series}, func(x holdfast.Reading) bool {
		out = append(out, x)
		return true
	}))
	return out
}

// read gives the rows of each want, by Read.
func (r *rig) read(wants []Want) [][]holdfast.Reading {
	r.t.Helper()
	out := make([][]holdfast.Reading, len(wants))
	last := 0
	for b, err := range r.Read(r.t.Context(), wants) {
		r.must(err)
		if b.From >= b.To || b.To > b.Columns.Len() || b.Want < last {
			r.t.Fatalf("batch of want %d after %d: rows %d to %d of %d", b.Want, last, b.From, b.To, b.Columns.Len())
		}
		last = b.Want
		for i := b.From; i < b.To; i++ {
			out[b.Want] = append(out[b.Want], b.Columns.Reading(i))
		}
	}
	return out
}

// TestReadAgreesWithTheClearWay reads many streams at once, of chunks that stand
// alone, that overlap, and of the tail.
func TestReadAgreesWithTheClearWay(t *testing.T) {
	rng := newRNG(t)
	r := newRig(t, Options{})
	at := int64(testArrival)
	for round := range 4 {
		r.sendMixed(rng, 60)
		for n := range byte(3) { // and streams whose chunks follow each other, but for some
			from := at
			if rng.IntN(3) == 0 {
				from -= rng.Int64N(100e9)
			}
			r.send(bob, testStream(20+n), at, temperatures(rng, from, 1e8, 200+rng.IntN(900))...)
		}
		at += 200e9
		if round < 3 {
			r.roll()
		}
		if round == 1 {
			r.merge()
		}
	}
	for range 20 {
		var wants []Want
		for o, rows := range r.sent {
			span := holdfast.Always
			if rng.IntN(2) == 0 {
				span.From, span.To = rows[rng.IntN(len(rows))].Time, rows[rng.IntN(len(rows))].Time
			}
			wants = append(wants, Want{o.a, o.s, span})
		}
		for i, got := range r.read(wants) {
			w := wants[i]
			o := of{w.Assignment, w.Stream}
			if d := differ(got, r.merged(o, w.Span)); d != "" {
				t.Fatalf("want %d, %v: %s", i, w, d)
			}
			if d := differ(got, r.want(o, w.Span)); d != "" {
				t.Fatalf("want %d, %v: %s", i, w, d)
			}
		}
	}
}

// TestReadMayBeLeft stops readers at every batch, and cancels them.
func TestReadMayBeLeft(t *testing.T) {
	r := newRig(t, Options{})
	rng := rand.New(rand.NewPCG(1, 1))
	var wants []Want
	for n := range byte(60) {
		for part := range int64(3) {
			r.send(alice, testStream(n), testArrival, temperatures(rng, testArrival+part*3600e9, 1e9, 1500)...)
		}
		wants = append(wants, Want{alice, testStream(n), holdfast.Always})
	}
	r.roll()
	for stop := range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		for b, err := range r.Read(ctx, wants) {
			if err != nil {
				if !errors.Is(err, context.Canceled) || n <= stop {
					t.Fatal(err)
				}
				break
			}
			if n++; n == stop+1 && stop%2 == 0 {
				break
			} else if n == stop+1 {
				cancel()
			}
			_ = b
		}
		cancel()
	}
	if len(r.readers.active)+len(r.readers.open)+len(r.tail.pins) != 0 {
		t.Errorf("left behind: %d readers, %d snapshots, %d views", len(r.readers.active), len(r.readers.open), len(r.tail.pins))
	}
}

func BenchmarkReadFleet(b *testing.B) {
	r := newSizedRig(b, Options{Bytes: 1 << 40}, 64<<20)
	const fleet, rows = 1000, 3600
	hs, cs := devices(rand.New(rand.NewPCG(1, 1)), fleet, 12, rows/12)
	r.fill(hs, cs)
	r.roll()
	var wants []Want
	seen := map[holdfast.AssignmentID]bool{}
	for _, h := range hs {
		if !seen[h.Assignment] {
			seen[h.Assignment] = true
			wants = append(wants, Want{h.Assignment, testStream(1), holdfast.Always})
		}
	}
	sum := 0.0
	for b.Loop() {
		n := 0
		for x, err := range r.Read(b.Context(), wants) {
			if err != nil {
				b.Fatal(err)
			}
			for _, v := range x.Columns.Numbers[x.From:x.To] {
				sum += v
			}
			n += x.To - x.From
		}
		if n != fleet*rows {
			b.Fatal(n, "rows")
		}
	}
	b.ReportMetric(float64(b.N)*fleet*rows/b.Elapsed().Seconds()/1e6, "Mreadings/s")
}
