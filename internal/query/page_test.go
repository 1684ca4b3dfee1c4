package query_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// text is a row as one line, to compare pages with the whole.
func text(r query.Row) string {
	if r.Window == nil {
		return fmt.Sprint(r.DeviceName, r.Stream, r.Time, r.Seq, r.Value)
	}
	n, _ := r.Window.Value(query.Count)
	f, _ := r.Window.Value(query.First)
	return fmt.Sprint(r.DeviceName, r.Stream, r.Window.Start, r.Window.End, n, f)
}

func texts(rows []query.Row) (all []string) {
	for _, r := range rows {
		all = append(all, text(r))
	}
	return all
}

// TestPages: pages of any length, over streams, windows and equal times, are the
// whole, each row once.
func TestPages(t *testing.T) {
	h := querytest.Build(t)
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 1))
	for _, label := range []string{"a", "b", "c"} {
		d := h.Device(custody.DeviceSpec{Label: label})
		for range 3 {
			var batch []holdfast.Sample
			for i := range 12 {
				s := number([]string{"x", "y"}[draw.IntN(2)], time.Duration(draw.IntN(6))*time.Second, float64(i+draw.IntN(1000)))
				batch = append(batch, s)
			}
			h.Send(d, batch...)
			if draw.IntN(2) == 0 {
				h.Roll()
			}
		}
	}
	base := ask(h.Admin, query.Selection{Party: h.Acme})
	windows := base
	windows.Span = holdfast.Span{From: noon.Add(-time.Hour).UnixNano(), To: noon.Add(time.Hour).UnixNano()}
	windows.Every, windows.Aggregates = 2*time.Second, []query.Aggregate{query.Mean}
	ends := windows // a span that ends within a window
	ends.Span = holdfast.Span{From: noon.Add(time.Second).UnixNano(), To: noon.Add(4 * time.Second).UnixNano()}
	for _, r := range []query.Request{base, windows, ends} {
		rows, res := collect(t, h.Query, r)
		if len(rows) < 6 || res.Cursor() != "" {
			t.Fatal(len(rows), res.Cursor())
		}
		for _, limit := range []int{1, 2, 3, 7, len(rows) - 1, len(rows), len(rows) + 1} {
			var got []query.Row
			page := r
			for page.Limit = limit; ; page.Span = (holdfast.Span{}) {
				rows, res := collect(t, h.Query, page)
				got = append(got, rows...)
				if page.Cursor = res.Cursor(); page.Cursor == "" {
					break
				}
				if len(rows) != limit || len(got) > 200 {
					t.Fatalf("limit %d: a page of %d", limit, len(rows))
				}
			}
			if diff := cmp.Diff(texts(rows), texts(got)); diff != "" {
				t.Errorf("every %v, limit %d: %s", r.Every, limit, diff)
			}
		}
	}
}

// TestLateBetweenPages: what arrives between two pages changes nothing of what
// the first page gave, and what lies ahead is in the next.
func TestLateBetweenPages(t *testing.T) {
	h := querytest.Build(t)
	d := h.Device(custody.DeviceSpec{Label: "press"})
	h.Send(d, number("load", 1, 1), number("load", 2, 2), number("load", 2, 3), number("load", 2, 4))
	r := ask(h.Admin, query.Selection{Device: d.ID})
	r.Limit = 2
	first, res := collect(t, h.Query, r)
	h.Send(d, number("load", 0, 10), number("load", 2, 5), number("load", 3, 6))
	h.Roll()
	r.Limit, r.Cursor = 0, res.Cursor()
	second, _ := collect(t, h.Query, r)
	want := map[string][]float64{"press/load": {1, 2, 3, 4, 5, 6}}
	if diff := cmp.Diff(want, values(append(first, second...))); diff != "" {
		t.Error(diff)
	}
	// A reader who leaves in the middle goes on where he left.
	r.Cursor = ""
	if res, err := h.Query.Read(t.Context(), r); err != nil {
		t.Fatal(err)
	} else {
		for range res.Rows {
			break
		}
		r.Cursor = res.Cursor()
	}
	rest, _ := collect(t, h.Query, r)
	if diff := cmp.Diff(map[string][]float64{"press/load": {1, 2, 3, 4, 5, 6}}, values(rest)); diff != "" {
		t.Error(diff)
	}
}

