package query_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// lent is a house in which Anna lets a lab read all of hers, obliged to something.
type lent struct {
	*querytest.House
	anna, lab access.Principal
	zero      time.Time // a whole day of UTC, when the readings begin
}

func lend(t testing.TB, o policy.Obligations) *lent {
	t.Helper()
	h := &lent{House: querytest.Build(t)}
	h.zero = h.Now().UTC().Truncate(24 * time.Hour).Add(-48 * time.Hour)
	h.Purpose("research")
	h.anna = h.Party("Anna Kowalska")
	h.lab = h.Program(h.Party("Sleep Lab").Party, "research")
	h.lend(o, holdfast.Always)
	return h
}

func (h *lent) lend(o policy.Obligations, data holdfast.Span) grant.Grant {
	return h.Grant(h.anna, grant.Spec{
		Recipient: h.lab.Party, Purpose: "research", AllDevices: true, AllStreams: true, Data: data, Until: h.Now().AddDate(1, 0, 0), Obligations: o,
	})
}

func (h *lent) device(label string) custody.Device {
	return h.Device(custody.DeviceSpec{Label: label, Owner: h.anna.Party})
}

func (h *lent) at(after time.Duration, stream string, v holdfast.Value) holdfast.Sample {
	return querytest.At(stream, h.zero.Add(after), v)
}

func (h *lent) span(from, to time.Duration) holdfast.Span {
	return holdfast.Span{From: h.zero.Add(from).UnixNano(), To: h.zero.Add(to).UnixNano()}
}

// sayRow is all that a row says but of which device it is.
func sayRow(r query.Row, aggregates []query.Aggregate) string {
	s := fmt.Sprint(r.Stream, r.Unit, r.Source.Type, r.Streams, " ")
	if r.Window == nil {
		return s + fmt.Sprint(r.Time, shown(r.Reading.Value), r.Seq, r.Mark)
	}
	s += fmt.Sprint(r.Window.Start, r.Window.End, r.Window.Count)
	for _, a := range aggregates {
		v, ok := r.Window.Value(a)
		s += fmt.Sprint(" ", a, "=", shown(v), ok)
	}
	return s
}

// shown is a value, bit for bit.
func shown(v holdfast.Value) string {
	if v.Type() == holdfast.Location {
		p := v.Position()
		return fmt.Sprintf("%x %x %x", math.Float64bits(p.Latitude), math.Float64bits(p.Longitude), math.Float64bits(p.Altitude))
	}
	return fmt.Sprintf("%x %q %x", math.Float64bits(v.Number()), v.Text(), v.Bytes())
}

// pages reads all pages of a request; the answer ends with an error if there is one.
func (h *lent) pages(t testing.TB, r query.Request) (all []string) {
	t.Helper()
	for range 500 {
		res, err := h.Query.Read(t.Context(), r)
		if err != nil {
			return append(all, err.Error())
		}
		for row, err := range res.Rows {
			if err != nil {
				return append(all, err.Error())
			}
			all = append(all, sayRow(row, r.Aggregates))
		}
		if r.Cursor = res.Cursor(); r.Cursor == "" {
			return all
		}
	}
	t.Fatal("there is no end of pages")
	return nil
}

// adversary asks whatever comes to his mind.
type adversary struct {
	*rand.Rand
	h     *lent
	every time.Duration     // he knows what the obligation says
	said  []query.Aggregate // what it lets out; none: all
}

