package lineproto

import (
	"bytes"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
)

var (
	errLine        = holdfast.Errorf(holdfast.TooLarge, "a line has at most %d bytes", MaxLineBytes)
	errTags        = holdfast.Errorf(holdfast.TooLarge, "a line has at most %d tags", MaxTags)
	errFields      = holdfast.Errorf(holdfast.TooLarge, "a line has at most %d fields", MaxFields)
	errText        = holdfast.Errorf(holdfast.TooLarge, "a text has at most %d bytes", holdfast.MaxValueBytes)
	errMeasurement = holdfast.Errorf(holdfast.Invalid, "it has no measurement")
	errTag         = holdfast.Errorf(holdfast.Invalid, "a tag is key=value, neither of them empty")
	errTagTwice    = holdfast.Errorf(holdfast.Invalid, "a tag stands twice")
	errNoFields    = holdfast.Errorf(holdfast.Invalid, "it has no fields")
	errField       = holdfast.Errorf(holdfast.Invalid, "a field is key=value, neither of them empty")
	errValue       = holdfast.Errorf(holdfast.Invalid, `a value is a number, an integer with i or u, a boolean, or a text in double quotes`)
	errQuote       = holdfast.Errorf(holdfast.Invalid, "a text has no closing quote")
	errRange       = holdfast.Errorf(holdfast.Invalid, "a number is beyond the range of a float64 or, with i or u, of an int64")
	errUTF8        = holdfast.Errorf(holdfast.Invalid, "names, tags and texts must be UTF-8")
	errTime        = holdfast.Errorf(holdfast.Invalid, "a timestamp is an integer, and the last thing in a line")
	errTimeRange   = holdfast.Errorf(holdfast.Invalid, "the timestamp lies outside %s to %s in the precision given",
		holdfast.MinTime.Format("2006-01-02"), holdfast.MaxTime.Format("2006-01-02"))
)

// decoder reads one line after the other into one point.
type decoder struct {
	unit  Precision
	data  []byte // up to where the line at pos must end at the latest
	pos   int
	point Point
	plain []byte // names of the point without their escapes
}

// What ends a part of a line. A backslash takes the meaning from those of its
// part but the line end.
const (
	inMeasurement = 1 << iota // comma, space
	inName                    // comma, space, equals sign
	inValue                   // comma, space, tab, CR
	escape
	lineEnd
)

var class = [256]byte{
	',':  inMeasurement | inName | inValue,
	' ':  inMeasurement | inName | inValue,
	'=':  inName,
	'\t': inValue,
	'\r': inValue,
	'\n': lineEnd,
	'\\': escape,
}

// line reads a line up to its end; false if it says nothing.
func (d *decoder) line() (bool, error) {
	p := &d.point
	p.Tags, p.Fields, d.plain = p.Tags[:0], p.Fields[:0], d.plain[:0]
	p.Time, p.Timed = 0, false
	d.space()
	switch d.peek() {
	case '\n', '#':
		return false, nil
	}
	var err error
	if p.Measurement, err = d.name(inMeasurement); err != nil {
		return false, err
	}
	if len(p.Measurement) == 0 {
		return false, errMeasurement
	}
	if err := d.tags(); err != nil {
		return false, err
	}
	if d.peek() != ' ' {
		return false, errNoFields
	}
	d.space()
	if err := d.fields(); err != nil {
		return false, err
	}
	d.space()
	return true, d.time()
}

// peek returns the next byte, a line end at the end.
func (d *decoder) peek() byte {
	if d.pos < len(d.data) {
		return d.data[d.pos]
	}
	return '\n'
}

// space skips blanks, and the CR of a CR LF.
func (d *decoder) space() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\r':
			d.pos++
		default:
			return
		}
	}
}

