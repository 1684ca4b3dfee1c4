package chunk

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/holdfast-iot/holdfast"
)

// Minutes are the readings of a chunk by the minute: a Stretch for each minute since
// 1970 that it has readings in, in order of time. They say all that a question about
// whole minutes needs to know, in a sixtieth of the work.
type Minutes struct {
	Type     holdfast.ValueType // Number, Integer or Boolean
	starts   []int64            // ns since 1970
	rows     []int64
	firstAts []int64
	lastAts  []int64
	numbers  [minuteColumns][]float64 // of Number
	integers [minuteColumns][]int64   // of Integer and Boolean
}

// The columns of values.
const (
	minuteSum = iota
	minuteFirst
	minuteLow
	minuteHigh
	minuteLast
	minuteColumns
	minuteValues = minuteFirst // from here on of the size of one reading
)

const minutesVersion = 1

// Len returns how many minutes there are.
func (m *Minutes) Len() int { return len(m.starts) }

// Start returns when minute i begins.
func (m *Minutes) Start(i int) int64 { return m.starts[i] }

// Times returns the times of the first and the last reading in minute i.
func (m *Minutes) Times(i int) holdfast.Span {
	return holdfast.Span{From: m.firstAts[i], To: m.lastAts[i]}
}

// Rows returns how many readings all minutes have.
func (m *Minutes) Rows() (n int) {
	for _, r := range m.rows {
		n += int(r)
	}
	return n
}

// At returns minute i, bit for bit what Columns.Stretch says of its rows.
func (m *Minutes) At(i int) Stretch {
	s := Stretch{Rows: uint64(m.rows[i]), FirstAt: m.firstAts[i], LastAt: m.lastAts[i]}
	switch m.Type {
	case holdfast.Number:
		s.First, s.Last = holdfast.NumberValue(m.numbers[minuteFirst][i]), holdfast.NumberValue(m.numbers[minuteLast][i])
		s.Total = m.numbers[minuteSum][i]
		if low := m.numbers[minuteLow][i]; low == low {
			s.Low, s.High, s.Ranked = low, m.numbers[minuteHigh][i], true
		}
	case holdfast.Integer:
		s.First, s.Last = holdfast.IntegerValue(m.integers[minuteFirst][i]), holdfast.IntegerValue(m.integers[minuteLast][i])
	case holdfast.Boolean:
		s.First, s.Last = holdfast.BooleanValue(m.integers[minuteFirst][i] != 0), holdfast.BooleanValue(m.integers[minuteLast][i] != 0)
	}
	if m.Type != holdfast.Number {
		s.Whole.Add(m.integers[minuteSum][i])
		s.Least, s.Most = m.integers[minuteLow][i], m.integers[minuteHigh][i]
	}
	return s
}

// Size returns the bytes that m takes in memory, roughly.
func (m *Minutes) Size() int { return 8 * (4 + minuteColumns) * cap(m.starts) }

// Clear empties m and overwrites what it held.
func (m *Minutes) Clear() {
	for _, s := range m.times() {
		clear((*s)[:cap(*s)])
	}
	for i := range minuteColumns {
		clear(m.numbers[i][:cap(m.numbers[i])])
		clear(m.integers[i][:cap(m.integers[i])])
	}
	m.resize(0)
}

func (m *Minutes) times() [4]*[]int64 {
	return [4]*[]int64{&m.starts, &m.rows, &m.firstAts, &m.lastAts}
}

func (m *Minutes) resize(n int) {
	for _, s := range m.times() {
		*s = resize(*s, n)
	}
	for i := range minuteColumns {
		if m.Type == holdfast.Number {
			m.numbers[i] = resize(m.numbers[i], n)
		} else {
			m.integers[i] = resize(m.integers[i], n)
		}
	}
}

// Of makes m the minutes of c, whose rows are in order of time. It reports false for
// values that can't be added, and where an integer sum is beyond an int64.
func (m *Minutes) Of(c *Columns) bool {
	m.Type = c.Type
	switch c.Type {
	case holdfast.Number, holdfast.Integer, holdfast.Boolean:
	default:
		return false
	}
	m.resize(0)
	for i := 0; i < c.Len(); {
		start := MinuteOf(c.Times[i])
		if start > c.Times[i] {
			return false // the first minute of time is not whole
		}
		j := i + 1
		for j < c.Len() && uint64(c.Times[j])-uint64(start) < uint64(Minute) {
			j++
		}
		s := c.Stretch(i, j)
		if s.Whole.Hi != int64(s.Whole.Lo)>>63 {
			return false
		}
		m.append(start, &s)
		i = j
	}
	return true
}

// MinuteOf returns the start of the minute since 1970 that t lies in; that of the
// first minute of time, which is not whole, wraps.
func MinuteOf(t int64) int64 {
	in := t % Minute
	if in < 0 {
		in += Minute
	}
	return t - in
}

func (m *Minutes) append(start int64, s *Stretch) {
	m.starts = append(m.starts, start)
	m.rows = append(m.rows, int64(s.Rows))
	m.firstAts = append(m.firstAts, s.FirstAt)
	m.lastAts = append(m.lastAts, s.LastAt)
	switch m.Type {
	case holdfast.Number:
		low, high := s.Low, s.High
		if !s.Ranked {
			low, high = math.NaN(), math.NaN()
		}
		for i, v := range [minuteColumns]float64{s.Total, s.First.Number(), low, high, s.Last.Number()} {
			m.numbers[i] = append(m.numbers[i], v)
		}
	case holdfast.Integer:
		m.appendIntegers(s, s.First.Integer(), s.Last.Integer())
	case holdfast.Boolean:
		m.appendIntegers(s, asInteger(s.First.Boolean()), asInteger(s.Last.Boolean()))
	}
}

