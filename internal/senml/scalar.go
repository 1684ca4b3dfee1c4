package senml

import (
	"encoding/base64"
	"math"
	"time"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
)

const scalars = `true, false, a number, a string, {"lat":..,"lon":..,"alt":..}, {"b64":".."}, {"t":..,"v":..,"seq":..} with one of those as v, or text that is not JSON`

var (
	errEmpty     = holdfast.Errorf(holdfast.Invalid, "the payload is empty")
	errArray     = holdfast.Errorf(holdfast.Invalid, "an array is no reading: publish a SenML pack to the topic data, or one of %s", scalars)
	errNull      = holdfast.Errorf(holdfast.Invalid, "null is no reading: publish one of %s", scalars)
	errShape     = holdfast.Errorf(holdfast.Invalid, "the payload is not one of %s", scalars)
	errObject    = holdfast.Errorf(holdfast.Invalid, "the payload begins like a JSON object and is not valid JSON")
	errTwice     = holdfast.Errorf(holdfast.Invalid, "a key stands twice in one object")
	errOverflow  = holdfast.Errorf(holdfast.Invalid, "a number is beyond the range of a float64")
	errTime      = holdfast.Errorf(holdfast.Invalid, "a time is an RFC 3339 text or Unix seconds as a number")
	errTimeRange = holdfast.Errorf(holdfast.Invalid, "a time lies outside %s to %s", holdfast.MinTime.Format(time.DateOnly), holdfast.MaxTime.Format(time.DateOnly))
	errSeq       = holdfast.Errorf(holdfast.Invalid, "a sequence number is an unsigned integer of 64 bits")
	errControl   = holdfast.Errorf(holdfast.Invalid, "text that is not JSON must be UTF-8 without control characters")
)

// DecodeScalar reads the payload of data/STREAM: one value, or one value with
// its time and sequence. The sample's Stream is left empty.
//
//	21.5                                   number
//	true                                   boolean
//	"on"  on                               text
//	{"lat":52.5,"lon":13.4,"alt":34}       location; alt may be left out
//	{"b64":"AAEC"}                         bytes
//	{"t":1735689600.25,"v":21.5,"seq":7}   any of these with its time (RFC 3339, or
//	                                       decimal Unix seconds) and sequence
//
// What is not JSON is text if it does not begin with { or [ and is UTF-8 without
// control characters other than tab, line feed and carriage return. Time is
// taken to the nanosecond: finer digits of a number are rounded, of a text cut.
func DecodeScalar(payload []byte) (out holdfast.Sample, err error) {
	s := scanner{data: payload}
	switch s.peek() {
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		var n literal
		if s.number(&n) == nil && s.end() {
			err = setNumber(&out, &n)
			return out, err
		}
	case '{':
		s.pos++
		err = s.object(&out, 1)
		if err == nil && !s.end() {
			err = errObject
		}
		return out, err
	case '[':
		return out, errArray
	case '"':
		text, err := s.text()
		if err != errSyntax && s.end() {
			return out, setText(&out, text, err)
		}
	case 't':
		if s.word("true") && s.end() {
			out.Value = holdfast.BooleanValue(true)
			return out, nil
		}
	case 'f':
		if s.word("false") && s.end() {
			out.Value = holdfast.BooleanValue(false)
			return out, nil
		}
	case 'n':
		if s.word("null") && s.end() {
			return out, errNull
		}
	case 0:
		if len(payload) == 0 {
			return out, errEmpty
		}
	}
	return out, setPlainText(&out, payload)
}

func setNumber(out *holdfast.Sample, n *literal) error {
	q, ok := n.quantity()
	if !ok {
		return errOverflow
	}
	out.Value, out.Literal = q.value(), true
	return nil
}

func setText(out *holdfast.Sample, text []byte, err error) error {
	if err != nil {
		return err
	}
	out.Value, err = textValue(text)
	return err
}