var zones = []string{"UTC", "Europe/Warsaw", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe"}

func (d *adversary) request(t testing.TB, stream string) query.Request {
	from := time.Duration(d.Int64N(int64(22*time.Hour))) - 2*time.Hour
	to := from + time.Duration(d.Int64N(int64(30*time.Hour)))
	if d.IntN(3) > 0 { // ends of windows, and a little beside them
		from, to = from.Truncate(5*time.Minute)+time.Duration(d.IntN(3)-1), to.Truncate(5*time.Minute)+time.Duration(d.IntN(3)-1)
	}
	r := query.Request{Who: d.h.lab, Selection: query.Selection{Stream: stream}, Span: d.h.span(min(from, to), max(from, to)), Limit: d.IntN(2) * (3 + d.IntN(60))}
	if d.IntN(20) == 0 {
		r.Span = holdfast.Always
	}
	if d.IntN(5) == 0 && (d.every == 0 || d.IntN(10) == 0) {
		return r
	}
	zone, err := query.ParseZone(zones[d.IntN(len(zones))])
	if err != nil {
		t.Fatal(err)
	}
	switch d.IntN(8) {
	case 0:
		r.Calendar = query.Calendar{Days: 1 + d.IntN(2), Zone: zone}
	case 1:
		r.Calendar = query.Calendar{Weeks: 1, Zone: zone}
	case 2:
		r.Every = time.Duration(1+d.IntN(7200)) * time.Second
	default: // after which he asks what he will be answered
		r.Every = max(d.every, time.Minute) * time.Duration(1+d.IntN(6))
	}
	for len(d.said) > 0 && d.IntN(4) > 0 || len(r.Aggregates) == 0 || d.IntN(3) == 0 {
		if len(d.said) > 0 && d.IntN(8) > 0 {
			r.Aggregates = d.said[:1+d.IntN(len(d.said))]
			break
		}
		a := []query.Aggregate{query.Count, query.Sum, query.Mean, query.Count, query.Sum, query.Mean, query.Min, query.Max, query.First, query.Last,
			query.Stddev, query.Variance, query.Increase, query.Rate, query.Delta, query.Quantile(500_000), query.Quantile(0)}[d.IntN(17)]
		if !slices.Contains(r.Aggregates, a) {
			r.Aggregates = append(r.Aggregates, a)
		}
	}
	if d.IntN(3) == 0 && r.Every%time.Minute == 0 && r.Span != holdfast.Always {
		r.Fill, r.FillValue, r.Limit = query.Fill(d.IntN(5)), 7, r.Limit*20
	}
	if d.IntN(4) == 0 {
		r.By = []query.Keys{query.Together, query.ByStream, query.ByUnit}[d.IntN(3)]
	}
	return r
}

// TestTwinsAreNotToldApart: two devices that differ only in what the obligation hides
// answer every question alike, however many are asked and when. With no obligation
// they don't.
func TestTwinsAreNotToldApart(t *testing.T) {
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 2))
	two := 2
	number := func() holdfast.Value { return holdfast.NumberValue(float64(draw.IntN(4000)-2000) / 8) }
	type twin = [2]holdfast.Sample
	times := func(h *lent) (all []time.Duration) {
		for range 150 {
			all = append(all, time.Duration(draw.Int64N(int64(24*time.Hour))))
		}
		return all
	}
	alike := func(h *lent, v func() [2]holdfast.Value) (all []twin) {
		for _, at := range times(h) {
			v := v()
			all = append(all, twin{h.at(at, "x", v[0]), h.at(at, "x", v[1])})
		}
		return all
	}
	// window draws readings of each window of a length and its twin's: elsewhere in it.
	window := func(every time.Duration, of func(n int) (a, b []holdfast.Value)) func(h *lent) []twin {
		return func(h *lent) (all []twin) {
			for start := time.Duration(0); start < 24*time.Hour; start += every {
				n := draw.IntN(4)
				in := func() (all []time.Duration) {
					for range n {
						all = append(all, start+time.Duration(draw.Int64N(int64(every))))
					}
					slices.Sort(all)
					return all
				}
				a, b := of(n)
				at, bt := in(), in()
				for i := range n {
					all = append(all, twin{h.at(at[i], "x", a[i]), h.at(bt[i], "x", b[i])})
				}
			}
			return all
		}
	}
	for name, c := range map[string]struct {
		o    policy.Obligations
		said []query.Aggregate
		make func(h *lent) []twin
	}{
		"every": {policy.Obligations{Every: 15 * time.Minute}, []query.Aggregate{query.Sum, query.Mean, query.Count}, window(15*time.Minute, func(n int) (a, b []holdfast.Value) {
			sum := 0.0
			for i := range n {
				x, y := number(), number()
				if a = append(a, x); i == n-1 { // the same sum
					y = holdfast.NumberValue(sum + x.Number())
				}
				sum += x.Number() - y.Number()
				b = append(b, y)
			}
			return a, b
		})},
		"every of an hour and a half": {policy.Obligations{Every: 90 * time.Minute, Delay: time.Hour}, []query.Aggregate{query.Sum, query.Mean, query.Count}, window(90*time.Minute, func(n int) (a, b []holdfast.Value) {
			for i := range n {
				a, b = append(a, holdfast.IntegerValue(int64(i))), append(b, holdfast.IntegerValue(int64(n-1-i)))
			}
			return a, b
		})},
		"every of texts": {policy.Obligations{Every: time.Hour}, []query.Aggregate{query.Count, query.Last}, window(time.Hour, func(n int) (a, b []holdfast.Value) {
			for range n {
				a, b = append(a, holdfast.TextValue(fmt.Sprint(draw.Uint64()))), append(b, holdfast.TextValue(fmt.Sprint(draw.Uint64())))
			}
			if n > 0 {
				b[n-1] = a[n-1]
			}
			return a, b
		})},
		"step": {policy.Obligations{Step: 0.5}, nil, func(h *lent) []twin {
			return alike(h, func() [2]holdfast.Value {
				k := float64(draw.IntN(400) - 200)
				in := func() holdfast.Value { return holdfast.NumberValue((k + (draw.Float64()-0.5)*0.99) / 2) }
				return [2]holdfast.Value{in(), in()}
			})
		}},
		"step of integers": {policy.Obligations{Step: 9.5}, nil, func(h *lent) []twin {
			return alike(h, func() [2]holdfast.Value {
				k := draw.IntN(400) - 200
				in := func() holdfast.Value { return holdfast.IntegerValue(int64(10*k + draw.IntN(9) - 4)) }
				return [2]holdfast.Value{in(), in()}
			})
		}},
		"decimals and altitude": {policy.Obligations{Decimals: &two, Drop: []policy.Field{policy.FieldAltitude}}, nil, func(h *lent) []twin {
			return alike(h, func() [2]holdfast.Value {
				lat, lon := float64(draw.IntN(18000)-9000), float64(draw.IntN(36000)-18000)
				in := func() holdfast.Value {
					near := func() float64 { return (draw.Float64() - 0.5) * 0.99 }
					return holdfast.LocationValue(holdfast.Position{Latitude: (lat + near()) / 100, Longitude: (lon + near()) / 100, Altitude: draw.Float64()})
				}
				return [2]holdfast.Value{in(), in()}
			})
		}},
		"sequence": {policy.Obligations{Drop: []policy.Field{policy.FieldSequence}}, nil, func(h *lent) []twin {
			all := alike(h, func() [2]holdfast.Value { v := number(); return [2]holdfast.Value{v, v} })
			for i := range all {
				all[i][0].Seq, all[i][1].Seq = draw.Uint64(), uint64(i)
			}
			return all
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := lend(t, c.o)
			devices := [2]custody.Device{h.device("a"), h.device("b")}
			all := c.make(h)
			for len(all) > 0 {
				n := min(len(all), 1+draw.IntN(80))
				for k, d := range devices {
					var batch []holdfast.Sample
					for _, s := range all[:n] {
						batch = append(batch, s[k])
					}
					h.Send(d, batch...)
				}
				if all = all[n:]; draw.IntN(2) == 0 {
					h.Roll()
				}
			}
			d := adversary{draw, h, c.o.Every, c.said}
			answered := 0
			h.Later(h.zero.Sub(h.Now())) // he was there when the first reading came
			h.lend(c.o, holdfast.Always)
			for n := 0; n < 100 || answered < 8; n++ {
				if n == 2000 {
					t.Fatalf("%d of %d are answered", answered, n)
				}
				h.Later(time.Duration(draw.Int64N(int64(30 * time.Minute))))
				r := d.request(t, "x")
				var said [2][]string
				for k, of := range devices {
					r.Device = of.ID
					said[k] = h.pages(t, r)
				}
				if diff := cmp.Diff(said[0], said[1]); diff != "" {
					t.Fatalf("%+v at %v tells them apart: %s", r, h.Now(), diff)
				}
				if len(said[0]) > 1 || len(said[0]) == 1 && !strings.Contains(said[0][0], "grant") {
					answered++
				}
			}
			r := ask(h.anna, query.Selection{Device: devices[0].ID})
			a := h.pages(t, r)
			if r.Device = devices[1].ID; slices.Equal(a, h.pages(t, r)) {
				t.Error("they do not differ")
			}
		})
	}
}

