package chunk

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// The head of an integer column.
const (
	packMask  = 0x03
	packConst = 0 // every residual is the centre
	packBits  = 1 // bits, a width for each 128 residuals
	packVar   = 2 // one block of variable-length numbers
	packPlane = 3 // a block for all lowest bytes, one for the next, ...

	orderMask  = 0x0c
	orderShift = 2

	hasDivisor   = 0x10
	baseDivided  = 0x20
	isRuns       = 0x40 // alone: equal values in a row are told once
	reservedBits = 0x80
)

// Orders: what a residual is the difference from.
const (
	orderFirst  = 0 // the first value
	orderBefore = 1 // the value before
	orderSlope  = 2 // the value before, and the difference before
	orderLine   = 3 // a straight line from the first value
)

// integers appends a column of at least one value: as runs, if values last and
// that is smaller.
func (e *Encoder) integers(dst []byte, v []int64) []byte {
	if !lasting(v) {
		return e.plain(dst, v)
	}
	e.runs, e.lengths = e.runs[:0], e.lengths[:0]
	from := 0
	for i := 1; i <= len(v); i++ {
		if i == len(v) || v[i] != v[i-1] {
			e.runs = append(e.runs, v[from])
			e.lengths = append(e.lengths, int64(i-from))
			from = i
		}
	}
	start := len(dst)
	dst = binary.AppendUvarint(append(dst, isRuns), uint64(len(e.runs)))
	dst = e.plain(e.plain(dst, e.runs), e.lengths)
	middle := len(dst)
	dst = e.plain(dst, v)
	return shorter(dst, start, middle)
}

// lasting reports whether a value stays for eight rows on average, but not for all.
func lasting(v []int64) bool {
	changes := 0
	before := v[0]
	for _, x := range v {
		if x != before {
			if changes++; changes > len(v)/8-1 {
				return false
			}
		}
		before = x
	}
	return changes > 0
}

// shorter keeps the shorter of dst[start:middle] and dst[middle:].
func shorter(dst []byte, start, middle int) []byte {
	if len(dst)-middle < middle-start {
		return append(dst[:start], dst[middle:]...)
	}
	return dst[:middle]
}

// plain appends a column without runs.
//
// With q[i] = (v[i] - v[0]) / divisor, the residuals are what an order leaves of
// q, less a centre, as zigzag numbers. All arithmetic wraps at 64 bits, so
// nothing can overflow.
func (e *Encoder) plain(dst []byte, v []int64) []byte {
	if step, ok := regular(v); ok {
		return appendRegular(dst, v[0], step)
	}
	base := v[0]
	near := narrow(v)
	q, divisor := e.divide(v, near)
	head := len(dst)
	dst = appendBase(append(dst, 0), head, base, divisor)

	p := predict(q, near)
	dst[head] |= byte(p.order << orderShift)
	var diffs []int64
	switch e.diffs = resize(e.diffs, len(q)); p.order {
	case orderFirst:
		diffs = q[1:]
	case orderBefore:
		diffs = differences(e.diffs, q)
	case orderSlope:
		dst = appendVarint(dst, q[1])
		diffs = secondDifferences(e.diffs, q)
	case orderLine:
		dst = appendVarint(dst, p.slope)
		diffs = offLine(e.diffs, q, p.slope)
	}
	return e.residuals(dst, head, diffs, p.centre)
}

// regular reports whether each value is step more than the one before: a steady
// clock, or a value that does not change.
func regular(v []int64) (step int64, ok bool) {
	if len(v) == 1 {
		return 0, true
	}
	step = v[1] - v[0]
	before := v[0]
	for _, x := range v[1:] {
		if x-before != step {
			return 0, false
		}
		before = x
	}
	return step, true
}

