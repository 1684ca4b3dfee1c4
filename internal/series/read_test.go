package series

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// merged is what Scan gives by the clear way: all sources merged reading by
// reading.
func (r *rig) merged(o of, span holdfast.Span) (out []holdfast.Reading) {
	r.t.Helper()
	v, err := r.snapshot(r.t.Context(), streamName{o.a, o.s}, span, 0)
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
			wants = append(wants, Want{Assignment: o.a, Stream: o.s, Span: span})
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
		wants = append(wants, Want{Assignment: alice, Stream: testStream(n), Span: holdfast.Always})
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
			wants = append(wants, Want{Assignment: h.Assignment, Stream: testStream(1), Span: holdfast.Always})
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

// stretches are readings of one type by the minute.
func stretches(rows []holdfast.Reading) (out []chunk.Stretch) {
	for len(rows) > 0 {
		var c chunk.Columns
		c.Reset(rows[0].Value.Type())
		n := 0
		for n < len(rows) && chunk.MinuteOf(rows[n].Time) == chunk.MinuteOf(rows[0].Time) {
			if err := c.Append(rows[n]); err != nil {
				panic(err)
			}
			n++
		}
		out = append(out, c.Stretch(0, n))
		rows = rows[n:]
	}
	return out
}

// byMinutes is what Read says of a stream by the minute, and how many minutes came
// as summaries.
func (r *rig) byMinutes(o of, span holdfast.Span) (out []chunk.Stretch, stored int) {
	r.t.Helper()
	var rows []holdfast.Reading
	for b, err := range r.Read(r.t.Context(), []Want{{Assignment: o.a, Stream: o.s, Span: span, Minutes: true}}) {
		r.must(err)
		for i := b.From; i < b.To; i++ {
			if b.Minutes == nil {
				rows = append(rows, b.Columns.Reading(i))
				continue
			}
			out = append(append(out, stretches(rows)...), b.Minutes.At(i))
			rows = rows[:0]
			stored++
		}
	}
	return append(out, stretches(rows)...), stored
}

// TestSummariesAgreeWithTheRows: bit for bit, whatever overlaps, repeats, and does
// not add up.
func TestSummariesAgreeWithTheRows(t *testing.T) {
	rng := newRNG(t)
	r := newSizedRig(t, Options{}, 1<<20)
	odd := []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 0, 1e308, -1e308, math.Float64frombits(0x7ff8dead00000001), 5e-324}
	value := func(kind byte) holdfast.Value {
		switch kind {
		case 0:
			return holdfast.NumberValue(float64(rng.IntN(1000)) / 10)
		case 1:
			if rng.IntN(30) == 0 {
				return holdfast.NumberValue(odd[rng.IntN(len(odd))])
			}
			return holdfast.NumberValue(rng.NormFloat64())
		case 2:
			return holdfast.IntegerValue(int64(rng.Uint64()) >> rng.IntN(60))
		case 3:
			return holdfast.IntegerValue([]int64{math.MaxInt64, math.MinInt64, 0}[rng.IntN(3)])
		}
		return holdfast.BooleanValue(rng.IntN(3) == 0)
	}
	at := int64(testArrival)
	for round := range 6 {
		for kind := range byte(5) {
			t := at + rng.Int64N(60e9)
			var rows []holdfast.Reading
			for range 1500 + rng.IntN(4000) {
				x := holdfast.Reading{Time: t, Value: value(kind)}
				rows = append(rows, x)
				if rng.IntN(200) == 0 {
					rows = append(rows, x) // a repeat
				}
				if t += rng.Int64N(2e9); rng.IntN(3000) == 0 {
					t += rng.Int64N(1e12)
				}
			}
			r.send(alice, testStream(kind), at, rows...)
			if rng.IntN(4) == 0 { // late, in the middle of what was sent
				r.send(alice, testStream(kind), at, rows[len(rows)/2], holdfast.Reading{Time: rows[10].Time + 1, Value: value(kind)})
			}
		}
		at += 3600e9 * (1 + rng.Int64N(3))
		if round != 5 {
			r.roll()
		}
		if round == 3 {
			r.merge()
		}
	}
	stored := 0
	for n := 0; n < 12 || stored < 300; n++ { // as many as show something
		if n == 400 {
			t.Fatalf("%d minutes came as summaries", stored)
		}
		for kind := range byte(5) {
			o := of{alice, testStream(kind)}
			all := r.want(o, holdfast.Always)
			span := holdfast.Always
			if n > 0 {
				span.From, span.To = all[rng.IntN(len(all))].Time, all[rng.IntN(len(all))].Time
			}
			if n%3 == 1 && span.From < span.To {
				span.From, span.To = chunk.MinuteOf(span.From), chunk.MinuteOf(span.To)-1
			}
			got, summaries := r.byMinutes(o, span)
			stored += summaries
			if want := stretches(r.want(o, span)); !slices.EqualFunc(got, want, sameStretch) {
				t.Fatalf("kind %d, span %v: %d minutes, %d of them stored, want %d", kind, span, len(got), summaries, len(want))
			}
		}
	}
	r.tidy("the end")
}

// sameStretch compares numbers by their bits.
func sameStretch(a, b chunk.Stretch) bool {
	numbers := func(s chunk.Stretch) [3]holdfast.Value {
		return [3]holdfast.Value{holdfast.NumberValue(s.Total), holdfast.NumberValue(s.Low), holdfast.NumberValue(s.High)}
	}
	na, nb := numbers(a), numbers(b)
	a.Total, a.Low, a.High, b.Total, b.Low, b.High = 0, 0, 0, 0, 0, 0
	return a == b && na == nb
}