func (m *Minutes) appendIntegers(s *Stretch, first, last int64) {
	for i, v := range [minuteColumns]int64{int64(s.Whole.Lo), first, s.Least, s.Most, last} {
		m.integers[i] = append(m.integers[i], v)
	}
}

func asInteger(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// EncodeMinutes appends the bytes of m, which has minutes.
func (e *Encoder) EncodeMinutes(dst []byte, m *Minutes) []byte {
	n := m.Len()
	dst = append(dst, minutesVersion, byte(m.Type))
	dst = binary.AppendUvarint(dst, uint64(n))
	offsets := func(at []int64) {
		e.ints = resize(e.ints, n)
		for i := range at {
			e.ints[i] = at[i] - m.starts[i]
		}
		dst = e.integers(dst, e.ints)
	}
	e.ints = resize(e.ints, n)
	for i, s := range m.starts {
		e.ints[i] = s / Minute
	}
	dst = e.integers(dst, e.ints)
	dst = e.integers(dst, m.rows)
	offsets(m.firstAts)
	offsets(m.lastAts)
	if m.Type == holdfast.Number {
		dst = e.numbers(dst, m.numbers[minuteSum])
		e.coordinate = interleave(e.coordinate, m.numbers[minuteValues:])
		return e.numbers(dst, e.coordinate)
	}
	dst = e.integers(dst, m.integers[minuteSum])
	e.ints = interleave(e.ints, m.integers[minuteValues:])
	return e.integers(dst, e.ints)
}

// interleave puts columns into one, row by row: the first reading of a minute is
// near the last of the minute before, and its least and greatest are near both.
func interleave[T any](dst []T, columns [][]T) []T {
	dst = resize(dst, len(columns)*len(columns[0]))
	for c, column := range columns {
		for i, v := range column {
			dst[i*len(columns)+c] = v
		}
	}
	return dst
}

func separate[T any](columns [][]T, src []T) {
	for c, column := range columns {
		for i := range column {
			column[i] = src[i*len(columns)+c]
		}
	}
}

// DecodeMinutes replaces m by what EncodeMinutes wrote. Damaged input is Invalid, a
// newer version Unavailable; m is then empty.
func DecodeMinutes(data []byte, m *Minutes) error {
	d := decoders.Get().(*Decoder)
	defer decoders.Put(d)
	return d.DecodeMinutes(data, m)
}

// DecodeMinutes is like the function DecodeMinutes.
func (d *Decoder) DecodeMinutes(data []byte, m *Minutes) error {
	if err := d.minutes(&reader{b: data}, m); err != nil {
		m.resize(0)
		return fmt.Errorf("decode minutes: %w", err)
	}
	return nil
}

func (d *Decoder) minutes(r *reader, m *Minutes) error {
	switch v := r.byte(); {
	case r.err != nil:
		return r.err
	case v > minutesVersion:
		return holdfast.Errorf(holdfast.Unavailable, "format version %d is newer than this program's %d: use a newer Holdfast", v, minutesVersion)
	case v == 0:
		return damaged("format version 0")
	}
	m.Type = holdfast.ValueType(r.byte())
	switch m.Type {
	case holdfast.Number, holdfast.Integer, holdfast.Boolean:
	default:
		return damaged("type byte")
	}
	n := r.uvarint()
	if r.err == nil && (n == 0 || n > MaxRows) {
		return damaged("number of minutes")
	}
	if r.err != nil {
		return r.err
	}
	m.resize(int(n))
	for _, column := range m.times() {
		d.integers(r, *column)
	}
	if m.Type == holdfast.Number {
		d.numbers(r, m.numbers[minuteSum])
		d.coordinate = resize(d.coordinate, int(n)*(minuteColumns-minuteValues))
		d.numbers(r, d.coordinate)
		separate(m.numbers[minuteValues:], d.coordinate)
	} else {
		d.integers(r, m.integers[minuteSum])
		d.ints = resize(d.ints, int(n)*(minuteColumns-minuteValues))
		d.integers(r, d.ints)
		separate(m.integers[minuteValues:], d.ints)
	}
	if r.err == nil && len(r.b) > 0 {
		return damaged("bytes after the end")
	}
	if r.err != nil {
		return r.err
	}
	return m.restore()
}

// restore makes times of what was read, and refuses what no chunk comes to.
func (m *Minutes) restore() error {
	rows := int64(0)
	for i, number := range m.starts {
		first, last := m.firstAts[i], m.lastAts[i]
		switch {
		case number > math.MaxInt64/Minute-1 || number < math.MinInt64/Minute,
			i > 0 && number*Minute <= m.starts[i-1],
			first < 0 || last < first || last >= Minute,
			m.rows[i] < 1 || m.rows[i] > MaxRows:
			return damaged("minute")
		}
		m.starts[i] = number * Minute
		m.firstAts[i] += m.starts[i]
		m.lastAts[i] += m.starts[i]
		if rows += m.rows[i]; rows > MaxRows {
			return damaged("rows of minutes")
		}
	}
	return nil
}
