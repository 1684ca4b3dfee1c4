package query

import (
	"math"
	"testing"
)

func TestNumbersAreRoundedToSteps(t *testing.T) {
	for _, c := range []struct{ f, step, want float64 }{
		{0.3, 0.1, 0.3}, {0.35000001, 0.1, 0.4}, {-0.04, 0.1, 0}, {7.4, 5, 5}, {7.5, 5, 10}, {-7.5, 5, -10}, {1e300, 0.1, 1e300},
		{math.MaxFloat64, 1e-300, math.MaxFloat64}, {3, 1e300, 0}, {math.Inf(1), 5, math.Inf(1)}, {180, 1e-2, 180}, {52.229676, 1e-3, 52.23}, {5e-324, 5e-324, 5e-324},
	} {
		if got := roundNumber(c.f, c.step); got != c.want || math.Signbit(got) != math.Signbit(c.want) {
			t.Errorf("%v in steps of %v: %v, want %v", c.f, c.step, got, c.want)
		}
	}
	if got := roundNumber(math.Float64frombits(0x7ff8dead00000001), 1); math.Float64bits(got) != math.Float64bits(math.NaN()) {
		t.Errorf("a NaN keeps what it carried: %x", math.Float64bits(got))
	}
}

func TestIntegersAreRoundedToSteps(t *testing.T) {
	for _, c := range []struct {
		i    int64
		step float64
		want int64
	}{
		{7, 5, 5}, {8, 5, 10}, {-8, 5, -10}, {5, 10, 10}, {-5, 10, -10}, {4, 10, 0}, {7, 0.3, 7}, {7, 1, 7}, {7, 2.5, 6}, {8, 2.5, 9},
		{math.MaxInt64, 10, math.MaxInt64 - 7}, {math.MinInt64, 10, math.MinInt64 + 8}, {math.MaxInt64, 1e300, 0}, {math.MaxInt64, 1 << 62, 1 << 62},
	} {
		if got := roundInteger(c.i, c.step); got != c.want {
			t.Errorf("%d in steps of %v: %d, want %d", c.i, c.step, got, c.want)
		}
	}
}
