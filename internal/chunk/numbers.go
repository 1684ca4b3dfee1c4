package chunk

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/holdfast-iot/holdfast"
)

// The head of a number column: how it becomes a column of integers.
const (
	kindMask      = 0x03
	kindDecimal   = 0 // value = integer / 10^exponent
	kindFloat32   = 1 // the bits of the value as binary32, in order of size
	kindFloat64   = 2 // the bits of the value, in order of size
	kindBinary    = 3 // value = integer / 2^exponent, exponent at least 1
	kindNaN       = 3 // with exponent 0: every value is the NaN that Go's math.NaN gives
	hasExceptions = 0x04
	exponentShift = 3
)

// maxExponent is the largest power of ten that binary64 holds exactly; with an
// integer that it holds exactly too, the quotient is rounded once and so is the
// number that the decimal text would be read as.
const maxExponent = 22

var tens = [maxExponent + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// twos are for what converters and GPS receivers give: counts of a step that is a
// fraction of 2^n. The largest exponent is what fits in the head.
var twos = func() (p [32]float64) {
	for i := range p {
		p[i] = float64(uint64(1) << i)
	}
	return p
}()

// Adding magic moves the integer nearest to a number below 2^51 into the low bits.
const magic = 3 << 51

const (
	magicBits = 0x4338 << 48
	nanBits   = 0x7ff8000000000001
)

// numbers appends a column of at least one number.
func (e *Encoder) numbers(dst []byte, v []float64) []byte {
	if allNaN(v) {
		return append(dst, kindNaN)
	}
	e.ints = resize(e.ints, len(v))
	if exp, ok := e.fixed(v, tens[:], decimalExponent); ok {
		return e.scaled(dst, kindDecimal|byte(exp)<<exponentShift)
	}
	start := len(dst)
	if exp, ok := e.fixed(v, twos[:], binaryExponent); ok && exp > 0 {
		dst = e.scaled(dst, kindBinary|byte(exp)<<exponentShift)
	}
	middle := len(dst)
	if e.float32s(v) {
		dst = e.scaled(dst, kindFloat32)
	}
	switch {
	case start < middle && middle < len(dst):
		return shorter(dst, start, middle)
	case start < len(dst):
		return dst
	}
	e.at, e.odd = e.at[:0], e.odd[:0]
	for i, f := range v {
		e.ints[i] = ordered64(math.Float64bits(f))
	}
	return e.scaled(dst, kindFloat64)
}

// scaled appends e.ints with the exceptions e.at and e.odd.
func (e *Encoder) scaled(dst []byte, head byte) []byte {
	if len(e.at) > 0 {
		dst = append(dst, head|hasExceptions)
		dst = binary.AppendUvarint(dst, uint64(len(e.at)))
		dst = e.integers(dst, e.at)
		dst = e.integers(dst, e.odd)
	} else {
		dst = append(dst, head)
	}
	return e.integers(dst, e.ints)
}

func allNaN(v []float64) bool {
	for _, f := range v {
		if math.Float64bits(f) != nanBits {
			return false
		}
	}
	return true
}

// fixed fills e.ints with v times one of powers, if all but a few values are
// exactly such integers. least returns the least exponent that a number needs.
func (e *Encoder) fixed(v, powers []float64, least func(float64) int) (exponent int, ok bool) {
	exponent = likelyExponent(v, least)
	if exponent < 0 {
		return 0, false
	}
	for {
		if e.scale(v, powers[exponent]) {
			return exponent, true
		}
		// The values looked at were rounder than others: once more with the rest.
		finer := exponent
		for _, b := range e.odd {
			finer = max(finer, least(math.Float64frombits(uint64(b))))
		}
		if finer == exponent {
			return 0, false
		}
		exponent = finer
	}
}

// scale tries a power; it gives up at the first exception too many.
func (e *Encoder) scale(v []float64, p float64) bool {
	x := exceptions{e: e, rows: len(v)}
	x.begin()
	last := int64(0)
	for i, f := range v {
		t := float64(f*p) + magic // float64: the product rounded by itself, on every machine
		n := int64(math.Float64bits(t)) - magicBits
		if math.Float64bits((t-magic)/p) == math.Float64bits(f) && n < 1<<51 && n > -1<<51 {
			e.ints[i] = n
			last = n
			continue
		}
		e.ints[i] = last
		if !x.add(i, f) {
			return false
		}
	}
	x.end()
	return true
}

// float32s fills e.ints with the bits of v as binary32, if all but a few values
// are exactly that. NaNs are exceptions: machines differ in how they convert them.
func (e *Encoder) float32s(v []float64) bool {
	x := exceptions{e: e, rows: len(v)}
	x.begin()
	last := int64(0)
	for i, f := range v {
		if s := float32(f); float64(s) == f { // a NaN is not, and zero keeps its sign
			last = int64(ordered32(math.Float32bits(s)))
			e.ints[i] = last
			continue
		}
		e.ints[i] = last
		if !x.add(i, f) {
			return false
		}
	}
	x.end()
	return true
}

// exceptions collects the values that an integer can't stand for. Their rows
// repeat the integer before, which costs the least.
type exceptions struct {
	e       *Encoder
	rows    int
	special int // NaN, infinities and -0
}

func (x *exceptions) begin() { x.e.at, x.e.odd = x.e.at[:0], x.e.odd[:0] }

// add reports whether there may be as many: one in twenty, and up to every second
// row without a usual number, which a sensor that has gaps sends all alike.
func (x *exceptions) add(row int, f float64) bool {
	x.e.at = append(x.e.at, int64(row))
	x.e.odd = append(x.e.odd, int64(math.Float64bits(f)))
	if f == 0 || math.IsNaN(f) || math.IsInf(f, 0) {
		x.special++
		return x.special <= (x.rows+1)/2
	}
	return len(x.e.at)-x.special <= (x.rows+10)/20
}

// end gives exceptions at the front, which have no integer before, the one behind.
func (x *exceptions) end() {
	first := 0
	for first < len(x.e.at) && x.e.at[first] == int64(first) {
		first++
	}
	if first < len(x.e.ints) {
		for i := range first {
			x.e.ints[i] = x.e.ints[first]
		}
	}
}

// likelyExponent returns the exponent that nine of ten usual numbers among some of
// v can do with, -1 if there is none.
func likelyExponent(v []float64, least func(float64) int) int {
	const places = 32
	var count [32]int
	tried := 0
	for i := 0; i < len(v); i += len(v)/places + 1 {
		f := v[i]
		if math.IsNaN(f) || math.IsInf(f, 0) || f == 0 && math.Signbit(f) {
			continue
		}
		tried++
		if exp := least(f); exp >= 0 {
			count[exp]++
		}
	}
	if tried == 0 {
		return -1
	}
	sum := 0
	for exp, n := range count {
		if sum += n; sum*10 >= tried*9 {
			return exp
		}
	}
	return -1
}

// decimalExponent returns the least power of ten that makes f an integer, -1 if
// none does or f is -0.
func decimalExponent(f float64) int {
	for exp, p := range tens {
		t := float64(f * p)
		if !(math.Abs(t) < 1<<51) {
			return -1
		}
		if math.Float64bits((t+magic-magic)/p) == math.Float64bits(f) {
			return exp
		}
	}
	return -1
}

// binaryExponent returns the least power of two that makes f an integer, -1 if it
// is not in twos.
func binaryExponent(f float64) int {
	const mantissa, bias = 1<<52 - 1, 1075
	b := math.Float64bits(f)
	exp := int(b >> 52 & 0x7ff)
	switch {
	case f == 0:
		return 0
	case exp == 0 || exp == 0x7ff:
		return -1
	}
	lowest := exp - bias + bits.TrailingZeros64(b&mantissa|1<<52)
	if lowest <= -len(twos) {
		return -1
	}
	return max(0, -lowest)
}

// ordered64 maps the bits of a number to an integer so that greater numbers have
// greater integers; it is its own inverse.
func ordered64(b uint64) int64 { return int64(b) ^ int64(uint64(int64(b)>>63)>>1) }

func ordered32(b uint32) int32 { return int32(b) ^ int32(uint32(int32(b)>>31)>>1) }

// numbers reads a column of len(v) numbers.
func (d *Decoder) numbers(r *reader, v []float64) {
	head := r.byte()
	kind, exponent := head&kindMask, int(head>>exponentShift)
	exceptional := head&hasExceptions != 0
	allNaN := kind == kindNaN && exponent == 0
	switch {
	case kind == kindDecimal && exponent > maxExponent,
		kind != kindDecimal && kind != kindBinary && exponent != 0,
		(kind == kindFloat64 || allNaN) && exceptional:
		r.fail("head of a number column")
	}
	if r.err != nil {
		return
	}
	if allNaN {
		for i := range v {
			v[i] = math.Float64frombits(nanBits)
		}
		return
	}
	if exceptional {
		n := r.uvarint()
		if n == 0 || n > uint64(len(v)) {
			r.fail("number of exceptions")
			return
		}
		d.at, d.odd = resize(d.at, int(n)), resize(d.odd, int(n))
		d.integers(r, d.at)
		d.integers(r, d.odd)
	}
	d.ints = resize(d.ints, len(v))
	d.integers(r, d.ints)
	if r.err != nil {
		return
	}
	d.floats(r, v, kind, exponent)
	if !exceptional {
		return
	}
	for j, i := range d.at {
		if uint64(i) >= uint64(len(v)) {
			r.fail("row of an exception")
			return
		}
		v[i] = math.Float64frombits(uint64(d.odd[j]))
	}
}

// floats turns d.ints into numbers.
func (d *Decoder) floats(r *reader, v []float64, kind byte, exponent int) {
	ints := d.ints[:len(v)]
	switch kind {
	case kindDecimal:
		divide(v, ints, tens[exponent])
	case kindBinary:
		divide(v, ints, twos[exponent])
	case kindFloat32:
		for i, n := range ints {
			if n != int64(int32(n)) {
				r.fail("binary32 number")
				return
			}
			v[i] = float64(math.Float32frombits(uint32(ordered32(uint32(n)))))
		}
	case kindFloat64:
		for i, n := range ints {
			v[i] = math.Float64frombits(uint64(ordered64(uint64(n))))
		}
	}
}

func divide(v []float64, ints []int64, p float64) {
	for i, n := range ints {
		v[i] = float64(n) / p
	}
}

// positions appends the three coordinates as number columns.
func (e *Encoder) positions(dst []byte, v []holdfast.Position) []byte {
	e.coordinate = resize(e.coordinate, len(v))
	for i, p := range v {
		e.coordinate[i] = p.Latitude
	}
	dst = e.numbers(dst, e.coordinate)
	for i, p := range v {
		e.coordinate[i] = p.Longitude
	}
	dst = e.numbers(dst, e.coordinate)
	for i, p := range v {
		e.coordinate[i] = p.Altitude
	}
	return e.numbers(dst, e.coordinate)
}

func (d *Decoder) positions(r *reader, v []holdfast.Position) {
	d.coordinate = resize(d.coordinate, len(v))
	d.numbers(r, d.coordinate)
	for i, f := range d.coordinate {
		v[i].Latitude = f
	}
	d.numbers(r, d.coordinate)
	for i, f := range d.coordinate {
		v[i].Longitude = f
	}
	d.numbers(r, d.coordinate)
	for i, f := range d.coordinate {
		v[i].Altitude = f
	}
}