// TestLaterReadingsAreNotThereYet: what a delay holds back changes no answer.
func TestLaterReadingsAreNotThereYet(t *testing.T) {
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 3))
	h := lend(t, policy.Obligations{Delay: 3 * time.Hour})
	full, short := h.device("a"), h.device("b")
	h.Later(h.zero.Add(12 * time.Hour).Sub(h.Now()))
	h.lend(policy.Obligations{Delay: 3 * time.Hour}, holdfast.Always)
	var all, seen []holdfast.Sample
	for i := range 200 {
		s := h.at(time.Duration(draw.Int64N(int64(18*time.Hour))), "x", holdfast.NumberValue(float64(i)))
		if all = append(all, s); s.Time <= h.Now().Add(-3*time.Hour).UnixNano() {
			seen = append(seen, s)
		}
	}
	h.Send(full, all...)
	h.Send(short, seen...)
	d := adversary{draw, h, 0, nil}
	answered := 0
	for n := 0; n < 80 || answered < 20; n++ {
		if n == 2000 {
			t.Fatalf("%d of %d are answered", answered, n)
		}
		r := d.request(t, "x")
		r.Device = full.ID
		got := h.pages(t, r)
		if r.Device = short.ID; !slices.Equal(got, h.pages(t, r)) {
			t.Fatalf("%+v shows what is held back", r)
		}
		if len(got) > 1 {
			answered++
		}
	}
	h.Later(9 * time.Hour)
	rows, _ := collect(t, h.Query, ask(h.lab, query.Selection{Device: full.ID}))
	if len(rows) != 200 {
		t.Error(len(rows), "of 200 when all are old enough")
	}
}

