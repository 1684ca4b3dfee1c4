package series

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// A limit by arrival shows all that says it was taken since then, and nothing that
// truly arrived before: from chunks, from those that straddle the limit, from what
// a merge laid together, and from the tail; by rows, by the minute and counted.
func TestSince(t *testing.T) {
	rng := newRNG(t)
	r := newRig(t, Options{})
	a, s := holdfast.AssignmentID{1}, holdfast.StreamID{2}
	arrived := map[int64]int64{} // by time, which no two share
	at := int64(testArrival)
	send := func(n int) {
		for range n {
			at += 1 + rng.Int64N(int64(20*time.Second))
			var rows []Row
			for range 1 + rng.IntN(40) {
				x := at - rng.Int64N(int64(time.Minute))
				if rng.IntN(10) == 0 {
					x = at - rng.Int64N(int64(24*time.Hour)) // out of a spool
				}
				if _, twice := arrived[x]; !twice {
					arrived[x] = at
					rows = append(rows, Row{Stream: s, Reading: holdfast.Reading{Time: x, Value: holdfast.NumberValue(float64(x))}})
				}
			}
			r.append(Header{Assignment: a, Bucket: seal.BucketOf(at, true), Arrival: at}, &Content{Rows: rows})
		}
	}
	first := at
	check := func(when string) {
		t.Helper()
		edges := []int64{0, first, at, at + 1, at + int64(48*time.Hour)}
		for range 20 {
			edges = append(edges, first+rng.Int64N(at-first))
		}
		for _, since := range edges {
			want := Want{Assignment: a, Stream: s, Span: holdfast.Always, Since: since}
			shown := map[int64]bool{}
			rows := r.read([]Want{want})[0]
			for i, x := range rows {
				if shown[x.Time] = true; arrived[x.Time] < since {
					t.Fatalf("%s, since %d: a reading is shown that arrived %d before", when, since, since-arrived[x.Time])
				}
				if i > 0 && x.Time <= rows[i-1].Time {
					t.Fatalf("%s, since %d: out of order", when, since)
				}
			}
			for x := range arrived {
				if x >= since && !shown[x] {
					t.Fatalf("%s, since %d: a reading taken %d later is withheld", when, since, x-since)
				}
			}
			counted := 0
			want.Minutes = true
			for b, err := range r.Read(t.Context(), []Want{want}) {
				r.must(err)
				if b.Minutes == nil {
					counted += b.To - b.From
					continue
				}
				for i := b.From; i < b.To; i++ {
					counted += int(b.Minutes.At(i).Rows)
				}
			}
			x, err := r.Extent(t.Context(), a, s, since)
			r.must(err)
			if counted != len(rows) || x.Rows != uint64(len(rows)) {
				t.Fatalf("%s, since %d: %d rows, by the minute %d, counted %d", when, since, len(rows), counted, x.Rows)
			}
		}
	}
	send(30)
	check("in the tail")
	for range 4 {
		r.must(r.Roll(t.Context()))
		send(30)
		check("rolled in part")
	}
	r.must(r.Roll(t.Context()))
	check("rolled")
	r.must(r.Merge(t.Context()))
	check("merged")
}

// What a device's clock says of a marked reading is not believed.
func TestSinceAndAWrongClock(t *testing.T) {
	r := newRig(t, Options{})
	a, s := holdfast.AssignmentID{1}, holdfast.StreamID{2}
	day := int64(24 * time.Hour)
	for i := range int64(3) {
		arrival := testArrival + i*day
		rows := []Row{{Stream: s, Reading: holdfast.Reading{Time: arrival, Value: holdfast.NumberValue(1)}}}
		if i == 0 {
			rows = append(rows, Row{Stream: s, Reading: holdfast.Reading{Time: arrival + 1000*day, Mark: holdfast.Clock, Value: holdfast.NumberValue(2)}})
		}
		r.append(Header{Assignment: a, Bucket: seal.BucketOf(arrival, false), Arrival: arrival}, &Content{Rows: rows})
	}
	r.must(r.Roll(t.Context()))
	got := r.read([]Want{{Assignment: a, Stream: s, Span: holdfast.Always, Since: testArrival + day}})[0]
	want := []int64{testArrival + day, testArrival + 2*day}
	times := []int64{}
	for _, x := range got {
		times = append(times, x.Time)
	}
	if !slices.Equal(times, want) {
		t.Errorf("shown: %v, want %v", times, want)
	}
}
