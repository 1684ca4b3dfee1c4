package query_test

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// asked is every aggregate that windows of these tests are compared by.
var asked = []query.Aggregate{query.Count, query.Sum, query.Mean, query.Min, query.Max, query.First, query.Last, query.Stddev,
	query.Increase, query.Delta, query.Rate, query.Quantile(500_000), query.Quantile(990_000)}

// said is a row as text: of what, when, and all that was asked.
func said(r query.Row, asked []query.Aggregate) string {
	s := fmt.Sprint(r.DeviceName, "/", r.Stream, "/", r.Unit, " ", r.Window.Start, " ", r.Window.Count)
	for _, a := range asked {
		v, ok := r.Window.Value(a)
		s += fmt.Sprintf(" %s=%v", a, ok)
		switch v.Type() {
		case holdfast.Number:
			s += fmt.Sprintf(":%.9g", v.Number())
		case holdfast.Integer:
			s += fmt.Sprintf(":%d", v.Integer())
		}
	}
	return s
}

func saidOf(t testing.TB, q *query.Query, r query.Request) (all []string, next string) {
	t.Helper()
	res, err := q.Read(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for row, err := range res.Rows {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, said(row, r.Aggregates))
	}
	return all, res.Cursor()
}

// fleetOf sends drawn readings of devices with a stream x each, in several rolls and
// the journal, and returns them by device.
func fleetOf(h *querytest.House, draw *rand.Rand, devices int) map[string][]holdfast.Reading {
	sent := map[string][]holdfast.Reading{}
	for i := range devices {
		label := fmt.Sprint("d", i)
		d := h.Device(custody.DeviceSpec{Label: label})
		for range 2 {
			var batch []holdfast.Sample
			for k := range 1 + draw.IntN(30) {
				at := noon.Add(time.Duration(draw.IntN(600)) * time.Second).Add(time.Duration(k) * time.Millisecond)
				f := float64(draw.IntN(1000)) / 10
				if draw.IntN(30) == 0 {
					f = math.NaN()
				}
				batch = append(batch, querytest.At("x", at, holdfast.NumberValue(f)))
				sent[label] = append(sent[label], holdfast.Reading{Time: at.UnixNano(), Value: holdfast.NumberValue(f)})
			}
			h.Send(d, batch...)
			if draw.IntN(2) == 0 {
				h.Roll()
			}
		}
		slices.SortStableFunc(sent[label], func(a, b holdfast.Reading) int { return cmp.Compare(a.Time, b.Time) })
	}
	return sent
}

// naive says what a window of a group has, from the readings of each stream.
func naive(streams [][]holdfast.Reading, start, end int64) (n int, of map[query.Aggregate]float64) {
	var values []float64
	of = map[query.Aggregate]float64{}
	type first struct {
		at int64
		f  float64
	}
	var begin, last *first
	steps := false
	for _, rows := range streams {
		before := math.NaN()
		var base, end1 float64
		var baseAt, endAt int64
		var beforeAt int64
		up, stepped := 0.0, false
		for _, r := range rows {
			f := r.Value.Number()
			if r.Time >= end {
				break
			}
			if r.Time >= start {
				n++
				values = append(values, f)
				if begin == nil || r.Time < begin.at {
					begin = &first{r.Time, f}
				}
				if last == nil || r.Time >= last.at {
					last = &first{r.Time, f}
				}
				if f == f && before == before {
					if !stepped {
						base, baseAt, stepped = before, beforeAt, true
					}
					if f >= before {
						up += f - before
					} else {
						up += f
					}
					end1, endAt = f, r.Time
				}
			}
			if f == f {
				before, beforeAt = f, r.Time
			}
		}
		if stepped {
			steps = true
			of[query.Increase] += up
			of[query.Delta] += end1 - base
			if endAt > baseAt {
				of[query.Rate] += up / (float64(endAt-baseAt) / 1e9)
			}
		}
	}
	if n == 0 {
		return 0, nil
	}
	if !steps {
		for _, a := range []query.Aggregate{query.Increase, query.Delta, query.Rate} {
			of[a] = math.Inf(-1) // nothing
		}
	}
	sum := 0.0
	for _, f := range values {
		sum += f
	}
	of[query.Sum], of[query.Mean], of[query.First], of[query.Last] = sum, sum/float64(n), begin.f, last.f
	square := 0.0
	for _, f := range values {
		square += (f - sum/float64(n)) * (f - sum/float64(n))
	}
	if of[query.Stddev] = math.Inf(-1); n > 1 {
		of[query.Stddev] = math.Sqrt(square / float64(n-1))
	}
	sorted := slices.DeleteFunc(slices.Clone(values), func(f float64) bool { return f != f })
	if of[query.Min], of[query.Max] = math.NaN(), math.NaN(); len(sorted) > 0 {
		slices.Sort(sorted)
		of[query.Min], of[query.Max] = sorted[0], sorted[len(sorted)-1]
		of[query.Quantile(500_000)] = sorted[(len(sorted)-1)/2]
		of[query.Quantile(990_000)] = sorted[(len(sorted)-1)*99/100]
	} else {
		of[query.Quantile(500_000)], of[query.Quantile(990_000)] = math.NaN(), math.NaN()
	}
	return n, of
}