// TestObligationsAreCarriedOutAsTheyAreSaid: what comes out is what a plain reading of
// the obligations makes of the readings, page by page.
func TestObligationsAreCarriedOutAsTheyAreSaid(t *testing.T) {
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 4))
	for range 6 {
		o := policy.Obligations{Every: []time.Duration{0, 5 * time.Minute, time.Hour}[draw.IntN(3)], Step: []float64{0, 0.5, 10}[draw.IntN(3)], Delay: time.Duration(draw.IntN(3)) * time.Hour}
		h := querytest.Build(t)
		l := &lent{House: h, zero: h.Now().UTC().Truncate(24 * time.Hour).Add(-48 * time.Hour)}
		h.Purpose("research")
		l.anna, l.lab = h.Party("Anna"), h.Program(h.Party("Lab").Party, "research")
		data := l.span(time.Duration(draw.Int64N(int64(6*time.Hour))), 22*time.Hour)
		h.Later(l.zero.Add(20 * time.Hour).Sub(h.Now()))
		l.lend(o, data)
		d := l.device("a")
		at := map[time.Duration]float64{}
		for range 300 {
			at[time.Duration(draw.Int64N(int64(24*time.Hour)))] = float64(draw.IntN(8000)-4000) / 16
		}
		var batch []holdfast.Sample
		for at, f := range at {
			batch = append(batch, l.at(at, "x", holdfast.NumberValue(f)))
		}
		h.Send(d, batch...)
		h.Roll()
		slices.SortFunc(batch, func(a, b holdfast.Sample) int { return int(a.Time - b.Time) })
		for range 40 {
			every := []time.Duration{0, o.Every, 2 * o.Every, 10 * time.Minute, 7 * time.Minute}[draw.IntN(5)]
			r := query.Request{Who: l.lab, Selection: query.Selection{Device: d.ID}, Span: l.span(time.Duration(draw.Int64N(int64(10*time.Hour))), 10*time.Hour+time.Duration(draw.Int64N(int64(14*time.Hour)))),
				Every: every, Limit: draw.IntN(2) * (1 + draw.IntN(30))}
			if every > 0 {
				r.Aggregates = []query.Aggregate{query.Count, query.Sum, query.Mean}
			}
			got := l.pages(t, r)
			if want, ok := reference(o, r, data, h.Now().UnixNano(), batch); !ok {
				if len(got) != 1 || !strings.Contains(got[0], "the grant lets readings out only as windows") {
					t.Fatalf("%+v under %+v: %v", r, o, got)
				}
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%+v under %+v: %s", r, o, diff)
			}
		}
	}
}

// reference is what obligations say, done to all readings; not ok where they refuse.
func reference(o policy.Obligations, r query.Request, data holdfast.Span, now int64, all []holdfast.Sample) (out []string, ok bool) {
	if o.Every > 0 && (r.Every == 0 || r.Every%o.Every != 0) {
		return nil, false
	}
	round := func(f float64) float64 {
		if o.Step > 0 {
			return math.Round(f/o.Step)*o.Step + 0
		}
		return f
	}
	from, to := max(r.Span.From, data.From), min(r.Span.To, data.To)
	if o.Every > 0 || o.Delay > 0 {
		to = min(to, now-int64(o.Delay))
	}
	type window struct {
		n   int
		sum float64
	}
	windows, order := map[int64]*window{}, []int64{}
	for _, s := range all {
		if s.Time < from || s.Time > to {
			continue
		}
		if r.Every == 0 {
			out = append(out, fmt.Sprint("x", "", holdfast.Number, 0, " ")+fmt.Sprint(s.Time, shown(holdfast.NumberValue(round(s.Value.Number()))), 0, holdfast.Mark(0)))
			continue
		}
		start := s.Time - s.Time%int64(r.Every) // after 1970
		if o.Every > 0 && (start < from || start+int64(r.Every)-1 > to) {
			continue
		}
		if windows[start] == nil {
			windows[start] = &window{}
			order = append(order, start)
		}
		windows[start].n++
		windows[start].sum += round(s.Value.Number())
	}
	for _, start := range order {
		w := windows[start]
		out = append(out, fmt.Sprint("x", "", holdfast.Number, 0, " ")+fmt.Sprint(start, start+int64(r.Every), w.n)+
			fmt.Sprint(" count=", shown(holdfast.IntegerValue(int64(w.n))), true)+
			fmt.Sprint(" sum=", shown(holdfast.NumberValue(round(w.sum))), true)+
			fmt.Sprint(" mean=", shown(holdfast.NumberValue(round(w.sum/float64(w.n)))), true))
	}
	return out, true
}
