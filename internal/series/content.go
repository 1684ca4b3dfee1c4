package series

import (
	"encoding/binary"
	"math"

	"github.com/holdfast-iot/holdfast"
)

// Content is what a record's box holds. Rows are of the header's assignment, in
// the order in which they came.
type Content struct {
	// Session is the MQTT session that the packet ids belong to: its name or a hash
	// of it, at most MaxSession bytes. Empty when there are none.
	Session  []byte
	Received []uint16 // QoS 2 packet ids whose PUBLISH this record makes durable
	Released []uint16 // QoS 2 packet ids whose PUBREL this record makes durable
	Rows     []Row
}

// Row is a reading and its stream.
type Row struct {
	Stream holdfast.StreamID
	holdfast.Reading
}

// Limits of a record's content, which AppendContent's caller keeps.
const (
	MaxSession = math.MaxUint16
	MaxStreams = math.MaxUint16
	MaxRows    = 1 << 18
)

// The first byte of the content: type, unit of time, what follows.
const (
	headType    = 0x03 // RecordType
	headUnit    = 0x0c // index into timeUnits
	headSession = 0x10 // a session part follows
	headMask    = headType | headUnit | headSession
)

// timeUnits are the steps in which times are written: the coarsest that loses
// nothing.
var timeUnits = [4]int64{1, 1e3, 1e6, 1e9}

// The first byte of a row: the low half says how the value is written, the high
// half how time, sequence and marks are.
const (
	valueRaw      = 0 // number: IEEE bits
	valueDecimal  = 1 // number: 1+e for mantissa / 10^e, e <= maxExponent
	valueInteger  = 8
	valueFalse    = 9
	valueTrue     = 10
	valueText     = 11
	valueBytes    = 12
	valueLocation = 13
	valueMask     = 0x0f

	timeArrival = 0x00 // the record's arrival
	timeSame    = 0x10 // as the row before
	timeStep    = 0x20 // the last step again
	timeDelta   = 0x30 // a new step follows
	timeMask    = 0x30
	rowSeq      = 0x40 // the step from the last sequence number follows
	rowMark     = 0x80 // marks follow, for this row and those after it
)

const maxExponent = 6

var pow10 = [maxExponent + 1]float64{1, 10, 100, 1e3, 1e4, 1e5, 1e6}

// AppendContent appends the bytes of c, which belongs to the record with header
// h. With room in dst and up to 32 streams it allocates nothing. It panics on a row
// without a value and beyond the limits: what could not be read again must not be
// acknowledged.
func AppendContent(dst []byte, h Header, c *Content) []byte {
	if len(c.Rows) > MaxRows || len(c.Session) > MaxSession {
		panic("series: content beyond the limits of a record")
	}
	unit := commonUnit(c.Rows, h.Arrival)
	head := byte(h.Type)&headType | byte(unit)<<2
	if len(c.Session) > 0 {
		head |= headSession
	}
	dst = append(dst, head)
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.Arrival))
	if len(c.Session) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(c.Session)))
		dst = append(dst, c.Session...)
		dst = appendPacketIDs(dst, c.Received)
		dst = appendPacketIDs(dst, c.Released)
	}
	if h.Type != Readings {
		return dst
	}
	e := rowEncoder{arrival: h.Arrival, unit: timeUnits[unit], prev: floorDiv(h.Arrival, timeUnits[unit])}
	return e.append(dst, c.Rows)
}

func appendPacketIDs(dst []byte, ids []uint16) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(ids)))
	for _, id := range ids {
		dst = binary.BigEndian.AppendUint16(dst, id)
	}
	return dst
}