// TestGroupsAgainstNaive: windows of streams and of groups say what a plain reading
// of all readings says.
func TestGroupsAgainstNaive(t *testing.T) {
	h := querytest.Build(t)
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 7))
	sent := fleetOf(h, draw, 5)
	near := func(a, b float64) bool {
		return a == b || a != a && b != b || math.Abs(a-b) <= 1e-9*(1+math.Abs(a)+math.Abs(b))
	}
	var labels []string
	var all [][]holdfast.Reading
	for i := range len(sent) {
		labels = append(labels, fmt.Sprint("d", i))
		all = append(all, sent[labels[i]])
	}
	for _, every := range []time.Duration{time.Second, 7 * time.Second, time.Minute, 5 * time.Minute, time.Hour} {
		for _, by := range []query.Keys{0, query.Together, query.Together | query.ByDevice} {
			r := ask(h.Admin, query.Selection{Party: h.Acme, Stream: "x"})
			r.Span = holdfast.Span{From: noon.UnixNano(), To: noon.Add(time.Hour).UnixNano()}
			r.Every, r.Aggregates, r.By = every, asked, by
			res, err := h.Query.Read(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			readings := 0
			for row, err := range res.Rows {
				if err != nil {
					t.Fatal(err)
				}
				streams := all
				if by != query.Together {
					streams = [][]holdfast.Reading{sent[row.DeviceName]}
				}
				n, want := naive(streams, row.Window.Start, row.Window.End)
				if uint64(n) != row.Window.Count {
					t.Fatalf("every %v by %d: %d readings at %d, want %d", every, by, row.Window.Count, row.Window.Start, n)
				}
				readings += n
				for a, want := range want {
					v, ok := row.Window.Value(a)
					if a == query.Rate && !ok && want == 0 {
						continue // over no time
					}
					if ok == math.IsInf(want, -1) || ok && !near(v.Number(), want) {
						t.Errorf("every %v by %d: %s at %d is %v %v, want %v", every, by, a, row.Window.Start, v.Number(), ok, want)
					}
				}
			}
			total := 0
			for _, rows := range all {
				total += len(rows)
			}
			if readings != total {
				t.Errorf("every %v by %d: %d readings in windows, %d sent", every, by, readings, total)
			}
		}
	}
}

