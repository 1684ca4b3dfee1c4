package api

import (
	"math"
	"strconv"
)

// appendFloat writes the shortest literal that gives f back.
func appendFloat(b []byte, f float64) []byte {
	if b, ok := appendThousandths(b, f); ok {
		return b
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && a < 1e-6 || a >= 1e21 {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, 64)
}

// appendThousandths is the quick way for most of what sensors say: f is the double
// nearest to a whole number of thousandths. A decimal of up to 15 digits is the only
// one of so few that has its double, so without zeros at its end it is the shortest.
func appendThousandths(b []byte, f float64) ([]byte, bool) {
	const limit = 1e15
	m := math.Round(f * 1000)
	if !(m > -limit && m < limit) || m/1000 != f || m == 0 && math.Signbit(f) {
		return b, false
	}
	n := int64(m)
	if n < 0 {
		b, n = append(b, '-'), -n
	}
	return appendFraction(strconv.AppendInt(b, n/1000, 10), n%1000, 3), true
}

// appendSeconds writes nanoseconds since 1970 as a decimal number of seconds.
func appendSeconds(b []byte, ns int64) []byte {
	s, fraction := ns/1e9, ns%1e9
	if ns < 0 {
		b, s, fraction = append(b, '-'), -s, -fraction
	}
	b = strconv.AppendInt(b, s, 10)
	if fraction%1e6 == 0 {
		return appendFraction(b, fraction/1e6, 3)
	}
	return appendFraction(b, fraction, 9)
}

// appendFraction writes a point and the digits of a fraction without the zeros at
// their end; nothing if there are only zeros.
func appendFraction(b []byte, fraction int64, digits int) []byte {
	if fraction == 0 {
		return b
	}
	n := uint32(fraction)
	for n%10 == 0 {
		n /= 10
		digits--
	}
	b = append(b, ".000000000"[:1+digits]...)
	for i := len(b) - 1; n > 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}
