package chunk

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

func TestStretch(t *testing.T) {
	nan := math.NaN()
	times := []int64{1, 2, 2, 4}
	for name, c := range map[string]struct {
		cols Columns
		i, j int
		want Stretch
	}{
		"numbers": {Columns{Type: holdfast.Number, Times: times, Numbers: []float64{9, 1, nan, -1}}, 1, 4,
			Stretch{Rows: 3, FirstAt: 2, LastAt: 4, First: holdfast.NumberValue(1), Last: holdfast.NumberValue(-1), Total: nan, Low: -1, High: 1, Ranked: true}},
		"only NaN": {Columns{Type: holdfast.Number, Times: times, Numbers: []float64{nan, nan, nan, nan}}, 0, 1,
			Stretch{Rows: 1, FirstAt: 1, LastAt: 1, First: holdfast.NumberValue(nan), Last: holdfast.NumberValue(nan), Total: nan}},
		"integers": {Columns{Type: holdfast.Integer, Times: times, Integers: []int64{math.MinInt64, -1, 5, 7}}, 0, 2,
			Stretch{Rows: 2, FirstAt: 1, LastAt: 2, First: holdfast.IntegerValue(math.MinInt64), Last: holdfast.IntegerValue(-1),
				Whole: Whole{1<<63 - 1, -1}, Least: math.MinInt64, Most: -1}},
		"booleans": {Columns{Type: holdfast.Boolean, Times: times, Booleans: []bool{true, true, false, true}}, 1, 4,
			Stretch{Rows: 3, FirstAt: 2, LastAt: 4, First: holdfast.BooleanValue(true), Last: holdfast.BooleanValue(true), Whole: Whole{2, 0}, Most: 1}},
		"all true": {Columns{Type: holdfast.Boolean, Times: times, Booleans: []bool{true, true, false, true}}, 0, 2,
			Stretch{Rows: 2, FirstAt: 1, LastAt: 2, First: holdfast.BooleanValue(true), Last: holdfast.BooleanValue(true), Whole: Whole{2, 0}, Least: 1, Most: 1}},
		"texts": {Columns{Type: holdfast.Text, Times: times, Texts: []string{"a", "b", "c", "d"}}, 0, 4,
			Stretch{Rows: 4, FirstAt: 1, LastAt: 4, First: holdfast.TextValue("a"), Last: holdfast.TextValue("d")}},
	} {
		if diff := cmp.Diff(c.want, c.cols.Stretch(c.i, c.j), cmpopts.EquateNaNs(), cmp.Comparer(holdfast.Value.Same)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestSumsAgree holds the two ways to add against each other, and both against
// arithmetic without limits.
func TestSumsAgree(t *testing.T) {
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 3))
	for range 300 {
		v := make([]float64, 1+draw.IntN(100))
		exact := new(big.Float).SetPrec(4000)
		sizes := 0.0
		for i := range v {
			v[i] = math.Ldexp(draw.NormFloat64(), draw.IntN(60)-30)
			exact.Add(exact, big.NewFloat(v[i]))
			sizes += math.Abs(v[i])
		}
		var one, all Sum
		for _, f := range v {
			one.Add(f)
		}
		cut := draw.IntN(len(v))
		all.AddAll(v[:cut])
		all.AddAll(v[cut:])
		if one != all {
			t.Fatalf("%v one by one, %v at once", one, all)
		}
		want, _ := exact.Float64()
		if got := all.Total(); math.Abs(got-want) > math.Abs(want)*0x1p-52+sizes*0x1p-95 {
			t.Fatalf("sum of %v is %v, want %v", v, got, want)
		}
	}
}

func BenchmarkStretch(b *testing.B) {
	c := Columns{Type: holdfast.Number}
	for i := range 3600 {
		c.Append(holdfast.Reading{Time: int64(i) * 1e9, Value: holdfast.NumberValue(20 + float64(i%100)/10)})
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := 0; i < 3600; i += 60 {
			if s := c.Stretch(i, i+60); s.Rows != 60 {
				b.Fatal(s)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/3600, "ns/row")
}