// TestPagesOfAllThat: pages of any length are the whole, with groups, counters, fills
// and calendars.
func TestPagesOfAllThat(t *testing.T) {
	h := querytest.Build(t)
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 8))
	fleetOf(h, draw, 3)
	warsaw, err := query.ParseZone("Europe/Warsaw")
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		r := ask(h.Admin, query.Selection{Party: h.Acme, Stream: "x"})
		from := noon.Add(time.Duration(draw.IntN(700)-50) * time.Second).UnixNano()
		r.Span = holdfast.Span{From: from, To: from + draw.Int64N(700e9)}
		r.Every = time.Duration(5+draw.IntN(60)) * time.Second
		if draw.IntN(8) == 0 {
			r.Every, r.Calendar = 0, query.Calendar{Days: 1, Zone: warsaw}
			r.Span.From -= 5 * 86400e9
		}
		r.By = []query.Keys{0, query.Together, query.Together | query.ByDevice}[draw.IntN(3)]
		r.Fill = query.Fill(draw.IntN(5))
		r.FillValue = 7
		r.Aggregates = asked
		if draw.IntN(2) == 0 {
			r.Aggregates = []query.Aggregate{query.Mean, query.Count}
		}
		whole, next := saidOf(t, h.Query, r)
		if next != "" {
			t.Fatal("a whole answer has a cursor")
		}
		for _, limit := range []int{1, 2, 5, 1 + draw.IntN(len(whole)+1)} {
			var got []string
			page := r
			page.Limit = limit
			for {
				rows, next := saidOf(t, h.Query, page)
				got = append(got, rows...)
				if page.Cursor = next; next == "" || len(got) > 2*len(whole)+2 {
					break
				}
			}
			if diff := gocmp.Diff(whole, got); diff != "" {
				t.Fatalf("every %v by %d fill %d, %d aggregates, pages of %d: %s", r.Every, r.By, r.Fill, len(r.Aggregates), limit, diff)
			}
		}
	}
}