// commonUnit returns the index of the coarsest unit that all times are whole in.
func commonUnit(rows []Row, arrival int64) int {
	unit := len(timeUnits) - 1
	for i := range rows {
		t := rows[i].Time
		if t == arrival {
			continue
		}
		for t%timeUnits[unit] != 0 {
			unit--
		}
		if unit == 0 {
			break
		}
	}
	return unit
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// rowEncoder holds what one row's bytes borrow from the row before.
type rowEncoder struct {
	arrival, unit int64
	prev, step    int64 // in units
	seq           uint64
	mark          holdfast.Mark
	exponent      int
}

func (e *rowEncoder) append(dst []byte, rows []Row) []byte {
	t := streamTable{dst: append(dst, 0, 0), start: len(dst) + 2}
	for i := range rows { // the table of streams, each once
		t.index(&rows[i].Stream)
	}
	if t.n > MaxStreams {
		panic("series: content beyond the limits of a record")
	}
	dst = t.dst
	binary.BigEndian.PutUint16(dst[t.start-2:], uint16(t.n))
	t.last = -1
	for i := 0; i < len(rows); {
		n := 1
		for i+n < len(rows) && rows[i+n].Stream == rows[i].Stream {
			n++
		}
		at := uint64(t.index(&rows[i].Stream))
		if n == 1 {
			dst = binary.AppendUvarint(dst, at<<1)
		} else {
			dst = binary.AppendUvarint(dst, at<<1|1)
			dst = binary.AppendUvarint(dst, uint64(n))
		}
		for ; n > 0; n-- {
			dst = e.row(dst, &rows[i].Reading)
			i++
		}
	}
	return dst
}

// streamTable is the table of streams at the end of dst.
type streamTable struct {
	dst      []byte
	start, n int
	last     int // found last
	hash     map[holdfast.StreamID]int
}

// A table this long gets a hash; a shorter one is searched without allocating.
const longTable = 32

// index returns the place of s, which is appended when it is new. It looks first
// where it was and just behind: packs repeat the same streams in the same order.
func (t *streamTable) index(s *holdfast.StreamID) int {
	if !t.is(t.last, s) {
		t.last = t.find(s)
	}
	return t.last
}

func (t *streamTable) is(i int, s *holdfast.StreamID) bool {
	return i >= 0 && i < t.n && holdfast.StreamID(t.dst[t.start+i*holdfast.IDSize:]) == *s
}

func (t *streamTable) find(s *holdfast.StreamID) int {
	if t.is(t.last+1, s) {
		return t.last + 1
	}
	if t.hash != nil {
		if i, ok := t.hash[*s]; ok {
			return i
		}
	} else {
		for i := range t.n {
			if t.is(i, s) {
				return i
			}
		}
	}
	t.dst = append(t.dst, s[:]...)
	t.n++
	if t.hash == nil && t.n > longTable {
		t.hash = make(map[holdfast.StreamID]int, 4*longTable)
		for i := range t.n {
			t.hash[holdfast.StreamID(t.dst[t.start+i*holdfast.IDSize:])] = i
		}
	} else if t.hash != nil {
		t.hash[*s] = t.n - 1
	}
	return t.n - 1
}

func (e *rowEncoder) row(dst []byte, r *holdfast.Reading) []byte {
	shape := len(dst)
	dst = append(dst, 0)
	var flags byte
	if r.Mark != e.mark {
		e.mark = r.Mark
		flags |= rowMark
		dst = append(dst, byte(r.Mark))
	}
	if r.Time != e.arrival {
		q := r.Time / e.unit
		switch delta := q - e.prev; delta {
		case 0:
			flags |= timeSame
		case e.step:
			flags |= timeStep
		default:
			flags |= timeDelta
			e.step = delta
			dst = binary.AppendVarint(dst, delta)
		}
		e.prev = q
	}
	if r.Seq != 0 {
		flags |= rowSeq
		dst = binary.AppendVarint(dst, int64(r.Seq-e.seq))
		e.seq = r.Seq
	}
	dst, how := e.value(dst, &r.Value)
	dst[shape] = flags | how
	return dst
}

func (e *rowEncoder) value(dst []byte, v *holdfast.Value) ([]byte, byte) {
	switch v.Type() {
	case holdfast.Number:
		f := v.Number()
		if m, ok := e.decimal(f); ok {
			return binary.AppendVarint(dst, m), valueDecimal + byte(e.exponent)
		}
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(f)), valueRaw
	case holdfast.Integer:
		return binary.AppendVarint(dst, v.Integer()), valueInteger
	case holdfast.Boolean:
		if v.Boolean() {
			return dst, valueTrue
		}
		return dst, valueFalse
	case holdfast.Text:
		return appendText(dst, v), valueText
	case holdfast.Bytes:
		return appendText(dst, v), valueBytes
	case holdfast.Location:
		p := v.Position()
		dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(p.Latitude))
		dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(p.Longitude))
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(p.Altitude)), valueLocation
	}
	panic("series: a reading without a value")
}

func appendText(dst []byte, v *holdfast.Value) []byte {
	s := v.Text()
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// decimal finds m with f == m / 10^e.exponent exactly, trying the exponent of the
// value before first. A mantissa that would not be shorter than f is no use.
func (e *rowEncoder) decimal(f float64) (int64, bool) {
	const limit = 1 << 48
	try := func(x int) (int64, bool) {
		m := math.Round(f * pow10[x])
		if !(m > -limit && m < limit) || m/pow10[x] != f || m == 0 && math.Signbit(f) {
			return 0, false
		}
		e.exponent = x
		return int64(m), true
	}
	if m, ok := try(e.exponent); ok {
		return m, true
	}
	if !(f > -limit && f < limit) { // infinities, NaN, what is too long in any case
		return 0, false
	}
	for x := range maxExponent + 1 {
		if m, ok := try(x); ok {
			return m, true
		}
	}
	return 0, false
}
