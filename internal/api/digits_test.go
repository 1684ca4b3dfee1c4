package api

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// The quick way writes what strconv writes.
func TestAppendThousandths(t *testing.T) {
	seed := testseed.Of(t)
	r := rand.New(rand.NewPCG(seed, 0))
	quick := 0
	check := func(f float64) {
		got, ok := appendThousandths(nil, f)
		if want := strconv.FormatFloat(f, 'f', -1, 64); ok && string(got) != want {
			t.Fatalf("seed %d: %v is written %s", seed, f, got)
		}
		if ok {
			quick++
		}
	}
	for _, f := range []float64{0, math.Copysign(0, -1), 1, -1, 0.001, -0.001, 0.1, 999999999999.999, 1e12, 1e15, 1e15 / 8, math.MaxFloat64, 5e-324, math.NaN(), math.Inf(1), 0.0005, 1.0005} {
		check(f)
	}
	for range 200_000 {
		f := float64(r.Int64N(1<<r.Int64N(52)+1)) / []float64{1, 10, 100, 1000, 8, 3}[r.IntN(6)]
		check(f)
		check(-f)
		check(math.Nextafter(f, math.Inf(1)))
		check(math.Float64frombits(r.Uint64()))
	}
	if quick < 200_000 {
		t.Errorf("only %d numbers went the quick way", quick)
	}
}

func TestAppendSeconds(t *testing.T) {
	for ns, want := range map[int64]string{0: "0", 1: "0.000000001", -1: "-0.000000001", -1500000000: "-1.5", math.MinInt64: "-9223372036.854775808", 1e18: "1000000000",
		1772366400_120_000_000: "1772366400.12", 1772366400_000_120_000: "1772366400.00012", 1772366400_007_000_000: "1772366400.007"} {
		if got := string(appendSeconds(nil, ns)); got != want {
			t.Errorf("%d ns are %s s, want %s", ns, got, want)
		}
	}
}

func BenchmarkAppendFloat(b *testing.B) {
	var buf [32]byte
	for name, f := range map[string]float64{"21.5": 21.5, "pi": math.Pi} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				appendFloat(buf[:0], f)
			}
		})
	}
}