// appendRegular appends a whole column. Its divisor is its step.
func appendRegular(dst []byte, base, step int64) []byte {
	if step == 0 {
		return appendVarint(append(dst, packConst|orderFirst<<orderShift), base)
	}
	divisor := distance(step, 0)
	if !writable(divisor) {
		divisor = 1
	}
	head := len(dst)
	dst = appendBase(append(dst, packConst|orderBefore<<orderShift), head, base, divisor)
	return appendVarint(dst, step/int64(divisor))
}

// appendBase appends divisor and base and notes in the head what it wrote.
func appendBase(dst []byte, head int, base int64, divisor uint64) []byte {
	if divisor > 1 {
		dst[head] |= hasDivisor
		dst = binary.AppendUvarint(dst, shortDivisor(divisor))
		if base%int64(divisor) == 0 {
			dst[head] |= baseDivided
			base /= int64(divisor)
		}
	}
	return appendVarint(dst, base)
}

// narrow reports whether all values are below 2^62 in size, so that no difference
// of two of them wraps.
func narrow(v []int64) bool {
	all := int64(0)
	for _, x := range v {
		all |= x ^ x>>63
	}
	return all < 1<<62
}

func bounds(v []int64) (lo, hi int64) {
	lo, hi = v[0], v[0]
	for _, x := range v {
		lo, hi = min(lo, x), max(hi, x)
	}
	return lo, hi
}

// divide returns (v[i] - v[0]) / divisor for the greatest divisor that leaves no
// rest: 10^6 for a clock of milliseconds, the period of a steady one.
func (e *Encoder) divide(v []int64, near bool) (q []int64, divisor uint64) {
	e.quotients = resize(e.quotients, len(v))
	q, divisor = e.quotients, 1
	base := v[0]
	if near {
		divisor = commonDivisor(v)
	}
	if divisor <= 1 {
		for i, x := range v {
			q[i] = x - base
		}
		return q, 1
	}
	// An exact division by an odd number is a multiplication by its inverse mod 2^64.
	shift := bits.TrailingZeros64(divisor)
	inverse := int64(inverse64(divisor >> shift))
	for i, x := range v {
		q[i] = (x - base) >> shift * inverse
	}
	return q, divisor
}

// commonDivisor returns the greatest common divisor of the distances from v[0],
// 1 if it is too large to write. The values must be narrow.
func commonDivisor(v []int64) uint64 {
	// A few values mostly show that there is none.
	g := uint64(0)
	for i := 0; i < len(v); i += len(v)/16 + 1 {
		g = gcd(g, distance(v[i], v[0]))
		if g == 1 {
			return 1
		}
	}
	for i := 0; i < len(v); {
		i += multiples(v[i:], v[0], g)
		if i == len(v) {
			break
		}
		g = gcd(g, distance(v[i], v[0]))
		if g == 1 {
			return 1
		}
	}
	if !writable(g) {
		return 1
	}
	return g
}

// writable reports whether a divisor fits where it has to.
func writable(g uint64) bool {
	m, _ := splitDivisor(g)
	return m <= math.MaxUint64>>4 && g <= math.MaxInt64
}

// multiples returns how many values at the front of v are multiples of g away from
// base; g is 0 if nothing is known. It multiplies by the inverse, which maps
// exactly the multiples to what is at most MaxInt64/g in size.
func multiples(v []int64, base int64, g uint64) int {
	if g == 0 {
		for i, x := range v {
			if x != base {
				return i
			}
		}
		return len(v)
	}
	shift := bits.TrailingZeros64(g)
	odd := g >> shift
	inverse := inverse64(odd)
	low := uint64(1)<<shift - 1
	limit := math.MaxInt64 / odd
	for i, x := range v {
		d := x - base
		if uint64(d)&low != 0 || uint64(d>>shift)*inverse+limit > 2*limit {
			return i
		}
	}
	return len(v)
}

