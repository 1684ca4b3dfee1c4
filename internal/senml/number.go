package senml

import (
	"math"
	"math/bits"
	"strconv"

	"github.com/holdfast-iot/holdfast"
)

// quantity is a number as SenML means it: the float64 nearest to what was
// written, and the integer if an integer was written that an int64 can hold.
type quantity struct {
	f     float64
	i     int64
	whole bool // i is valid
}

// value prefers a number; an integer is for what a float64 would change.
func (q quantity) value() holdfast.Value {
	if q.whole && !exact(q.i) {
		return holdfast.IntegerValue(q.i)
	}
	return holdfast.NumberValue(q.f)
}

// plus adds a base value; false if the sum of two finite numbers is not finite.
func (q quantity) plus(b quantity) (quantity, bool) {
	if q.whole && b.whole {
		if sum, ok := add(q.i, b.i); ok {
			return quantity{f: float64(sum), i: sum, whole: true}, true
		}
	}
	f := q.f + b.f
	return quantity{f: f}, !math.IsInf(f, 0) || math.IsInf(q.f, 0) || math.IsInf(b.f, 0)
}

// exact reports whether a float64 holds i. The bound comes first: converting
// 2^63 back is not the same on all machines.
func exact(i int64) bool {
	f := float64(i)
	return f < 1<<63 && int64(f) == i
}

// add reports false on overflow.
func add(a, b int64) (int64, bool) {
	sum := a + b
	return sum, (sum > a) == (b > 0)
}

// secondsToNanos reports false if the time does not fit.
func secondsToNanos(s int64) (int64, bool) {
	const most = math.MaxInt64 / 1_000_000_000
	return s * 1_000_000_000, -most <= s && s <= most
}

// floatToNanos rounds f seconds to the nearest nanosecond, half away from zero,
// and reports false if that does not fit. The product has 128 bits, so that it
// is rounded once.
func floatToNanos(f float64) (int64, bool) {
	if math.IsNaN(f) || math.Abs(f) >= 1<<34 {
		return 0, false
	}
	fraction, exponent := math.Frexp(math.Abs(f)) // |f| = fraction * 2^exponent
	hi, lo := bits.Mul64(uint64(math.Ldexp(fraction, 53)), 1_000_000_000)
	shift := 53 - exponent // at least 19; all but the last bit at once, that one rounds
	if shift--; shift >= 64 {
		hi, lo = 0, hi>>(shift-64)
	} else {
		hi, lo = hi>>shift, lo>>shift|hi<<(64-shift)
	}
	if hi != 0 {
		return 0, false
	}
	return signed(lo/2+lo%2, f < 0)
}

// signed gives a magnitude its sign, and reports false if that does not fit.
func signed(magnitude uint64, negative bool) (int64, bool) {
	if negative {
		return int64(-magnitude), magnitude <= 1<<63
	}
	return int64(magnitude), magnitude < 1<<63
}

// literal is a number as JSON writes it.
type literal struct {
	text     []byte
	digits   uint64 // all digits without point and exponent, if short
	fraction int    // how many of them follow the point
	negative bool
	short    bool // at most 19 digits and no exponent: digits is valid
	whole    bool // neither point nor exponent
}

// powers are those of ten that a float64 holds exactly.
var powers = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// float is strconv.ParseFloat, bit for bit; false on overflow. Where digits and
// power are exact floats their quotient is rounded once, so no more is needed.
func (n *literal) float() (float64, bool) {
	if n.short && n.digits < 1<<53 { // 19 digits have a fraction within powers
		f := float64(n.digits) / powers[n.fraction]
		if n.negative {
			f = -f
		}
		return f, true
	}
	f, err := strconv.ParseFloat(string(n.text), 64)
	return f, err == nil
}

// integer reports false if n is not written as an integer or is beyond int64.
func (n *literal) integer() (int64, bool) {
	if !n.whole || !n.short {
		return 0, false
	}
	return signed(n.digits, n.negative)
}

// unsigned reports false if n is not digits alone or is beyond uint64.
func (n *literal) unsigned() (uint64, bool) {
	if !n.whole || n.negative {
		return 0, false
	}
	if n.short {
		return n.digits, true
	}
	u, err := strconv.ParseUint(string(n.text), 10, 64)
	return u, err == nil
}

func (n *literal) quantity() (quantity, bool) {
	var q quantity
	var ok bool
	q.f, ok = n.float()
	q.i, q.whole = n.integer()
	return q, ok
}

// nanos takes n for seconds and rounds to the nearest nanosecond, half away from
// zero; false if the time does not fit.
func (n *literal) nanos() (int64, bool) {
	if !n.short || n.fraction > 9 {
		return n.longNanos()
	}
	scale := uint64(1)
	for range 9 - n.fraction {
		scale *= 10
	}
	hi, lo := bits.Mul64(n.digits, scale)
	if hi != 0 {
		return 0, false
	}
	return signed(lo, n.negative)
}

// longNanos moves the point nine places to the right, and by the exponent, and
// adds up the digits before it.
func (n *literal) longNanos() (int64, bool) {
	const far = 1 << 30 // more than any literal has digits
	mantissa, exponent := n.text, 0
	for i, c := range n.text {
		if c == 'e' || c == 'E' {
			mantissa = n.text[:i]
			x, _ := strconv.Atoi(string(n.text[i+1:])) // the largest int on overflow
			exponent = max(-far, min(x, far))
		}
	}
	point, after := 0, false // digits before the point; whether it was passed
	for _, c := range mantissa {
		after = after || c == '.'
		if !after && c != '-' {
			point++
		}
	}
	point += exponent + 9
	var sum uint64
	place := 0 // of the digit, counted from 0
	for _, c := range mantissa {
		if c == '.' || c == '-' {
			continue
		}
		d := uint64(c - '0')
		switch {
		case place > point || place == point && d < 5:
		case place == point:
			sum = min(sum, math.MaxUint64-1) + 1
		case sum > (math.MaxUint64-d)/10:
			return 0, false
		default:
			sum = sum*10 + d
		}
		place++
	}
	for ; place < point && sum != 0; place++ {
		if sum > math.MaxUint64/10 {
			return 0, false
		}
		sum *= 10
	}
	return signed(sum, n.negative)
}
