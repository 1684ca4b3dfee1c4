package bench

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Format writes a number with three significant digits, and its unit.
func (u Unit) Format(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "-"
	}
	switch u {
	case Bytes:
		for i, prefix := range []string{"B", "KiB", "MiB", "GiB"} {
			if x := v / math.Pow(1024, float64(i)); math.Abs(x) < 1000 || prefix == "GiB" {
				return three(x) + " " + prefix
			}
		}
	case Seconds:
		switch a := math.Abs(v); {
		case a == 0:
			return "0 s"
		case a < 1e-6:
			return three(v*1e9) + " ns"
		case a < 1e-3:
			return three(v*1e6) + " µs"
		case a < 1:
			return three(v*1e3) + " ms"
		}
		return three(v) + " s"
	case Times:
		return three(v) + "x"
	case Percentage:
		return three(v) + " %"
	case Count:
		return thousands(v)
	case Cores:
		return three(v) + " cores"
	}
	return thousands(v) + string(u)
}

// thousands writes large numbers with k and M.
func thousands(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1e6:
		return three(v/1e6) + "M"
	case a >= 1e4:
		return three(v/1e3) + "k"
	}
	return three(v)
}

// three keeps three significant digits, and all of a whole number below 10,000.
func three(v float64) string {
	a := math.Abs(v)
	switch {
	case a >= 100 || a == math.Trunc(a):
		return strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// Format writes a goal as it is judged: of a ratio in times, else in the unit.
func (g Goal) Format(m Measure) string {
	if !g.Judged() {
		return ""
	}
	sign, v := "≥ ", g.Least
	if g.Most != 0 {
		sign, v = "≤ ", g.Most
	}
	if m.Peer == "" || m.Absolute {
		return sign + m.Unit.Format(v)
	}
	if n := 1 / v; v < 0.9 && math.Abs(n-math.Round(n)) < 1e-9 {
		return fmt.Sprintf("%s1/%.0f", sign, n)
	}
	return sign + Times.Format(v)
}

// day is how the page writes a date.
func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
