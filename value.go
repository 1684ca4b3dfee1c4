package holdfast

import (
	"bytes"
	"encoding/binary"
	"math"
)

// ValueType is the type of a stream's values. The numbers are part of the
// on-disk formats.
type ValueType uint8

const (
	Number   ValueType = 1 // IEEE 754 binary64, NaN and infinities included
	Integer  ValueType = 2 // signed 64 bit
	Boolean  ValueType = 3
	Text     ValueType = 4 // UTF-8
	Bytes    ValueType = 5
	Location ValueType = 6 // WGS 84
)

var valueTypeNames = [...]string{"", "number", "integer", "boolean", "text", "bytes", "location"}

func (t ValueType) String() string {
	if t.Valid() {
		return valueTypeNames[t]
	}
	return "unknown"
}

// Valid reports whether t is one of the constants above.
func (t ValueType) Valid() bool { return t >= Number && t <= Location }

// ParseValueType reads the name that String writes.
func ParseValueType(s string) (ValueType, error) {
	for i, n := range valueTypeNames {
		if n == s && i > 0 {
			return ValueType(i), nil
		}
	}
	return 0, Errorf(Invalid, "a value type is number, integer, boolean, text, bytes or location")
}

// Value is one measured value. The zero Value has no type and is never stored.
type Value struct {
	kind ValueType
	bits uint64 // number: IEEE bits; integer: two's complement; boolean: 0|1; location: latitude's bits
	data string // text; bytes; location: longitude's and altitude's bits, big-endian
}

// Position is a WGS 84 location in degrees; Altitude in metres, NaN if not known.
type Position struct{ Latitude, Longitude, Altitude float64 }

func NumberValue(f float64) Value { return Value{kind: Number, bits: math.Float64bits(f)} }
func IntegerValue(i int64) Value  { return Value{kind: Integer, bits: uint64(i)} }
func TextValue(s string) Value    { return Value{kind: Text, data: s} }
func BytesValue(b []byte) Value   { return Value{kind: Bytes, data: string(b)} }

func BooleanValue(b bool) Value {
	if b {
		return Value{kind: Boolean, bits: 1}
	}
	return Value{kind: Boolean}
}

func LocationValue(p Position) Value {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], math.Float64bits(p.Longitude))
	binary.BigEndian.PutUint64(b[8:], math.Float64bits(p.Altitude))
	return Value{kind: Location, bits: math.Float64bits(p.Latitude), data: string(b[:])}
}

// Type returns the value's type, 0 for the zero Value.
func (v Value) Type() ValueType { return v.kind }

// The accessors return the value of their type; of another type, a zero.

func (v Value) Number() float64 { return math.Float64frombits(v.bits) }
func (v Value) Integer() int64  { return int64(v.bits) }
func (v Value) Boolean() bool   { return v.bits != 0 }
func (v Value) Text() string    { return v.data }
func (v Value) Bytes() []byte   { return []byte(v.data) }

func (v Value) Position() Position {
	if v.kind != Location {
		return Position{}
	}
	b := []byte(v.data)
	return Position{
		Latitude:  math.Float64frombits(v.bits),
		Longitude: math.Float64frombits(binary.BigEndian.Uint64(b[:8])),
		Altitude:  math.Float64frombits(binary.BigEndian.Uint64(b[8:])),
	}
}

// Same reports whether v and w are the same bit for bit: a NaN is the same as
// itself, 0 and -0 differ. It decides what is a repeat.
func (v Value) Same(w Value) bool { return v == w }

// Compare orders values of one type by their stored bits; it gives repeats a
// place beside each other and means nothing to a user.
func (v Value) Compare(w Value) int {
	switch {
	case v.kind != w.kind:
		return int(v.kind) - int(w.kind)
	case v.bits != w.bits:
		if v.bits < w.bits {
			return -1
		}
		return 1
	}
	return bytes.Compare([]byte(v.data), []byte(w.data))
}

// Size returns the bytes the value's content takes, for quotas and limits.
func (v Value) Size() int { return 8 + len(v.data) }
