package query

import (
	"bufio"
	"encoding/base64"
	"io"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/senml"
)

// The encoders write rows as they come and end with the result's first error;
// what was written before it stands, and the text is left unfinished so that its
// reader sees it. All of them are exact: a number is the shortest decimal that
// gives its 64 bits back, a time has its nanoseconds (RFC 3339, UTC), bytes are
// standard base64. What JSON has no number for is a text: NaN, Infinity,
// -Infinity, and NaN: with 16 hexadecimal digits for another NaN's bits.

// Media types of the encoders' output. WriteSenML's is senml.MediaJSON.
const (
	MediaCSV    = "text/csv; charset=utf-8; header=present"
	MediaJSON   = "application/json"
	MediaNDJSON = "application/x-ndjson"
)

const bufferSize = 32 << 10

// eachLine calls line for every row and writes what it appends.
func eachLine(w io.Writer, r *Result, head string, line func(dst []byte, row *Row, n int) []byte) error {
	b := bufio.NewWriterSize(w, bufferSize)
	if _, err := b.WriteString(head); err != nil {
		return err
	}
	var buf []byte
	n := 0
	for row, err := range r.Rows {
		if err != nil {
			if ferr := b.Flush(); ferr != nil {
				return ferr
			}
			return err
		}
		buf = line(buf[:0], &row, n)
		if _, err := b.Write(buf); err != nil {
			return err
		}
		n++
	}
	return b.Flush()
}

// WriteNDJSON writes a JSON object and a line feed for each row.
func WriteNDJSON(w io.Writer, r *Result) error {
	var e encoder
	return eachLine(w, r, "", func(dst []byte, row *Row, _ int) []byte {
		return append(e.appendJSON(dst, row, r.Aggregates), '\n')
	})
}

// WriteJSON writes one object: rows, then the number of streams withheld, then
// the cursor of the next page if there is one.
func WriteJSON(w io.Writer, r *Result) error {
	var e encoder
	err := eachLine(w, r, `{"rows":[`, func(dst []byte, row *Row, n int) []byte {
		if n > 0 {
			dst = append(dst, ',')
		}
		return e.appendJSON(append(dst, '\n'), row, r.Aggregates)
	})
	if err != nil {
		return err
	}
	tail := strconv.AppendInt([]byte("\n],\"withheld\":"), int64(r.Withheld), 10)
	if c := r.Cursor(); c != "" {
		tail = appendText(append(tail, `,"cursor":`...), c)
	}
	_, err = w.Write(append(tail, "}\n"...))
	return err
}

