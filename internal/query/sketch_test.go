package query

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// exactly is the quantile by its definition.
func exactly(values []float64, millionths uint64) float64 {
	s := slices.DeleteFunc(slices.Clone(values), func(f float64) bool { return f != f })
	if len(s) == 0 {
		return math.NaN()
	}
	slices.Sort(s)
	return s[millionths*uint64(len(s)-1)/million]
}

// TestQuantiles: within the accuracy of the exact ones whatever is drawn, exact of
// few, and the same however readings were divided.
func TestQuantiles(t *testing.T) {
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 6))
	kinds := map[string]func() float64{
		"normal":    func() float64 { return draw.NormFloat64() },
		"positive":  func() float64 { return 20 + draw.Float64() },
		"lognormal": func() float64 { return math.Exp(10 * draw.NormFloat64()) },
		"steps":     func() float64 { return float64(draw.IntN(5)) },
		"wild":      func() float64 { return math.Float64frombits(draw.Uint64()) },
		"infinite":  func() float64 { return 1 / float64(draw.IntN(3)-1) },
		"huge":      func() float64 { return math.MaxFloat64 * (draw.Float64() - 0.5) * 2 },
	}
	p := (&Request{Every: 1, Aggregates: []Aggregate{Quantile(1)}}).plan()
	for name, next := range kinds {
		for range 40 {
			values := make([]float64, 1+draw.IntN(3000))
			if draw.IntN(2) == 0 {
				values = values[:min(len(values), 1+draw.IntN(exactValues))]
			}
			whole, parts := p.newSketch(), p.newSketch()
			part := p.newSketch()
			for i := range values {
				values[i] = next()
				whole.add(values[i])
				part.add(values[i])
				if draw.IntN(200) == 0 {
					parts.merge(part)
					part.reset()
				}
			}
			parts.merge(part)
			for _, m := range []uint64{0, 1, 500_000, 900_000, 990_000, 999_900, million, draw.Uint64N(million + 1)} {
				want, got := exactly(values, m), whole.quantile(m)
				if other := parts.quantile(m); math.Float64bits(got) != math.Float64bits(other) {
					t.Fatalf("%s: p%d of %d values is %v, of parts of them %v", name, m, len(values), got, other)
				}
				if len(values) <= exactValues || m == 0 || m == million {
					if got != want && (got == got || want == want) {
						t.Fatalf("%s: p%d of %d values is %v, exactly %v", name, m, len(values), got, want)
					}
					continue
				}
				if math.IsInf(want, 0) {
					if got != want {
						t.Fatalf("%s: p%d of %d values is %v, exactly %v", name, m, len(values), got, want)
					}
					continue
				}
				if most := p.mapping.MaxIndexableValue(); math.Abs(want) > most { // it has no place for more
					want = math.Copysign(most, want)
					got = math.Copysign(min(math.Abs(got), most), got)
				}
				if want != want {
					if got != want && got == got {
						t.Fatalf("%s: p%d of %d values is %v, exactly %v", name, m, len(values), got, want)
					}
				} else if math.Abs(got-want) > Accuracy*1.0000001*math.Abs(want)+2.3e-308 {
					t.Fatalf("%s: p%d of %d values is %v, exactly %v: %v off", name, m, len(values), got, want, math.Abs(got-want)/math.Abs(want))
				}
			}
		}
	}
}

// TestSketchSize: what a sketch is taken to cost is about what it does.
func TestSketchSize(t *testing.T) {
	p := (&Request{Every: 1, Aggregates: []Aggregate{Quantile(1)}}).plan()
	usual, wild := p.newSketch(), p.newSketch()
	draw := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		usual.add(20 + 5*draw.NormFloat64())
		wild.add(math.Float64frombits(draw.Uint64()))
	}
	if n := usual.size(); n > 2*sketchBytes {
		t.Error("of usual values it takes", n)
	}
	if n := wild.size(); n < 200_000 || n > 4<<20 {
		t.Error("of wild values it takes", n)
	}
}

func BenchmarkSketch(b *testing.B) {
	p := (&Request{Every: 1, Aggregates: []Aggregate{Quantile(1)}}).plan()
	s := p.newSketch()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		s.add(20 + float64(i%100)/10)
		i++
	}
}
