package query_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// oracle knows what a follower must get: every reading that repeats none before it,
// once, those of a stream in the order in which records came.
type oracle struct {
	sent map[string][]holdfast.Reading // by stream, first occurrences in order
}

func (o *oracle) take(stream string, r holdfast.Reading) {
	if !slices.ContainsFunc(o.sent[stream], r.Repeats) {
		o.sent[stream] = append(o.sent[stream], r)
	}
}

// A follower that loses its connection anywhere gets each reading once, whatever is
// sent late, again or out of order, and whatever rolls, merges and restarts come between.
func TestFollowersGetEachReadingOnce(t *testing.T) {
	seed, steps := testseed.Of(t), 150
	if os.Getenv("HOLDFAST_LONG") != "" {
		steps = 5000
	}
	draw := rand.New(rand.NewPCG(seed, 0))
	h := querytest.Build(t)
	anna := h.Party("Anna Kowalska")
	devices := []custody.Device{
		h.Device(custody.DeviceSpec{Label: "one", Owner: anna.Party}),
		h.Device(custody.DeviceSpec{Label: "two", Owner: anna.Party}),
	}
	zero := h.Now().Add(-time.Hour)
	o := oracle{sent: map[string][]holdfast.Reading{}}
	clock := 0
	var old []holdfast.Sample
	send := func() {
		d := draw.IntN(len(devices))
		var batch []holdfast.Sample
		for range 1 + draw.IntN(4) {
			var at int
			switch draw.IntN(8) {
			case 0: // late
				at = draw.IntN(clock + 1)
			case 1: // from the future
				at = clock + 50
			default:
				clock++
				at = clock
			}
			x := querytest.At(fmt.Sprintf("d%d-s%d", d, draw.IntN(3)), zero.Add(time.Duration(at)*time.Second), holdfast.NumberValue(float64(draw.IntN(3))))
			if len(old) > 0 && draw.IntN(5) == 0 { // again
				if y := old[draw.IntN(len(old))]; y.Stream[:2] == fmt.Sprintf("d%d", d) {
					x = y
				}
			}
			batch = append(batch, x)
		}
		old = append(old, batch...)
		h.Send(devices[d], batch...)
		// Of one record those of a stream come in order of time.
		slices.SortStableFunc(batch, func(a, b holdfast.Sample) int { return int(a.Time - b.Time) })
		for _, x := range batch {
			o.take(x.Stream, holdfast.Reading{Time: x.Time, Value: x.Value})
		}
	}
	for range 20 {
		send()
	}
	ask := query.Follow{Who: anna, Selection: query.Selection{Party: anna.Party}, From: 1, Idle: 20 * time.Millisecond}
	got := map[string][]holdfast.Reading{}
	snapshot := map[string]int{} // how much of a stream comes in order of time
	begin := func() {
		for s, rows := range o.sent {
			snapshot[s] = len(rows)
		}
	}
	begin()
	r := follow(t, h, ask)
	read := func(most int) {
		for range most {
			item, err, ok := r.next()
			if err != nil || !ok {
				t.Fatalf("the feed ended: %v", err)
			}
			r.cursor = item.Cursor
			if item.Reset != "" {
				t.Fatalf("the cursor was reset: %s", item.Reset)
			}
			if item.Row == nil {
				return
			}
			x := item.Row.Reading
			x.Mark = 0
			got[item.Row.Stream] = append(got[item.Row.Stream], x)
		}
	}
	check := func() {
		t.Helper()
		for s, rows := range o.sent {
			want := slices.Clone(rows)
			slices.SortStableFunc(want[:snapshot[s]], func(a, b holdfast.Reading) int { return int(a.Time - b.Time) })
			if !slices.Equal(got[s], want) {
				n := 0
				for n < len(want) && n < len(got[s]) && want[n] == got[s][n] {
					n++
				}
				t.Fatalf("%s: %d readings came, want %d; from number %d on %v, want %v", s, len(got[s]), len(want), n, got[s][n:min(n+5, len(got[s]))], want[n:min(n+5, len(want))])
			}
		}
	}
	for range steps {
		switch n := draw.IntN(20); {
		case n < 9:
			send()
		case n < 15:
			read(draw.IntN(12))
		case n < 18: // the connection breaks
			r.close()
			if r.cursor != "" {
				ask.After = r.cursor
			}
			cursor := r.cursor
			if draw.IntN(6) == 0 {
				h.Restart()
			}
			for range draw.IntN(8) {
				send()
			}
			if ask.After == "" { // nothing came of the first one
				begin()
			}
			r = follow(t, h, ask)
			r.cursor = cursor
		case n < 19:
			h.Roll()
		default:
			if draw.IntN(3) == 0 {
				if err := h.Series.Merge(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	read(1 << 20)
	check()
}
