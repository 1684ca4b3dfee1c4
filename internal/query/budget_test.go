package query_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// budgeted makes another Query over a house's keepers.
func budgeted(h *querytest.House, o query.Options) *query.Query {
	if o.Now == nil {
		o.Now = h.Now
	}
	return query.New(h.Custody, h.Register, h.Series, o)
}

// TestLittleMemoryIsUsedInTurns: windows of a group that don't fit at once are the
// same ones, and sketches that outgrow what they were taken for make the turns
// shorter; on many cores, too.
func TestLittleMemoryIsUsedInTurns(t *testing.T) {
	cores := runtime.GOMAXPROCS(8) // each takes memory
	defer runtime.GOMAXPROCS(cores)
	h := querytest.Build(t)
	draw := rand.New(rand.NewPCG(1, 9))
	for i := range 3 {
		d := h.Device(custody.DeviceSpec{Label: fmt.Sprint("d", i)})
		var batch []holdfast.Sample
		for k := range 4000 {
			batch = append(batch, number("x", time.Duration(k)*time.Second, math.Exp(50*draw.NormFloat64())))
		}
		h.Send(d, batch...)
	}
	r := ask(h.Admin, query.Selection{Party: h.Acme, Stream: "x"})
	r.Span = holdfast.Span{From: noon.UnixNano(), To: noon.Add(2 * time.Hour).UnixNano()}
	r.Every, r.By, r.Aggregates = 2*time.Second, query.Together, asked
	want, _ := saidOf(t, h.Query, r)
	small := budgeted(h, query.Options{Budget: query.Budget{Memory: 40 << 20, Query: 3 << 20}})
	if got, _ := saidOf(t, small, r); !slices.Equal(got, want) {
		t.Error(gocmp.Diff(want, got))
	}
	r.Every = 5 * time.Minute
	want, _ = saidOf(t, h.Query, r)
	smaller := budgeted(h, query.Options{Budget: query.Budget{Memory: 40 << 20, Query: 2<<20 + 600<<10}})
	if got, _ := saidOf(t, smaller, r); !slices.Equal(got, want) {
		t.Error(gocmp.Diff(want, got))
	}
}

// TestFewAmongManyWindows: of the millions of minutes of some years only those with
// readings cost anything, in dense stretches and in sparse ones, and be they rolled or
// not. Taken one part after the other for the worst case, they took minutes.
func TestFewAmongManyWindows(t *testing.T) {
	h := querytest.Build(t)
	for i := range 3 {
		d := h.Device(custody.DeviceSpec{Label: fmt.Sprint("d", i)})
		var batch []holdfast.Sample
		for k := range 9000 {
			batch = append(batch, number("x", -time.Duration(k)*time.Minute*time.Duration(1+i), float64(k%17)))
		}
		for year := range 6 {
			batch = append(batch, number("x", -time.Duration(year)*365*24*time.Hour, 1))
		}
		h.Send(d, batch...)
	}
	r := ask(h.Admin, query.Selection{Party: h.Acme, Stream: "x"})
	r.Span = holdfast.Span{From: noon.AddDate(-6, 0, 0).UnixNano(), To: noon.UnixNano()}
	r.Every, r.By, r.Aggregates = time.Minute, query.Together, asked
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second) // a few seconds; five times that under the race detector
	defer cancel()
	for _, rolled := range []bool{false, true} {
		if rolled {
			h.Roll()
		}
		want, _ := saidOf(t, h.Query, r)
		small := budgeted(h, query.Options{Budget: query.Budget{Memory: 40 << 20, Query: 3 << 20}})
		if got, _ := saidOf(t, small, r); !slices.Equal(got, want) {
			t.Error(gocmp.Diff(want, got))
		}
		if err := ctx.Err(); err != nil {
			t.Fatalf("rolled %t: %v", rolled, err)
		}
	}
}