// name reads a measurement, tag or key up to an unescaped byte of the class.
func (d *decoder) name(in byte) ([]byte, error) {
	start, i := d.pos, d.pos
	escaped := false
	var all byte
	for ; i < len(d.data); i++ {
		c := d.data[i]
		all |= c
		switch kind := class[c]; {
		case kind&(in|lineEnd) != 0:
			goto end
		case kind == escape && i+1 < len(d.data) && class[d.data[i+1]]&in != 0:
			escaped = true
			i++
		}
	}
end:
	d.pos = i
	raw := d.data[start:i:i]
	if all >= utf8.RuneSelf && !utf8.Valid(raw) {
		return nil, errUTF8
	}
	if escaped {
		raw = d.unescape(raw, in)
	}
	return raw, nil
}

// unescape keeps the result until the next line.
func (d *decoder) unescape(raw []byte, in byte) []byte {
	start := len(d.plain)
	for i := 0; i < len(raw); i++ {
		if raw[i] == '\\' && i+1 < len(raw) && class[raw[i+1]]&in != 0 {
			i++
		}
		d.plain = append(d.plain, raw[i])
	}
	return d.plain[start:len(d.plain):len(d.plain)]
}

func (d *decoder) tags() error {
	for d.peek() == ',' {
		d.pos++
		key, err := d.name(inName)
		if err != nil {
			return err
		}
		if len(key) == 0 || d.peek() != '=' {
			return errTag
		}
		d.pos++
		value, err := d.name(inName)
		if err != nil {
			return err
		}
		if len(value) == 0 || d.peek() == '=' {
			return errTag
		}
		tags := d.point.Tags
		for i := range tags {
			if bytes.Equal(tags[i].Key, key) {
				return errTagTwice
			}
		}
		if len(tags) == MaxTags {
			return errTags
		}
		d.point.Tags = append(tags, Tag{key, value})
	}
	return nil
}

func (d *decoder) fields() error {
	if d.peek() == '\n' {
		return errNoFields
	}
	for {
		key, err := d.name(inName)
		if err != nil {
			return err
		}
		if len(key) == 0 || d.peek() != '=' {
			return errField
		}
		d.pos++
		if len(d.point.Fields) == MaxFields {
			return errFields
		}
		d.point.Fields = append(d.point.Fields, Field{Key: key})
		if err := d.value(&d.point.Fields[len(d.point.Fields)-1].Value); err != nil {
			return err
		}
		if d.peek() != ',' {
			return nil
		}
		d.pos++
	}
}

// value reads what follows the equals sign of a field, and all of it.
func (d *decoder) value(to *holdfast.Value) error {
	var err error
	switch c := d.peek(); {
	case c == '"':
		err = d.text(to)
	case c-'0' <= 9 || c == '-' || c == '+' || c == '.':
		err = d.number(to)
	case c == ',' || class[c] != 0:
		return errField
	default:
		err = d.boolean(to)
	}
	if err == nil && class[d.peek()]&(inValue|lineEnd) == 0 {
		err = errValue
	}
	return err
}

func (d *decoder) boolean(to *holdfast.Value) error {
	start := d.pos
	for d.pos < len(d.data) && class[d.data[d.pos]]&(inValue|lineEnd) == 0 {
		d.pos++
	}
	switch string(d.data[start:d.pos]) {
	case "t", "T", "true", "True", "TRUE":
		*to = holdfast.BooleanValue(true)
	case "f", "F", "false", "False", "FALSE":
		*to = holdfast.BooleanValue(false)
	default:
		return errValue
	}
	return nil
}

func (d *decoder) text(to *holdfast.Value) error {
	start := d.pos + 1
	escaped := false
	var all byte
	for i := start; i < len(d.data); i++ {
		c := d.data[i]
		all |= c
		switch c {
		case '"':
			d.pos = i + 1
			raw := d.data[start:i]
			if all >= utf8.RuneSelf && !utf8.Valid(raw) {
				return errUTF8
			}
			if escaped {
				raw = unquote(raw)
			}
			if len(raw) > holdfast.MaxValueBytes {
				return errText
			}
			*to = holdfast.TextValue(string(raw))
			return nil
		case '\\':
			if i+1 < len(d.data) && (d.data[i+1] == '"' || d.data[i+1] == '\\') {
				escaped = true
				i++
			}
		}
	}
	// No quote follows, so no later line reads these bytes as a text once more.
	return errQuote
}

