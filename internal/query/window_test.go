package query

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// everything is a plan of all aggregates.
func everything(every time.Duration) *plan {
	req := Request{Every: every, Aggregates: []Aggregate{Count, Sum, Mean, Min, Max, First, Last, Stddev, Variance, Increase, Rate, Delta, Quantile(500_000)}}
	return req.plan()
}

func columnsOf(rows []holdfast.Reading) *chunk.Columns {
	c := new(chunk.Columns)
	c.Reset(rows[0].Value.Type())
	for _, r := range rows {
		if err := c.Append(r); err != nil {
			panic(err)
		}
	}
	return c
}

// windowsOf folds readings, given in runs of random length.
func windowsOf(p *plan, draw *rand.Rand, rows []holdfast.Reading) (all []Window) {
	f := fold{plan: p, typ: rows[0].Value.Type(), emit: func(w *Window) bool {
		all = append(all, *w)
		w.sketch = nil // it is kept
		return true
	}}
	for len(rows) > 0 {
		n := len(rows)
		if draw != nil {
			n = 1 + draw.IntN(n)
		}
		f.rows(columnsOf(rows[:n]), 0, n)
		rows = rows[n:]
	}
	f.end()
	return all
}

func windowOf(typ holdfast.ValueType, values ...holdfast.Value) *Window {
	var rows []holdfast.Reading
	for i, v := range values {
		rows = append(rows, holdfast.Reading{Time: int64(i), Value: v})
	}
	all := windowsOf(everything(time.Hour), nil, rows)
	return &all[0]
}

func numbers(all ...float64) (v []holdfast.Value) {
	for _, f := range all {
		v = append(v, holdfast.NumberValue(f))
	}
	return v
}

func integers(all ...int64) (v []holdfast.Value) {
	for _, i := range all {
		v = append(v, holdfast.IntegerValue(i))
	}
	return v
}

func TestWindowsBeginAtMultiples(t *testing.T) {
	for _, c := range []struct{ t, every, start, end, last int64 }{
		{0, 10, 0, 10, 9},
		{9, 10, 0, 10, 9},
		{10, 10, 10, 20, 19},
		{-1, 10, -10, 0, -1},
		{-10, 10, -10, 0, -1},
		{-11, 10, -20, -10, -11},
		{math.MaxInt64, 10, math.MaxInt64 - 7, math.MaxInt64, math.MaxInt64},
		{math.MinInt64, 10, math.MinInt64, math.MinInt64 + 8, math.MinInt64 + 7},
		{math.MinInt64 + 8, 10, math.MinInt64 + 8, math.MinInt64 + 18, math.MinInt64 + 17},
	} {
		var w Window
		w.start(everything(time.Duration(c.every)), holdfast.Number, c.t)
		if w.Start != c.start || w.End != c.end || w.last != c.last {
			t.Errorf("around %d: [%d, %d) to %d, want [%d, %d) to %d", c.t, w.Start, w.End, w.last, c.start, c.end, c.last)
		}
	}
}

