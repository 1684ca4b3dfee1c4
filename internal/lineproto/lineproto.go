// Package lineproto reads InfluxDB line protocol, as Telegraf and many loggers
// write it:
//
//	measurement[,tag=value]... field=value[,field=value]... [timestamp]
//
// It promises the values that were written: a float is what strconv reads, an
// integer is exact, a text keeps every byte; and that an error concerns one
// line, names it by its number and repeats nothing of it. It is made for the hot
// path: no allocation but for texts, and memory bounded by one line's limits.
//
// It does not decide what a point means here: which tags are known, whose the
// tag device is, and which time a point without one gets is the caller's. It
// does not write line protocol.
//
// # What is read
//
// A backslash before a comma or a space, in tags and field keys before an equals
// sign too, makes it part of the name; any other backslash stands for itself. A
// text stands in double quotes, may run over line ends, and escapes " and \ with
// a backslash. A float may not be NaN or infinite; an integer ends in i, an
// unsigned one in u, and what is beyond int64 is refused; a boolean is t, T,
// true, True, TRUE or the same of false. Lines end in LF or CR LF; blank ones
// and those that begin with # say nothing. Names, tags and texts are UTF-8. A
// tag may stand in a line once.
//
// Source: the line protocol reference of InfluxDB v1 and v2.
package lineproto

import (
	"bytes"
	"iter"

	"github.com/holdfast-iot/holdfast"
)

// Limits on one line. Those on a value and a name are the root package's.
const (
	MaxLineBytes = 1 << 20
	MaxTags      = 64
	MaxFields    = 1024
)

// Precision is the unit of timestamps, in nanoseconds.
type Precision int64

// The precisions of the APIs of InfluxDB v1 and v2.
const (
	Nanosecond  Precision = 1
	Microsecond           = 1000 * Nanosecond
	Millisecond           = 1000 * Microsecond
	Second                = 1000 * Millisecond
	Minute                = 60 * Second
	Hour                  = 60 * Minute
)

// ParsePrecision reads the query parameter precision; left out, it is ns.
func ParsePrecision(s string) (Precision, error) {
	switch s {
	case "", "n", "ns":
		return Nanosecond, nil
	case "u", "us", "µ", "µs":
		return Microsecond, nil
	case "ms":
		return Millisecond, nil
	case "s":
		return Second, nil
	case "m":
		return Minute, nil
	case "h":
		return Hour, nil
	}
	return 0, holdfast.Errorf(holdfast.Invalid, "a precision is ns, us, ms, s, m or h")
}

// Tag is a key and a value, without escapes.
type Tag struct{ Key, Value []byte }

// Field is a key without escapes, and a number, integer, boolean or text.
type Field struct {
	Key   []byte
	Value holdfast.Value
}

// Point is what one line says.
type Point struct {
	Line        int // where it begins, counted from 1
	Measurement []byte
	Tags        []Tag
	Fields      []Field // at least one
	Time        int64   // ns since 1970, valid if Timed
	Timed       bool
}

// Tag returns the value of a tag, and whether the point has it.
func (p *Point) Tag(key string) ([]byte, bool) {
	for i := range p.Tags {
		if string(p.Tags[i].Key) == key {
			return p.Tags[i].Value, true
		}
	}
	return nil, false
}

// AppendStream appends the name of the stream of a field, which is
// measurement_field. It is not checked, so that a caller can look it up first.
func (p *Point) AppendStream(dst []byte, f *Field) []byte {
	dst = append(dst, p.Measurement...)
	return append(append(dst, '_'), f.Key...)
}

// Stream returns the name that AppendStream appends, if it may name a stream.
func (p *Point) Stream(f *Field) (string, error) {
	s := string(p.AppendStream(make([]byte, 0, holdfast.MaxNameBytes), f))
	if err := holdfast.CheckName("stream", s); err != nil {
		return "", holdfast.Errorf(holdfast.KindOf(err), "line %d: %w", p.Line, err)
	}
	return s, nil
}

// Decode yields the points of data in order. A point, and all it refers to but
// its values, is valid until the next one.
//
// A line that can't be read yields an error in its place; who goes on gets the
// lines after it, from the next line end on.
func Decode(data []byte, unit Precision) iter.Seq2[*Point, error] {
	return func(yield func(*Point, error) bool) {
		d := decoder{unit: unit}
		line := 1
		for start := 0; start < len(data); {
			limit := min(len(data), start+MaxLineBytes)
			d.data, d.pos = data[:limit], start
			d.point.Line = line
			found, err := d.line()
			cut := limit < len(data) && bytes.IndexByte(data[d.pos:limit], '\n') < 0 && data[limit] != '\n'
			if cut {
				found, err = false, errLine
			}
			next := len(data)
			if i := bytes.IndexByte(data[d.pos:], '\n'); i >= 0 {
				next = d.pos + i + 1
			}
			line += bytes.Count(data[start:next], []byte{'\n'}) // a text may hold some
			start = next
			switch {
			case err != nil:
				if !yield(nil, holdfast.Errorf(holdfast.KindOf(err), "line %d: %w", d.point.Line, err)) {
					return
				}
			case found:
				if !yield(&d.point, nil) {
					return
				}
			}
		}
	}
}