func unquote(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] == '\\' && i+1 < len(raw) && (raw[i+1] == '"' || raw[i+1] == '\\') {
			i++
		}
		out = append(out, raw[i])
	}
	return out
}

// powers are those of ten that a float64 holds exactly, as far as 19 digits need.
var powers = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9,
	1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
}

// digits adds up the digits from pos on; beyond 19 of them the sum wraps.
func (d *decoder) digits(sum uint64) (uint64, int) {
	start := d.pos
	for d.pos < len(d.data) && d.data[d.pos]-'0' <= 9 {
		sum = sum*10 + uint64(d.data[d.pos]-'0')
		d.pos++
	}
	return sum, d.pos - start
}

// sign reads a sign and reports whether it is a minus.
func (d *decoder) sign() bool {
	c := d.peek()
	if c == '-' || c == '+' {
		d.pos++
	}
	return c == '-'
}

func (d *decoder) number(to *holdfast.Value) error {
	start := d.pos
	negative := d.sign()
	sum, count := d.digits(0)
	switch d.peek() {
	case 'i', 'u':
		if count == 0 {
			return errValue
		}
		return d.integer(to, start, sum, count, negative)
	}
	fraction := 0
	if d.peek() == '.' {
		d.pos++
		sum, fraction = d.digits(sum)
		count += fraction
	}
	if count == 0 {
		return errValue
	}
	exponent := d.peek()|0x20 == 'e'
	if exponent {
		d.pos++
		d.sign()
		if _, n := d.digits(0); n == 0 {
			return errValue
		}
	}
	// Where digits and power are exact floats their quotient is rounded once.
	if !exponent && count <= 19 && sum < 1<<53 {
		f := float64(sum) / powers[fraction]
		if negative {
			f = -f
		}
		*to = holdfast.NumberValue(f)
		return nil
	}
	f, err := strconv.ParseFloat(string(d.data[start:d.pos]), 64)
	if err != nil {
		return errRange
	}
	*to = holdfast.NumberValue(f)
	return nil
}

// integer reads the suffix of an integer whose digits were read from start on.
func (d *decoder) integer(to *holdfast.Value, start int, sum uint64, count int, negative bool) error {
	if count > 19 { // leading zeros, or too large
		i, err := strconv.ParseInt(string(d.data[start:d.pos]), 10, 64)
		if err != nil {
			return errRange
		}
		sum = uint64(max(i, -i))
	}
	unsigned := d.peek() == 'u'
	if unsigned && (negative || d.data[start] == '+') {
		return errValue
	}
	d.pos++
	i, ok := signed(sum, negative)
	if !ok {
		return errRange
	}
	*to = holdfast.IntegerValue(i)
	return nil
}

// signed gives a magnitude its sign, and reports false if that does not fit.
func signed(magnitude uint64, negative bool) (int64, bool) {
	if negative {
		return int64(-magnitude), magnitude <= 1<<63
	}
	return int64(magnitude), magnitude <= math.MaxInt64
}

// time reads the timestamp, if there is one, and what blanks follow.
func (d *decoder) time() error {
	if d.peek() == '\n' {
		return nil
	}
	negative := d.sign()
	sum, count := d.digits(0)
	if count == 0 {
		return errTime
	}
	d.space()
	if d.peek() != '\n' {
		return errTime
	}
	hi, lo := bits.Mul64(sum, uint64(d.unit))
	t, ok := signed(lo, negative)
	if !ok || hi != 0 || count > 19 {
		return errTimeRange
	}
	d.point.Time, d.point.Timed = t, true
	return nil
}
