package chunk

// onGrid alone in the head of a column of times, besides divisor and base: the rows
// stand near the lines of a grid and leave some of them out.
const onGrid = 0x80

// fewOnGrid is for how many rows a grid is looked for: it takes some bytes to say.
const fewOnGrid = 64

// nearGrid is the part of a period that a row is off its line at most.
const nearGrid = 4

// times appends a column of times: as a grid, if the rows stand near one.
//
// A device that is asleep or out of reach skips some of its beats. A line through
// all rows is then off by as many periods as were left out before, and a difference
// of neighbours holds the jitter of two; the beat's number and the distance from it
// say the same in less.
func (e *Encoder) times(dst []byte, v []int64) []byte {
	if dst, ok := e.grid(dst, v); ok {
		return dst
	}
	return e.integers(dst, v)
}

// grid appends times by their grid; false if they have none, or leave no line out:
// then a straight line says the same in less.
func (e *Encoder) grid(dst []byte, v []int64) ([]byte, bool) {
	if len(v) < fewOnGrid || !narrow(v) {
		return dst, false
	}
	q, divisor := e.divide(v, true)
	period := median(q, func(i int) int64 { return q[i] - q[i-1] }, 1)
	rise := q[len(q)-1]
	if period < 2 || rise <= 0 || rise >= 1<<(62-slopeBits) {
		return dst, false
	}
	e.steps, e.offsets = resize(e.steps, len(v)-1), resize(e.offsets, len(v)-1)
	lines, skips := int64(0), 0
	for i, x := range q[1:] {
		step := (x - q[i] + period/2) / period
		if e.steps[i] = step; step != 1 {
			skips++
		}
		lines += step
	}
	if skips == 0 || skips > len(v)/8 || lines <= 0 {
		return dst, false
	}
	slope := rise << slopeBits / lines
	line := int64(0)
	for i, x := range q[1:] {
		line += e.steps[i]
		off := x - onLine(int(line), slope)
		if e.offsets[i] = off; off > period/nearGrid || off < -period/nearGrid {
			return dst, false
		}
	}
	head := len(dst)
	dst = appendBase(append(dst, onGrid), head, v[0], divisor)
	dst = appendVarint(dst, slope)
	return e.integers(e.integers(dst, e.steps), e.offsets), true
}

// times reads a column of len(v) times.
func (d *Decoder) times(r *reader, v []int64) {
	head := r.byte()
	if head&onGrid == 0 {
		d.column(r, head, v)
		return
	}
	divisor := int64(1)
	if head&hasDivisor != 0 {
		divisor = readDivisor(r)
	}
	base := r.varint()
	if head&baseDivided != 0 {
		base *= divisor
	}
	slope := r.varint()
	if head&^(onGrid|hasDivisor|baseDivided) != 0 || head&(hasDivisor|baseDivided) == baseDivided || len(v) < 2 {
		r.fail("head of a column of times")
		return
	}
	d.steps = resize(d.steps, len(v)-1)
	d.integers(r, d.steps)
	if r.err != nil {
		return
	}
	d.integers(r, v[1:])
	if r.err != nil {
		return
	}
	v[0] = base
	line := int64(0)
	for i, step := range d.steps {
		line += step
		v[i+1] = base + (onLine(int(line), slope)+v[i+1])*divisor
	}
}