// TestFills: what is said of windows without readings, and of which.
func TestFills(t *testing.T) {
	h := querytest.Build(t)
	d := h.Device(custody.DeviceSpec{Label: "d"})
	h.Send(d, number("x", time.Minute, 10), number("x", 4*time.Minute, 40), querytest.At("s", noon, holdfast.TextValue("on")))
	r := ask(h.Admin, query.Selection{Device: d.ID, Stream: "x"})
	r.Span = holdfast.Span{From: noon.UnixNano(), To: noon.Add(5*time.Minute + 30*time.Second).UnixNano()}
	r.Every, r.Aggregates, r.FillValue = time.Minute, []query.Aggregate{query.Mean, query.Count}, -1
	for fill, want := range map[query.Fill][]string{
		query.NoFill:       {"1 10 1", "4 40 1"},
		query.FillNull:     {"0 - 0", "1 10 1", "2 - 0", "3 - 0", "4 40 1", "5 - 0"},
		query.FillPrevious: {"0 - 0", "1 10 1", "2 10 0", "3 10 0", "4 40 1", "5 40 0"},
		query.FillLinear:   {"0 - 0", "1 10 1", "2 20 0", "3 30 0", "4 40 1", "5 - 0"},
		query.FillConstant: {"0 -1 0", "1 10 1", "2 -1 0", "3 -1 0", "4 40 1", "5 -1 0"},
	} {
		r.Fill = fill
		res, err := h.Query.Read(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for row, err := range res.Rows {
			if err != nil {
				t.Fatal(err)
			}
			mean, ok := row.Window.Value(query.Mean)
			text := "-"
			if ok {
				text = fmt.Sprint(mean.Number())
			}
			n, _ := row.Window.Value(query.Count)
			got = append(got, fmt.Sprintf("%d %s %d", (row.Window.Start-noon.UnixNano())/60e9, text, n.Integer()))
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("fill %d: %s", fill, diff)
		}
	}
	r.Fill, r.Span = query.FillNull, holdfast.Always
	r.Every = time.Hour
	if msg := refused(t, h.Query, holdfast.TooLarge, func() query.Request { r.Every = time.Second; return r }()); msg == "" {
		t.Error(msg)
	}
	// Nothing is said of the time to come, or of a stream that says nothing.
	r.Every = 24 * time.Hour
	r.Span.From = noon.UnixNano()
	if rows, _ := collect(t, h.Query, r); len(rows) == 0 || rows[len(rows)-1].Window.Start > h.Now().UnixNano() {
		t.Error(len(rows), "windows")
	}
	r.Span = holdfast.Span{From: noon.Add(-time.Hour).UnixNano(), To: noon.Add(-time.Minute).UnixNano()}
	r.Every = time.Minute
	if rows, _ := collect(t, h.Query, r); len(rows) > 0 {
		t.Error("a stream without readings has", len(rows), "windows")
	}
}

// TestGroupsKeepWhatIsRefusedApart: a group holds what may be read, units apart, and
// each owner's record has what came of his readings.
func TestGroupsKeepWhatIsRefusedApart(t *testing.T) {
	h := querytest.Build(t)
	bob := h.Party("Bob")
	h.Purpose("research")
	own := h.Device(custody.DeviceSpec{Label: "own"})
	about := h.Device(custody.DeviceSpec{Label: "about", Subject: bob.Party})
	other := h.Device(custody.DeviceSpec{Label: "other"})
	h.Send(own, number("x", 0, 1), number("x", time.Second, 3))
	h.Send(about, number("x", 0, 100), number("x", 2*time.Second, 300), number("x", 3*time.Second, 500))
	h.Send(other, holdfast.Sample{Stream: "x", Time: noon.UnixNano(), Timed: true, Value: holdfast.NumberValue(50), Unit: "K"})
	r := ask(h.Admin, query.Selection{Party: h.Acme, Stream: "x"})
	r.Every, r.Aggregates, r.By = time.Hour, []query.Aggregate{query.Sum}, query.Together
	sums := func(r query.Request) map[string]float64 {
		t.Helper()
		rows, res := collect(t, h.Query, r)
		got := map[string]float64{"withheld": float64(res.Withheld)}
		for _, row := range rows {
			v, _ := row.Window.Value(query.Sum)
			got[fmt.Sprint(row.Unit, row.Streams)] = v.Number()
		}
		return got
	}
	if diff := gocmp.Diff(map[string]float64{"1": 4, "K1": 50, "withheld": 1}, sums(r)); diff != "" {
		t.Error(diff)
	}
	grantOf := func(who access.Principal) {
		h.Grant(who, grant.Spec{Recipient: h.Acme, Purpose: "research", AllDevices: true, AllStreams: true,
			Data: holdfast.Span{From: noon.UnixNano(), To: noon.Add(2 * time.Second).UnixNano()}, Until: h.Now().Add(time.Hour)})
	}
	grantOf(bob)
	r.Who, r.Purpose = h.Program(h.Acme, "research"), "research"
	if diff := gocmp.Diff(map[string]float64{"2": 404, "K1": 50, "withheld": 0}, sums(r)); diff != "" {
		t.Error(diff)
	}
	for party, want := range map[holdfast.PartyID]uint64{bob.Party: 2, h.Acme: 3} {
		all, err := h.Register.Disclosures(t.Context(), party)
		if err != nil {
			t.Fatal(err)
		}
		n := uint64(0)
		for _, d := range all {
			if d.Purpose == "research" {
				n += d.Rows
			}
		}
		if n != want {
			t.Errorf("%d readings on the record, want %d", n, want)
		}
	}
}

// TestGroupEndsWithARight: when one stream's right ends, the windows that it is in
// are given no more.
func TestGroupEndsWithARight(t *testing.T) {
	h := querytest.Build(t)
	bob := h.Party("Bob")
	h.Purpose("research")
	about := h.Device(custody.DeviceSpec{Label: "about", Subject: bob.Party})
	own := h.Device(custody.DeviceSpec{Label: "own"})
	for _, d := range []custody.Device{about, own} {
		var batch []holdfast.Sample
		for i := range 500 {
			batch = append(batch, number("x", time.Duration(i)*time.Second, 1))
		}
		h.Send(d, batch...)
	}
	g := h.Grant(bob, grant.Spec{Recipient: h.Acme, Purpose: "research", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: h.Now().Add(time.Hour)})
	r := ask(h.Program(h.Acme, "research"), query.Selection{Party: h.Acme, Stream: "x"})
	r.Purpose, r.Every, r.Aggregates, r.By = "research", time.Second, []query.Aggregate{query.Sum}, query.Together
	r.Span = holdfast.Span{From: noon.UnixNano(), To: noon.Add(time.Hour).UnixNano()}
	res, err := h.Query.Read(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	var last error
	for _, err := range res.Rows {
		if last = err; err != nil {
			break
		}
		if n++; n == 10 {
			if err := h.Register.End(context.Background(), h.Caller(bob), g.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if holdfast.KindOf(last) != holdfast.Denied || n > 64 {
		t.Error(n, "windows, then", last)
	}
}