// setPlainText takes a payload that is not JSON as it stands.
func setPlainText(out *holdfast.Sample, payload []byte) error {
	if len(payload) > holdfast.MaxValueBytes {
		return errTooLong
	}
	for i := 0; i < len(payload); {
		r, size := rune(payload[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRune(payload[i:])
		}
		switch {
		case r == utf8.RuneError && size == 1:
			return errControl
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', 0x7f <= r && r < 0xa0:
			return errControl
		}
		i += size
	}
	return setText(out, payload, nil)
}

// The members an object of a scalar may have.
const (
	memberT = 1 << iota
	memberV
	memberSeq
	memberLat
	memberLon
	memberAlt
	memberB64
)

// object reads an object whose brace was read, on level 1 or, as the v of
// another, on level 2.
func (s *scanner) object(out *holdfast.Sample, level int) error {
	if s.take('}') {
		return errShape
	}
	var seen uint
	var at holdfast.Position
	for {
		key, err := s.key()
		if err != nil {
			return asObject(err)
		}
		member := memberOf(key)
		if member == 0 || level > 1 && member < memberLat {
			return errShape
		}
		if seen&member != 0 {
			return errTwice
		}
		seen |= member
		switch member {
		case memberT:
			err = s.time(out)
		case memberV:
			err = s.value(out, level)
		case memberSeq:
			err = s.seq(&out.Seq)
		case memberLat:
			err = s.degrees(&at.Latitude)
		case memberLon:
			err = s.degrees(&at.Longitude)
		case memberAlt:
			err = s.degrees(&at.Altitude)
		case memberB64:
			err = s.base64(out)
		}
		if err != nil {
			return err
		}
		if s.take('}') {
			return finish(out, seen, at)
		}
		if !s.take(',') {
			return errObject
		}
	}
}

// asObject says of a syntax error where it stood.
func asObject(err error) error {
	if err == errSyntax {
		return errObject
	}
	return err
}

func memberOf(key []byte) uint {
	switch string(key) {
	case "t":
		return memberT
	case "v":
		return memberV
	case "seq":
		return memberSeq
	case "lat":
		return memberLat
	case "lon":
		return memberLon
	case "alt":
		return memberAlt
	case "b64":
		return memberB64
	}
	return 0
}

// finish takes the combinations of members that mean something.
func finish(out *holdfast.Sample, seen uint, at holdfast.Position) error {
	switch {
	case seen&memberV != 0 && seen < memberLat, seen == memberB64:
		return nil
	case seen|memberAlt == memberLat|memberLon|memberAlt:
		if seen&memberAlt == 0 {
			at.Altitude = math.NaN()
		}
		var err error
		out.Value, err = locationValue(at)
		return err
	}
	return errShape
}

func (s *scanner) value(out *holdfast.Sample, level int) error {
	switch s.peek() {
	case '{':
		s.pos++
		return s.object(out, level+1)
	case '[':
		return errShape
	case '"':
		text, err := s.text()
		return setText(out, text, asObject(err))
	case 't':
		out.Value = holdfast.BooleanValue(true)
		return wanted(s.word("true"))
	case 'f':
		out.Value = holdfast.BooleanValue(false)
		return wanted(s.word("false"))
	case 'n':
		if s.word("null") {
			return errShape
		}
		return errObject
	}
	var n literal
	if s.number(&n) != nil {
		return errObject
	}
	return setNumber(out, &n)
}

func wanted(found bool) error {
	if !found {
		return errObject
	}
	return nil
}

func (s *scanner) time(out *holdfast.Sample) error {
	out.Timed = true
	if s.peek() == '"' {
		text, err := s.text()
		if err != nil {
			return asObject(err)
		}
		var t time.Time
		if t.UnmarshalText(text) != nil {
			return errTime
		}
		if t.Before(holdfast.MinTime) || t.After(holdfast.MaxTime) {
			return errTimeRange
		}
		out.Time = t.UnixNano()
		return nil
	}
	var n literal
	if s.number(&n) != nil {
		return errTime
	}
	var ok bool
	if out.Time, ok = n.nanos(); !ok {
		return errTimeRange
	}
	return nil
}

func (s *scanner) seq(seq *uint64) error {
	var n literal
	var ok bool
	s.peek()
	if s.number(&n) != nil {
		return errSeq
	}
	if *seq, ok = n.unsigned(); !ok {
		return errSeq
	}
	return nil
}

func (s *scanner) degrees(f *float64) error {
	var n literal
	var ok bool
	s.peek()
	if s.number(&n) != nil {
		return errLocation
	}
	if *f, ok = n.float(); !ok {
		return errOverflow
	}
	return nil
}

func (s *scanner) base64(out *holdfast.Sample) error {
	if s.peek() != '"' {
		return errBase64
	}
	text, err := s.text()
	if err != nil {
		return asObject(err)
	}
	value, err := bytesValue(base64.StdEncoding, text)
	out.Value = value
	return err
}