func distance(a, b int64) uint64 {
	if a < b {
		a, b = b, a
	}
	return uint64(a) - uint64(b)
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// inverse64 returns the inverse of an odd number mod 2^64 by Newton's iteration,
// which doubles the right bits each time; a itself is right in 3.
func inverse64(a uint64) uint64 {
	x := a
	for range 5 {
		x *= 2 - a*x
	}
	return x
}

// splitDivisor writes g as m * 10^exp, exp at most 15, so that the usual divisors
// take a byte or two.
func splitDivisor(g uint64) (m uint64, exp uint64) {
	for g > 0 && exp < 15 && g%10 == 0 {
		g, exp = g/10, exp+1
	}
	return g, exp
}

func shortDivisor(g uint64) uint64 {
	m, exp := splitDivisor(g)
	return m<<4 | exp
}

// prediction is the order that promises the smallest residuals.
type prediction struct {
	order  int
	slope  int64 // of orderLine, in 1/2^slopeBits
	centre int64
}

const slopeBits = 16

// probe is how many values predict looks at in each of probes places.
const probe, probes = 128, 4

// predict chooses an order by the bits that the residuals of some values need. There
// are at least three values: two are regular.
func predict(q []int64, near bool) prediction {
	n := len(q)
	before := prediction{order: orderBefore, centre: median(q, func(i int) int64 { return q[i] - q[i-1] }, 1)}
	best := prediction{order: orderFirst, centre: median(q, func(i int) int64 { return q[i] }, 1)}
	slope := prediction{order: orderSlope, centre: median(q, func(i int) int64 { return q[i] - 2*q[i-1] + q[i-2] }, 2)}
	line := prediction{order: orderLine}
	rise := q[n-1] - q[0]
	// Up to here rise<<slopeBits, and so every point of the line, fits in an int64.
	straight := near && rise < 1<<(62-slopeBits) && rise > -1<<(62-slopeBits) && n >= 8
	if straight {
		line.slope = rise << slopeBits / int64(n-1)
		line.centre = median(q, func(i int) int64 { return q[i] - onLine(i, line.slope) }, 1)
	}
	var sums [4]int
	step, places := 1, 1
	width := n
	if n > probe*probes {
		width, places = probe, probes
		step = (n - probe) / (probes - 1)
	}
	for place := range places {
		start := place * step
		countBits(&sums, q[start:start+width], start, best.centre, before.centre, slope.centre, line.slope, line.centre)
	}
	least := sums[orderFirst]
	for _, p := range []prediction{before, slope, line} {
		if p.order == orderLine && !straight {
			continue
		}
		if sums[p.order] < least {
			best, least = p, sums[p.order]
		}
	}
	return best
}

// countBits adds to sums the length of the residuals of each order. q begins at
// row start of the column.
func countBits(sums *[4]int, q []int64, start int, c0, c1, c2, slope, c3 int64) {
	var s0, s1, s2, s3 int
	before, beforeThat := q[1], q[0]
	for i := 2; i < len(q); i++ {
		x := q[i]
		d := x - before
		s0 += bits.Len64(zigzag(x - c0))
		s1 += bits.Len64(zigzag(d - c1))
		s2 += bits.Len64(zigzag(d - (before - beforeThat) - c2))
		s3 += bits.Len64(zigzag(x - onLine(start+i, slope) - c3))
		before, beforeThat = x, before
	}
	sums[0] += s0
	sums[1] += s1
	sums[2] += s2
	sums[3] += s3
}

func onLine(i int, slope int64) int64 { return int64(i) * slope >> slopeBits }

// median returns the median of f at 15 places of q from the given one on.
func median(q []int64, f func(int) int64, from int) int64 {
	const places = 15
	var s [places]int64
	n := min(places, len(q)-from)
	for j := range n {
		s[j] = f(from + j*(len(q)-from)/n)
	}
	slices.Sort(s[:n])
	return s[n/2]
}

func differences(dst, q []int64) []int64 {
	dst = dst[:len(q)-1]
	before := q[0]
	for i, x := range q[1:] {
		dst[i] = x - before
		before = x
	}
	return dst
}

func secondDifferences(dst, q []int64) []int64 {
	dst = dst[:len(q)-2]
	before, d := q[1], q[1]-q[0]
	for i, x := range q[2:] {
		next := x - before
		dst[i] = next - d
		before, d = x, next
	}
	return dst
}

func offLine(dst, q []int64, slope int64) []int64 {
	dst = dst[:len(q)-1]
	for i, x := range q[1:] {
		dst[i] = x - onLine(i+1, slope)
	}
	return dst
}

// integers reads a column of len(v) values.
func (d *Decoder) integers(r *reader, v []int64) { d.column(r, r.byte(), v) }

// column reads what follows the head of a column of len(v) values.
func (d *Decoder) column(r *reader, head byte, v []int64) {
	if head != isRuns {
		d.plain(r, head, v)
		return
	}
	runs := r.uvarint()
	if r.err == nil && (runs == 0 || runs > uint64(len(v))) {
		r.fail("number of runs")
	}
	if r.err != nil {
		return
	}
	d.runs, d.lengths = resize(d.runs, int(runs)), resize(d.lengths, int(runs))
	d.plain(r, r.byte(), d.runs)
	d.plain(r, r.byte(), d.lengths)
	if r.err != nil {
		return
	}
	for i, n := range d.lengths {
		if uint64(n) > uint64(len(v)) {
			r.fail("length of a run")
			return
		}
		x := d.runs[i]
		for j := range v[:n] {
			v[j] = x
		}
		v = v[n:]
	}
	if len(v) > 0 {
		r.fail("length of a run")
	}
}

// plain reads the rest of a column that has no runs.
func (d *Decoder) plain(r *reader, head byte, v []int64) {
	order := int(head&orderMask) >> orderShift
	divisor := int64(1)
	if head&hasDivisor != 0 {
		divisor = readDivisor(r)
	}
	base := r.varint()
	if head&baseDivided != 0 {
		base *= divisor
	}
	if head&packMask == packConst && order == orderFirst {
		if head&^packMask != 0 {
			r.fail("head of an integer column")
		}
		for i := range v {
			v[i] = base
		}
		return
	}
	known := 1 // values that come without a residual
	var extra int64
	if order >= orderSlope {
		extra = r.varint()
	}
	if order == orderSlope {
		known = 2
	}
	if head&(isRuns|reservedBits) != 0 || head&(hasDivisor|baseDivided) == baseDivided || len(v) <= known {
		r.fail("head of an integer column")
		return
	}
	if head&packMask == packConst && order == orderBefore {
		step := r.varint() * divisor
		for i := range v {
			v[i] = base
			base += step
		}
		return
	}
	d.residuals(r, head&packMask, v[known:])
	if r.err == nil {
		restore(v, order, extra, divisor, base)
	}
}

// restore turns residuals, which begin behind the values that have none, into
// values.
func restore(v []int64, order int, extra, divisor, base int64) {
	v[0] = base
	switch order {
	case orderFirst:
		for i, x := range v[1:] {
			v[i+1] = base + x*divisor
		}
	case orderBefore:
		rest := v[1:]
		for i, x := range rest {
			base += x * divisor
			rest[i] = base
		}
	case orderSlope:
		d := extra * divisor
		base += d
		v[1] = base
		rest := v[2:]
		for i, x := range rest {
			d += x * divisor
			base += d
			rest[i] = base
		}
	case orderLine:
		for i, x := range v[1:] {
			v[i+1] = base + (x+onLine(i+1, extra))*divisor
		}
	}
}

func readDivisor(r *reader) int64 {
	u := r.uvarint()
	g := u >> 4
	for range u & 15 {
		if g > math.MaxInt64/10 {
			r.fail("divisor")
			return 1
		}
		g *= 10
	}
	if g < 2 || g > math.MaxInt64 {
		r.fail("divisor")
		return 1
	}
	return int64(g)
}
