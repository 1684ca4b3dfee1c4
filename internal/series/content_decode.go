package series

import (
	"encoding/binary"
	"math"

	"github.com/holdfast-iot/holdfast"
)

var errContent = holdfast.Errorf(holdfast.Invalid, "the content of a journal record is damaged")

// DecodeContent reads what AppendContent wrote for the record with header h into
// c, whose slices it uses again. Texts are copied; Session shares plain. It
// refuses content whose type or arrival is not the header's.
func DecodeContent(plain []byte, h Header, c *Content) error {
	c.Rows = c.Rows[:0]
	d, unit, err := decodeSession(plain, h, c)
	if err != nil {
		return err
	}
	if h.Type == Readings {
		r := rowDecoder{decoder: d, arrival: h.Arrival, unit: unit}
		r.prev = floorDiv(h.Arrival, r.unit)
		c.Rows = r.rows(c.Rows)
		d = r.decoder
	}
	if d.bad || len(d.p) > 0 {
		return errContent
	}
	return nil
}

// decodeSession reads what stands before the rows; d goes on with them.
func decodeSession(plain []byte, h Header, c *Content) (d decoder, unit int64, err error) {
	c.Session, c.Received, c.Released = nil, c.Received[:0], c.Released[:0]
	d = decoder{p: plain}
	head := d.byte()
	arrival := int64(d.u64())
	if d.bad || head&^headMask != 0 || RecordType(head&headType) != h.Type || arrival != h.Arrival {
		return d, 0, errContent
	}
	if head&headSession != 0 {
		c.Session = d.take(d.uvarint(MaxSession))
		c.Received = d.packetIDs(c.Received)
		c.Released = d.packetIDs(c.Released)
		if d.bad || len(c.Session) == 0 {
			return d, 0, errContent
		}
	}
	return d, timeUnits[head&headUnit>>2], nil
}

// decoder takes values off p; once something did not fit, bad is set and all
// that follows is zero.
type decoder struct {
	p   []byte
	bad bool
}

func (d *decoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.p)) {
		d.bad, d.p = true, nil
		return nil
	}
	b := d.p[:n:n]
	d.p = d.p[n:]
	return b
}

func (d *decoder) byte() byte {
	if len(d.p) == 0 {
		d.bad = true
		return 0
	}
	b := d.p[0]
	d.p = d.p[1:]
	return b
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.p)
	if n <= 0 || v > limit {
		d.bad, d.p = true, nil
		return 0
	}
	d.p = d.p[n:]
	return v
}

func (d *decoder) varint() int64 {
	if len(d.p) > 0 && d.p[0] < 0x80 {
		u := d.p[0]
		d.p = d.p[1:]
		return int64(u>>1) ^ -int64(u&1)
	}
	v, n := binary.Varint(d.p)
	if n <= 0 {
		d.bad, d.p = true, nil
		return 0
	}
	d.p = d.p[n:]
	return v
}

func (d *decoder) packetIDs(ids []uint16) []uint16 {
	b := d.take(2 * d.uvarint(math.MaxUint32))
	for ; len(b) > 0; b = b[2:] {
		ids = append(ids, binary.BigEndian.Uint16(b))
	}
	return ids
}

type rowDecoder struct {
	decoder
	arrival, unit int64
	prev, step    int64
	seq           uint64
	mark          holdfast.Mark
}

func (d *rowDecoder) rows(rows []Row) []Row {
	var count uint64
	if b := d.take(2); b != nil {
		count = uint64(binary.BigEndian.Uint16(b))
	}
	table := d.take(count * holdfast.IDSize)
	for !d.bad && len(d.p) > 0 {
		run := d.uvarint(math.MaxUint32)
		n := uint64(1)
		if run&1 != 0 {
			n = d.uvarint(uint64(len(d.p))) // a row takes at least a byte
		}
		i := run >> 1
		if d.bad || i >= count || n == 0 {
			d.bad = true
			return rows
		}
		stream := holdfast.StreamID(table[i*holdfast.IDSize:])
		for ; n > 0 && !d.bad; n-- {
			if len(rows) == MaxRows {
				d.bad = true
				return rows
			}
			if len(rows) < cap(rows) {
				rows = rows[:len(rows)+1]
			} else {
				rows = append(rows, Row{})
			}
			r := &rows[len(rows)-1]
			r.Stream = stream
			d.row(&r.Reading)
		}
	}
	return rows
}

func (d *rowDecoder) row(r *holdfast.Reading) {
	shape := d.byte()
	if shape&rowMark != 0 {
		d.mark = holdfast.Mark(d.byte())
	}
	r.Mark = d.mark
	switch shape & timeMask {
	case timeArrival:
		r.Time = d.arrival
	case timeDelta:
		d.step = d.varint()
		fallthrough
	case timeStep:
		d.prev += d.step
		fallthrough
	case timeSame:
		if d.prev > math.MaxInt64/d.unit || d.prev < math.MinInt64/d.unit {
			d.bad = true
		}
		r.Time = d.prev * d.unit
	}
	r.Seq = 0
	if shape&rowSeq != 0 {
		d.seq += uint64(d.varint())
		r.Seq = d.seq
	}
	r.Value = d.value(shape & valueMask)
}

func (d *rowDecoder) value(how byte) holdfast.Value {
	switch how {
	case valueRaw:
		return holdfast.NumberValue(math.Float64frombits(d.u64()))
	case valueInteger:
		return holdfast.IntegerValue(d.varint())
	case valueFalse, valueTrue:
		return holdfast.BooleanValue(how == valueTrue)
	case valueText:
		return holdfast.TextValue(string(d.take(d.uvarint(holdfast.MaxValueBytes))))
	case valueBytes:
		return holdfast.BytesValue(d.take(d.uvarint(holdfast.MaxValueBytes)))
	case valueLocation:
		return holdfast.LocationValue(holdfast.Position{
			Latitude:  math.Float64frombits(d.u64()),
			Longitude: math.Float64frombits(d.u64()),
			Altitude:  math.Float64frombits(d.u64()),
		})
	}
	if e := int(how) - valueDecimal; e >= 0 && e <= maxExponent {
		return holdfast.NumberValue(float64(d.varint()) / pow10[e])
	}
	d.bad = true
	return holdfast.BooleanValue(false)
}
