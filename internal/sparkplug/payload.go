package sparkplug

import (
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-iot/holdfast"
)

// Bounds of one payload.
const (
	MaxPayload = 1 << 20
	MaxMetrics = 10_000
)

// Payload is one message.
type Payload struct {
	Timestamp Millis
	Seq       uint8
	HasSeq    bool // of births, data and a device's death
	Metrics   []Metric
}

// Millis is a time in ms since 1970, if Known.
type Millis struct {
	At    uint64
	Known bool
}

// Nanos is the time in ns, if it is one that a reading can have.
func (m Millis) Nanos() (int64, bool) {
	if !m.Known || m.At > math.MaxInt64/1_000_000 {
		return 0, false
	}
	return int64(m.At) * 1_000_000, true
}

// Metric is one value as it came: data says neither names nor types that the
// birth has said.
type Metric struct {
	Name       string
	Alias      uint64
	HasAlias   bool
	Timestamp  Millis
	Type       DataType // 0 if it is not said
	Historical bool
	Null       bool
	Unit       string // of the property engUnit, "" if there is none
	raw        raw
}

// raw is a value on the wire.
type raw struct {
	field protowire.Number // 0: there is none
	bits  uint64
	data  []byte // shares the payload's memory
}

// Decode reads a payload. Values share data's memory until they are asked for.
func Decode(data []byte) (Payload, error) {
	var p Payload
	if len(data) > MaxPayload {
		return p, holdfast.Errorf(holdfast.TooLarge, "a payload of Sparkplug B has at most %d bytes", MaxPayload)
	}
	err := fields(data, func(f field) error {
		switch {
		case f.is(1, protowire.VarintType):
			p.Timestamp = Millis{f.bits, true}
		case f.is(2, protowire.BytesType):
			if len(p.Metrics) == MaxMetrics {
				return holdfast.Errorf(holdfast.TooLarge, "a payload of Sparkplug B has at most %d metrics", MaxMetrics)
			}
			m, err := decodeMetric(f.data)
			if err != nil {
				return err
			}
			p.Metrics = append(p.Metrics, m)
		case f.is(3, protowire.VarintType):
			if f.bits > math.MaxUint8 {
				return holdfast.Errorf(holdfast.Invalid, "a sequence number of Sparkplug B is 0 to 255")
			}
			p.Seq, p.HasSeq = uint8(f.bits), true
		}
		return nil
	})
	return p, err
}

func decodeMetric(data []byte) (Metric, error) {
	var m Metric
	err := fields(data, func(f field) error {
		switch {
		case f.is(1, protowire.BytesType):
			m.Name = text(f.data)
		case f.is(2, protowire.VarintType):
			m.Alias, m.HasAlias = f.bits, true
		case f.is(3, protowire.VarintType):
			m.Timestamp = Millis{f.bits, true}
		case f.is(4, protowire.VarintType):
			m.Type = DataType(min(f.bits, 255))
		case f.is(5, protowire.VarintType):
			m.Historical = f.bits != 0
		case f.is(7, protowire.VarintType):
			m.Null = f.bits != 0
		case f.is(9, protowire.BytesType):
			unit, err := unitOf(f.data)
			m.Unit = unit
			return err
		case f.number >= 10 && f.number <= 19:
			m.raw = raw{f.number, f.bits, f.data}
		}
		return nil
	})
	return m, err
}

// unitOf looks for engUnit among a metric's properties: keys and values stand in
// two lists, in one order.
func unitOf(data []byte) (unit string, err error) {
	at, keys, values := -1, 0, 0
	err = fields(data, func(f field) error {
		if f.is(1, protowire.BytesType) {
			if at < 0 && string(f.data) == "engUnit" {
				at = keys
			}
			keys++
		}
		return nil
	})
	if err != nil || at < 0 {
		return "", err
	}
	err = fields(data, func(f field) error {
		if !f.is(2, protowire.BytesType) {
			return nil
		}
		values++
		if values != at+1 {
			return nil
		}
		return fields(f.data, func(f field) error {
			if f.is(8, protowire.BytesType) {
				unit = text(f.data)
			}
			return nil
		})
	})
	return unit, err
}

// text is a name or unit; what is too long or not UTF-8 is none.
func text(b []byte) string {
	if len(b) > 256 || !utf8.Valid(b) {
		return ""
	}
	return string(b)
}

// field is one field of a message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	bits   uint64
	data   []byte
}

func (f field) is(n protowire.Number, k protowire.Type) bool { return f.number == n && f.kind == k }

// fields calls f for each field of a message, in order.
func fields(data []byte, f func(field) error) error {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return errPayload()
		}
		data = data[n:]
		at := field{number: number, kind: kind}
		switch kind {
		case protowire.VarintType:
			at.bits, n = protowire.ConsumeVarint(data)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(data)
			at.bits = uint64(v)
		case protowire.Fixed64Type:
			at.bits, n = protowire.ConsumeFixed64(data)
		case protowire.BytesType:
			at.data, n = protowire.ConsumeBytes(data)
		default: // groups are in no message of Sparkplug B
			n = -1
		}
		if n < 0 {
			return errPayload()
		}
		data = data[n:]
		if err := f(at); err != nil {
			return err
		}
	}
	return nil
}

func errPayload() error {
	return holdfast.Errorf(holdfast.Invalid, "this is no payload of Sparkplug B, or it is cut short")
}