// TestCursorsBelongToRequests: a cursor of another request is refused, and one
// that somebody made up gives no right.
func TestCursorsBelongToRequests(t *testing.T) {
	h := querytest.Build(t)
	anna := h.Party("Anna")
	d := h.Device(custody.DeviceSpec{Label: "watch", Owner: anna.Party})
	h.Send(d, number("heart", 0, 1), number("heart", 1, 2))
	r := ask(anna, query.Selection{Device: d.ID})
	r.Limit = 1
	_, res := collect(t, h.Query, r)
	r.Cursor = res.Cursor()
	other := r
	other.Stream = "heart"
	refused(t, h.Query, holdfast.Invalid, other)
	other = r
	other.Every, other.Aggregates = time.Second, []query.Aggregate{query.Sum}
	refused(t, h.Query, holdfast.Invalid, other)
	other = r
	other.Cursor = r.Cursor[:len(r.Cursor)-1]
	refused(t, h.Query, holdfast.Invalid, other)
	other = r
	other.Who = h.Admin
	refused(t, h.Query, holdfast.Invalid, other)
}

// TestWrongRequests: each is refused, with a text that says why.
func TestWrongRequests(t *testing.T) {
	h := querytest.Build(t)
	d := h.Device(custody.DeviceSpec{Label: "press"})
	h.Send(d, querytest.At("state", noon, holdfast.TextValue("on")))
	base := ask(h.Admin, query.Selection{Device: d.ID, Stream: "state"})
	for name, c := range map[string]struct {
		kind   holdfast.Kind
		change func(*query.Request)
	}{
		"nothing selected":    {holdfast.Invalid, func(r *query.Request) { r.Selection = query.Selection{} }},
		"two selections":      {holdfast.Invalid, func(r *query.Request) { r.Party = h.Acme }},
		"stream of no device": {holdfast.NotFound, func(r *query.Request) { r.Selection = query.Selection{Party: h.Acme, Stream: "x"} }},
		"a name nobody has":   {holdfast.Invalid, func(r *query.Request) { r.Stream = "a+b" }},
		"stream of nothing":   {holdfast.Invalid, func(r *query.Request) { r.Selection = query.Selection{Stream: "x"} }},
		"groups of readings":  {holdfast.Invalid, func(r *query.Request) { r.By = query.Together }},
		"filled readings":     {holdfast.Invalid, func(r *query.Request) { r.Fill = query.FillNull }},
		"two lengths": {holdfast.Invalid, func(r *query.Request) {
			r.Every, r.Calendar.Days, r.Aggregates = time.Hour, 1, []query.Aggregate{query.Count}
		}},
		"days and months": {holdfast.Invalid, func(r *query.Request) {
			r.Calendar, r.Aggregates = query.Calendar{Days: 1, Months: 1}, []query.Aggregate{query.Count}
		}},
		"rate of texts": {holdfast.Invalid, func(r *query.Request) { r.Calendar.Months, r.Aggregates = 12, []query.Aggregate{query.Rate} }},
		"quantile of texts": {holdfast.Invalid, func(r *query.Request) {
			r.Calendar.Months, r.Aggregates = 12, []query.Aggregate{query.Quantile(500_000)}
		}},
		"span backwards":       {holdfast.Invalid, func(r *query.Request) { r.Span = holdfast.Span{From: 2, To: 1} }},
		"negative limit":       {holdfast.Invalid, func(r *query.Request) { r.Limit = -1 }},
		"windows of nothing":   {holdfast.Invalid, func(r *query.Request) { r.Every = time.Second }},
		"aggregates of no":     {holdfast.Invalid, func(r *query.Request) { r.Aggregates = []query.Aggregate{query.Count} }},
		"unknown aggregate":    {holdfast.Invalid, func(r *query.Request) { r.Every, r.Aggregates = time.Hour, []query.Aggregate{99} }},
		"sum of texts":         {holdfast.Invalid, func(r *query.Request) { r.Every, r.Aggregates = 24*time.Hour, []query.Aggregate{query.Sum} }},
		"too many windows":     {holdfast.TooLarge, func(r *query.Request) { r.Every, r.Aggregates = time.Second, []query.Aggregate{query.Count} }},
		"a purpose of nothing": {holdfast.Denied, func(r *query.Request) { r.Purpose = "profit" }},
	} {
		t.Run(name, func(t *testing.T) {
			r := base
			c.change(&r)
			refused(t, h.Query, c.kind, r)
		})
	}
}