// WriteSenML writes a SenML pack (RFC 8428, JSON) of readings; a record's name is
// the device's id, a slash and the stream. Windows are refused.
func WriteSenML(w io.Writer, r *Result) error {
	if len(r.Aggregates) > 0 {
		return holdfast.Errorf(holdfast.Invalid, "SenML carries readings: ask for windows as JSON or CSV")
	}
	var name string
	var of *Source
	err := eachLine(w, r, "[", func(dst []byte, row *Row, n int) []byte {
		if of != row.Source {
			of, name = row.Source, row.Device.String()+"/"+row.Stream
		}
		if n > 0 {
			dst = append(dst, ',')
		}
		return senml.AppendJSON(append(dst, '\n'), name, row.Unit, row.Reading)
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, "\n]\n")
	return err
}

// encoder keeps what repeats from row to row.
type encoder struct {
	of     *Source
	prefix []byte // of the rows of a source
	second int64
	date   []byte // the second as text, with the point
}

func (e *encoder) appendJSON(dst []byte, row *Row, aggregates []Aggregate) []byte {
	if e.of != row.Source {
		e.of = row.Source
		p := append(e.prefix[:0], `{"device":"`...)
		p = appendText(append(append(p, row.Device.String()...), `","device_name":`...), row.DeviceName)
		p = appendText(append(p, `,"stream":`...), row.Stream)
		p = append(append(append(p, `,"type":"`...), row.Type.String()...), '"')
		if row.Unit != "" {
			p = appendText(append(p, `,"unit":`...), row.Unit)
		}
		e.prefix = p
	}
	dst = append(dst, e.prefix...)
	if row.Window != nil {
		return e.appendWindow(dst, row.Window, aggregates)
	}
	dst = append(e.appendTime(append(dst, `,"time":"`...), row.Time), '"')
	if row.Seq != 0 {
		dst = strconv.AppendUint(append(dst, `,"seq":`...), row.Seq, 10)
	}
	dst = appendJSONValue(append(dst, `,"value":`...), row.Value)
	if row.Mark != 0 {
		dst = append(dst, `,"marks":[`...)
		for i, m := range marksOf(row.Mark) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(append(append(dst, '"'), m...), '"')
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

func (e *encoder) appendWindow(dst []byte, w *Window, aggregates []Aggregate) []byte {
	dst = append(e.appendTime(append(dst, `,"start":"`...), w.Start), '"')
	dst = append(e.appendTime(append(dst, `,"end":"`...), w.End), '"')
	for _, a := range aggregates {
		if v, ok := w.Value(a); ok {
			dst = append(append(append(dst, `,"`...), a.String()...), `":`...)
			dst = appendJSONValue(dst, v)
		}
	}
	return append(dst, '}')
}

// appendTime writes RFC 3339 with nine digits of a second, in UTC.
func (e *encoder) appendTime(dst []byte, ns int64) []byte {
	second, rest := ns/1e9, ns%1e9
	if rest < 0 {
		second, rest = second-1, rest+1e9
	}
	if len(e.date) == 0 || e.second != second {
		e.second = second
		e.date = time.Unix(second, 0).UTC().AppendFormat(e.date[:0], "2006-01-02T15:04:05.")
	}
	dst = append(dst, e.date...)
	start := len(dst)
	dst = strconv.AppendInt(dst, 1e9+rest, 10) // the 1 keeps the zeros
	copy(dst[start:], dst[start+1:])
	dst[len(dst)-1] = 'Z'
	return dst
}

var markNames = [...]struct {
	mark holdfast.Mark
	name string
}{{holdfast.Stamped, "stamped"}, {holdfast.Clock, "clock"}, {holdfast.TLS12, "tls12"}}

// marksOf returns the names of a reading's marks.
func marksOf(m holdfast.Mark) (names []string) {
	for _, n := range markNames {
		if m&n.mark != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

func appendJSONValue(dst []byte, v holdfast.Value) []byte {
	switch v.Type() {
	case holdfast.Number:
		return appendJSONNumber(dst, v.Number())
	case holdfast.Integer:
		return strconv.AppendInt(dst, v.Integer(), 10)
	case holdfast.Boolean:
		return strconv.AppendBool(dst, v.Boolean())
	case holdfast.Text:
		return appendText(dst, v.Text())
	case holdfast.Bytes:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), v.Bytes()), '"')
	case holdfast.Location:
		p := v.Position()
		dst = appendJSONNumber(append(dst, `{"lat":`...), p.Latitude)
		dst = appendJSONNumber(append(dst, `,"lon":`...), p.Longitude)
		if !unknown(p.Altitude) {
			dst = appendJSONNumber(append(dst, `,"alt":`...), p.Altitude)
		}
		return append(dst, '}')
	}
	return append(dst, "null"...)
}

// unknown reports that f is the NaN of an altitude that nobody knows.
func unknown(f float64) bool { return math.Float64bits(f) == math.Float64bits(math.NaN()) }

func appendJSONNumber(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(appendNumber(append(dst, '"'), f), '"')
	}
	return appendNumber(dst, f)
}

// appendNumber writes the shortest decimal that gives f back, with an exponent
// where the plain one is long or would look like an exact integer.
func appendNumber(dst []byte, f float64) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	case unknown(f):
		return append(dst, "NaN"...)
	case math.IsNaN(f):
		return strconv.AppendUint(append(dst, "NaN:"...), math.Float64bits(f), 16) // its exponent is all ones: 16 digits
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && a < 1e-6 || a >= 1<<53 {
		format = 'e'
	}
	return strconv.AppendFloat(dst, f, format, -1, 64)
}

// appendText writes a JSON string. Names and texts are UTF-8; were one not, its
// broken bytes become U+FFFD.
func appendText(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < 0x7f {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, n := utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			dst = append(append(dst, s[from:i]...), "\ufffd"...)
		} else if dst = append(dst, s[from:i]...); c == '"' || c == '\\' {
			dst = append(dst, '\\', c)
		} else {
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}