func TestAggregates(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	big, small := int64(math.MaxInt64), int64(math.MinInt64)
	for name, c := range map[string]struct {
		w    *Window
		want map[Aggregate]holdfast.Value
	}{
		"numbers": {windowOf(holdfast.Number, numbers(2, 1, 6)...), map[Aggregate]holdfast.Value{
			Count: holdfast.IntegerValue(3), Sum: holdfast.NumberValue(9), Mean: holdfast.NumberValue(3), Min: holdfast.NumberValue(1),
			Max: holdfast.NumberValue(6), First: holdfast.NumberValue(2), Last: holdfast.NumberValue(6)}},
		"small beside large": {windowOf(holdfast.Number, numbers(1, 1e100, 1, -1e100)...), map[Aggregate]holdfast.Value{Sum: holdfast.NumberValue(2)}},
		"a NaN": {windowOf(holdfast.Number, numbers(nan, 1, nan, 3)...), map[Aggregate]holdfast.Value{
			Count: holdfast.IntegerValue(4), Sum: holdfast.NumberValue(nan), Mean: holdfast.NumberValue(nan),
			Min: holdfast.NumberValue(1), Max: holdfast.NumberValue(3), Last: holdfast.NumberValue(3)}},
		"only NaN":      {windowOf(holdfast.Number, numbers(nan)...), map[Aggregate]holdfast.Value{Min: holdfast.NumberValue(nan), Max: holdfast.NumberValue(nan)}},
		"infinity":      {windowOf(holdfast.Number, numbers(1, inf, 2)...), map[Aggregate]holdfast.Value{Sum: holdfast.NumberValue(inf), Max: holdfast.NumberValue(inf)}},
		"infinities":    {windowOf(holdfast.Number, numbers(-inf, inf)...), map[Aggregate]holdfast.Value{Sum: holdfast.NumberValue(nan), Min: holdfast.NumberValue(-inf)}},
		"beyond float":  {windowOf(holdfast.Number, numbers(math.MaxFloat64, math.MaxFloat64)...), map[Aggregate]holdfast.Value{Sum: holdfast.NumberValue(inf)}},
		"integers":      {windowOf(holdfast.Integer, integers(-5, 2)...), map[Aggregate]holdfast.Value{Sum: holdfast.IntegerValue(-3), Mean: holdfast.NumberValue(-1.5), Min: holdfast.IntegerValue(-5), Max: holdfast.IntegerValue(2)}},
		"at the edge":   {windowOf(holdfast.Integer, integers(big-1, 1)...), map[Aggregate]holdfast.Value{Sum: holdfast.IntegerValue(big)}},
		"beyond int64":  {windowOf(holdfast.Integer, integers(big, 1)...), map[Aggregate]holdfast.Value{Sum: holdfast.NumberValue(1 << 63), Mean: holdfast.NumberValue(1 << 62)}},
		"and back":      {windowOf(holdfast.Integer, integers(big, big, small, small, 2)...), map[Aggregate]holdfast.Value{Sum: holdfast.IntegerValue(0), Mean: holdfast.NumberValue(0)}},
		"below int64":   {windowOf(holdfast.Integer, integers(small, small)...), map[Aggregate]holdfast.Value{Sum: holdfast.NumberValue(-1 << 64), Min: holdfast.IntegerValue(small)}},
		"exact mean":    {windowOf(holdfast.Integer, integers(big, big)...), map[Aggregate]holdfast.Value{Mean: holdfast.NumberValue(1 << 63)}},
		"booleans":      {windowOf(holdfast.Boolean, holdfast.BooleanValue(true), holdfast.BooleanValue(false)), map[Aggregate]holdfast.Value{Sum: holdfast.IntegerValue(1), Mean: holdfast.NumberValue(0.5), Max: holdfast.IntegerValue(1), Min: holdfast.IntegerValue(0), First: holdfast.BooleanValue(true)}},
		"texts have no": {windowOf(holdfast.Text, holdfast.TextValue("a"), holdfast.TextValue("b")), map[Aggregate]holdfast.Value{Count: holdfast.IntegerValue(2), First: holdfast.TextValue("a"), Last: holdfast.TextValue("b"), Sum: {}, Mean: {}, Min: {}, Max: {}}},
	} {
		for a, want := range c.want {
			if got, ok := c.w.Value(a); !got.Same(want) || ok != want.Type().Valid() {
				t.Errorf("%s: %s is %v %v, want %v", name, a, got, ok, want)
			}
		}
	}
}

// TestSumsAreExact holds random sums against arithmetic without limits.
func TestSumsAreExact(t *testing.T) {
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 2))
	for range 200 {
		var ints []int64
		sum := new(big.Int)
		for range 1 + draw.IntN(50) {
			i := int64(draw.Uint64()) >> draw.IntN(64)
			ints = append(ints, i)
			sum.Add(sum, big.NewInt(i))
		}
		w := windowOf(holdfast.Integer, integers(ints...)...)
		got, _ := w.Value(Sum)
		if f, _ := new(big.Float).SetInt(sum).Float64(); sum.IsInt64() && !got.Same(holdfast.IntegerValue(sum.Int64())) || !sum.IsInt64() && !got.Same(holdfast.NumberValue(f)) {
			t.Fatalf("sum of %v is %v, want %v", ints, got, sum)
		}
		mean, _ := new(big.Rat).SetFrac(sum, big.NewInt(int64(len(ints)))).Float64()
		if got, _ := w.Value(Mean); got.Number() != mean {
			t.Fatalf("mean of %v is %v, want %v", ints, got.Number(), mean)
		}
	}
}

func TestAggregateNames(t *testing.T) {
	for a := Count; a <= Delta; a++ {
		if b, err := ParseAggregate(a.String()); err != nil || a != b {
			t.Error(a, b, err)
		}
	}
	for text, n := range map[string]int{"p50": 500_000, "p99.9": 999_000, "p0": 0, "p100": 1_000_000, "p0.0001": 1, "p99.9999": 999_999, "p5": 50_000, "p99.05": 990_500} {
		if a, err := ParseAggregate(text); err != nil || a != Quantile(n) || a.String() != text {
			t.Error(text, a, err)
		}
	}
	for _, s := range []string{"", "median", "unknown", "p", "p.5", "p101", "p-1", "p99.99999", "p5.", "p100.0001", "px", "p+5", "p1e1"} {
		if _, err := ParseAggregate(s); holdfast.KindOf(err) != holdfast.Invalid {
			t.Error(s, err)
		}
	}
}

func FuzzCursor(f *testing.F) {
	bind := []byte("12345678")
	p := place{stream: holdfast.StreamID{1}, span: holdfast.Span{From: -5, To: 5}, time: 3, back: -2, given: 300}
	f.Add(p.encode(bind))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := decodeCursor(s, bind)
		if err != nil {
			if holdfast.KindOf(err) != holdfast.Invalid {
				t.Fatal(err)
			}
			return
		}
		if q, err := decodeCursor(p.encode(bind), bind); err != nil || p != q {
			t.Fatalf("%v %v: %v", p, q, err)
		}
	})
}