// TestBudgetRefuses: what a query may not take is refused by name of the limit, with
// what would help; before it begins where it can be known then.
func TestBudgetRefuses(t *testing.T) {
	h := querytest.Build(t)
	for i := range 2 {
		d := h.Device(custody.DeviceSpec{Label: fmt.Sprint("d", i)})
		var batch []holdfast.Sample
		for k := range 1000 {
			batch = append(batch, number("x", time.Duration(k)*time.Second, float64(k)))
		}
		h.Send(d, batch...)
	}
	r := ask(h.Admin, query.Selection{Party: h.Acme, Stream: "x"})
	r.Every, r.By, r.Aggregates = time.Hour, query.Together, []query.Aggregate{query.Mean}
	r.Span = holdfast.Span{From: noon.UnixNano(), To: noon.Add(2 * time.Hour).UnixNano()}
	if msg := refused(t, budgeted(h, query.Options{Budget: query.Budget{Query: 1 << 20}}), holdfast.TooLarge, r); !strings.Contains(msg, "--query-memory") || !strings.Contains(msg, "longer windows") {
		t.Error(msg)
	}
	res, err := budgeted(h, query.Options{Budget: query.Budget{Rows: 1500}}).Read(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for row, err := range res.Rows {
		if holdfast.KindOf(err) != holdfast.TooLarge || !strings.Contains(err.Error(), "1500 readings") {
			t.Error(row, err)
		}
	}
	// Reads under way hold what they took; small ones go on, and all is given back.
	q := budgeted(h, query.Options{Budget: query.Budget{Memory: 12 << 20, Query: 8 << 20}})
	r.Every = time.Second // some 8 MiB
	first, err := q.Read(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if msg := refused(t, q, holdfast.Unavailable, r); !strings.Contains(msg, "ask again") {
		t.Error(msg)
	}
	one := r
	one.Selection, one.By = query.Selection{Party: h.Acme, Stream: "x"}, 0
	raw := one
	raw.Every, raw.Aggregates = 0, nil
	if rows, _ := collect(t, q, raw); len(rows) != 2000 {
		t.Error(len(rows))
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if rows, _ := collect(t, q, r); len(rows) != 1000 {
		t.Error(len(rows))
	}
}

// erasing is an erasure that a test begins when it likes.
type erasing struct {
	begun uint64
	over  bool // it is done: its keys are gone
	span  holdfast.Span
}

func (e *erasing) Hides(a holdfast.AssignmentID, s holdfast.StreamID, at int64) bool {
	return e.Touches(a, s, holdfast.Span{From: at, To: at})
}
func (e *erasing) Touches(_ holdfast.AssignmentID, _ holdfast.StreamID, span holdfast.Span) bool {
	return e.begun > 0 && !e.over && e.span.Overlaps(span)
}
func (e *erasing) Begun() uint64 { return e.begun }
func (e *erasing) BegunSince(n uint64, _ holdfast.AssignmentID, _ holdfast.StreamID, span holdfast.Span) bool {
	return e.begun > n && e.span.Overlaps(span)
}

// TestErasedMeanwhile: from the moment at which an erasure is asked for, nothing of
// what it covers is given out, not even as part of what was added up before, and not
// when the erasure is done already.
func TestErasedMeanwhile(t *testing.T) {
	h := querytest.Build(t)
	d := h.Device(custody.DeviceSpec{Label: "d"})
	other := h.Device(custody.DeviceSpec{Label: "e"})
	for _, d := range []custody.Device{d, other} {
		var batch []holdfast.Sample
		for k := range 600 {
			batch = append(batch, number("x", time.Duration(k)*time.Second, 1))
		}
		h.Send(d, batch...)
	}
	h.Roll()
	base := ask(h.Admin, query.Selection{Device: d.ID, Stream: "x"})
	base.Span = holdfast.Span{From: noon.UnixNano(), To: noon.Add(time.Hour).UnixNano()}
	windows := base
	windows.Every, windows.Aggregates = 10*time.Second, []query.Aggregate{query.Sum}
	group := windows
	group.Selection, group.By = query.Selection{Party: h.Acme, Stream: "x"}, query.Together
	// From the 300th second on it is erased while the first row is out.
	for name, r := range map[string]query.Request{"readings": base, "windows": windows, "a group": group} {
		for _, over := range []bool{false, true} {
			e := &erasing{span: holdfast.Span{From: noon.Add(300 * time.Second).UnixNano(), To: math.MaxInt64}}
			res, err := budgeted(h, query.Options{Erasures: e}).Read(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			var last error
			for row, err := range res.Rows {
				if last = err; err != nil {
					break
				}
				n++
				e.begun, e.over = 1, over
				if row.Window != nil && row.Window.End > e.span.From || row.Window == nil && row.Time >= e.span.From {
					t.Fatalf("%s: row %d is erased", name, n)
				}
			}
			switch {
			case r.Every == 0 && (n != 300 || last != nil):
				t.Error(name, n, last)
			case r.Every > 0 && (n != 30 || holdfast.KindOf(last) != holdfast.Unavailable):
				t.Error(name, n, last)
			}
		}
	}
	// What was being erased before is left out.
	e := &erasing{begun: 1, span: holdfast.Span{From: noon.Add(300 * time.Second).UnixNano(), To: math.MaxInt64}}
	rows, _ := collect(t, budgeted(h, query.Options{Erasures: e}), group)
	if len(rows) != 30 {
		t.Error(len(rows), "windows")
	}
}

// TestErasedMeanwhileBetween: what is said of a window may come of readings outside
// of it, those that a fill or a counter reaches to. They are not given out either.
func TestErasedMeanwhileBetween(t *testing.T) {
	h := querytest.Build(t)
	d := h.Device(custody.DeviceSpec{Label: "d"})
	h.Send(d, number("x", 30*time.Second, 100), number("x", 90*time.Second, 107), number("x", 5*time.Minute+30*time.Second, 400), number("x", 6*time.Minute+30*time.Second, 900))
	h.Roll()
	base := ask(h.Admin, query.Selection{Device: d.ID, Stream: "x"})
	base.Span = holdfast.Span{From: noon.UnixNano(), To: noon.Add(10 * time.Minute).UnixNano()}
	base.Every = time.Minute
	minute := func(m int) holdfast.Span {
		at := noon.Add(time.Duration(m) * time.Minute)
		return holdfast.Span{From: at.UnixNano(), To: at.Add(time.Minute).UnixNano() - 1}
	}
	for _, x := range []struct {
		name   string
		agg    query.Aggregate
		fill   query.Fill
		erased holdfast.Span
		after  int // windows that are given out before the erasure is asked for
	}{
		{"a line towards what is erased", query.Mean, query.FillLinear, minute(5), 2},
		{"a line from what is erased", query.Mean, query.FillLinear, minute(1), 2},
		{"what was said before", query.Mean, query.FillPrevious, minute(1), 2},
		{"a step from what is erased", query.Increase, query.NoFill, minute(0), 1},
	} {
		for _, by := range []query.Keys{0, query.Together} {
			r := base
			r.Aggregates, r.Fill, r.By = []query.Aggregate{x.agg}, x.fill, by
			e := &erasing{span: x.erased}
			res, err := budgeted(h, query.Options{Erasures: e}).Read(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			var last error
			for _, err := range res.Rows {
				if last = err; err != nil {
					break
				}
				if n++; n == x.after {
					e.begun, e.over = 1, true
				}
			}
			if n != x.after || holdfast.KindOf(last) != holdfast.Unavailable {
				t.Errorf("%s, by %d: %d windows, then %v; want %d, then Unavailable", x.name, by, n, last, x.after)
			}
		}
	}
}
