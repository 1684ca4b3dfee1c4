package sparkplug

import (
	"math"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
)

// DataType is the type of a metric (Sparkplug B, DataType).
type DataType uint8

// The types whose values become readings.
const (
	Int8     DataType = 1
	Int16    DataType = 2
	Int32    DataType = 3
	Int64    DataType = 4
	UInt8    DataType = 5
	UInt16   DataType = 6
	UInt32   DataType = 7
	UInt64   DataType = 8
	Float    DataType = 9
	Double   DataType = 10
	Boolean  DataType = 11
	String   DataType = 12
	DateTime DataType = 13 // becomes an integer, ms since 1970
	Text     DataType = 14
	UUID     DataType = 15
	Bytes    DataType = 17
	File     DataType = 18
)

// Fields of a metric that hold its value.
const (
	intValue     = 10
	longValue    = 11
	floatValue   = 12
	doubleValue  = 13
	booleanValue = 14
	stringValue  = 15
	bytesValue   = 16
)

// value is the metric's value as the type says, false if it has none that can be
// a reading.
func (m Metric) value(t DataType) (holdfast.Value, bool) {
	r := m.raw
	whole := r.field == intValue || r.field == longValue
	switch t {
	case Int8, Int16, Int32, Int64:
		if !whole {
			return holdfast.Value{}, false
		}
		return holdfast.IntegerValue(signed(r, t)), true
	case UInt8, UInt16, UInt32, UInt64, DateTime:
		if !whole || r.bits > math.MaxInt64 {
			return holdfast.Value{}, false
		}
		return holdfast.IntegerValue(int64(r.bits)), true
	case Float:
		return holdfast.NumberValue(float64(math.Float32frombits(uint32(r.bits)))), r.field == floatValue
	case Double:
		return holdfast.NumberValue(math.Float64frombits(r.bits)), r.field == doubleValue
	case Boolean:
		return holdfast.BooleanValue(r.bits != 0), r.field == booleanValue
	case String, Text, UUID:
		fits := r.field == stringValue && len(r.data) <= holdfast.MaxValueBytes && utf8.Valid(r.data)
		if !fits {
			return holdfast.Value{}, false
		}
		return holdfast.TextValue(string(r.data)), true
	case Bytes, File:
		if r.field != bytesValue || len(r.data) > holdfast.MaxValueBytes {
			return holdfast.Value{}, false
		}
		return holdfast.BytesValue(r.data), true
	}
	return holdfast.Value{}, false
}

// signed reads two's complement: of 8, 16 and 32 bits as some senders write it,
// of 32 as others do, or of 64.
func signed(r raw, t DataType) int64 {
	switch {
	case t == Int8:
		return int64(int8(r.bits))
	case t == Int16:
		return int64(int16(r.bits))
	case t == Int32 || r.field == intValue:
		return int64(int32(r.bits))
	}
	return int64(r.bits)
}
