package api

import (
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/senml"
)

// rows writes rows in one format. docs/api.md says what they look like.
type rows interface {
	headers(h http.Header)
	begin() error
	row(r query.Row) error
	end(next string) error
	broken(p *Problem) // the last words of an answer that breaks off, where there is a place for them
}

func newRows(f format, out *sink, result *query.Result) rows {
	switch f {
	case formatCSV:
		return &csvRows{w: csv.NewWriter(out), result: result}
	case formatParquet:
		return newParquetRows(out)
	case formatSenML:
		return &senmlRows{out: out, several: severalDevices(result.Sources)}
	}
	return &jsonRows{out: out, result: result, lines: f == formatNDJSON, first: true}
}

func severalDevices(sources []*query.Source) bool {
	for _, s := range sources {
		if s.Device != sources[0].Device {
			return true
		}
	}
	return false
}

// jsonRows writes an object a row: one to a line, or all in one document.
type jsonRows struct {
	out    *sink
	result *query.Result
	lines  bool
	first  bool
	count  int
	buf    []byte
	of     *query.Source // whose head is
	head   []byte        // what all rows of a stream begin with
}

func (j *jsonRows) headers(h http.Header) {
	if j.lines {
		h.Set("Content-Type", "application/x-ndjson")
		return
	}
	h.Set("Content-Type", "application/json")
}

func (j *jsonRows) begin() error {
	if j.lines {
		return nil
	}
	j.buf = append(j.buf[:0], `{"purpose":`...)
	j.buf = appendString(j.buf, string(j.result.Purpose))
	j.buf = append(j.buf, `,"withheld":`...)
	j.buf = strconv.AppendInt(j.buf, int64(j.result.Withheld), 10)
	_, err := j.out.Write(append(j.buf, `,"rows":[`...))
	return err
}

func (j *jsonRows) row(r query.Row) error {
	if j.of != r.Source {
		j.of, j.head = r.Source, appendHead(j.head[:0], r.Source)
	}
	b := j.buf[:0]
	if !j.lines && !j.first {
		b = append(b, ',')
	}
	if !j.lines {
		b = append(b, '\n')
	}
	j.first = false
	b = append(b, j.head...)
	if r.Window != nil {
		b = appendWindow(b, r.Window, j.result.Aggregates)
	} else {
		b = appendReading(b, r.Reading)
	}
	b = append(b, '}')
	if j.lines {
		b = append(b, '\n')
	}
	j.buf = b
	j.count++
	_, err := j.out.Write(b)
	return err
}

func (j *jsonRows) end(next string) error {
	b := j.buf[:0]
	if j.lines {
		b = append(b, `{"done":true,"rows":`...)
		b = strconv.AppendInt(b, int64(j.count), 10)
		b = append(b, `,"withheld":`...)
		b = strconv.AppendInt(b, int64(j.result.Withheld), 10)
	} else {
		b = append(b, "\n]"...)
	}
	if next != "" {
		b = appendString(append(b, `,"next":`...), next)
	}
	_, err := j.out.Write(append(b, "}\n"...))
	return err
}

func (j *jsonRows) broken(p *Problem) {
	if j.lines {
		json.NewEncoder(j.out).Encode(map[string]any{"error": p})
	}
}

func appendHead(b []byte, s *query.Source) []byte {
	b = appendString(append(b, `{"device":`...), s.Device.String())
	b = appendString(append(b, `,"label":`...), s.DeviceName)
	b = appendString(append(b, `,"stream":`...), s.Stream)
	if s.Unit != "" {
		b = appendString(append(b, `,"unit":`...), s.Unit)
	}
	return appendString(append(b, `,"type":`...), s.Type.String())
}

func appendReading(b []byte, r holdfast.Reading) []byte {
	b = appendTime(append(b, `,"time":`...), r.Time)
	b = appendValue(append(b, `,"value":`...), r.Value)
	if r.Seq != 0 {
		b = strconv.AppendUint(append(b, `,"seq":`...), r.Seq, 10)
	}
	for i, m := range marks(r.Mark) {
		b = append(b, [2]string{`,"marks":[`, `,`}[min(i, 1)]...)
		b = appendString(b, m)
	}
	if r.Mark != 0 {
		b = append(b, ']')
	}
	return b
}

func appendWindow(b []byte, w *query.Window, aggregates []query.Aggregate) []byte {
	b = appendTime(append(b, `,"start":`...), w.Start)
	b = appendTime(append(b, `,"end":`...), w.End)
	b = strconv.AppendUint(append(b, `,"readings":`...), w.Count, 10)
	for _, g := range aggregates {
		b = append(append(append(b, `,"`...), g.String()...), `":`...)
		if v, ok := w.Value(g); ok {
			b = appendValue(b, v)
		} else {
			b = append(b, "null"...)
		}
	}
	return b
}

func marks(m holdfast.Mark) []string {
	var out []string
	for _, k := range []struct {
		m    holdfast.Mark
		name string
	}{{holdfast.Stamped, "stamped"}, {holdfast.Clock, "clock"}, {holdfast.TLS12, "tls12"}} {
		if m&k.m != 0 {
			out = append(out, k.name)
		}
	}
	return out
}

func appendTime(b []byte, ns int64) []byte {
	b = append(b, '"')
	return append(time.Unix(0, ns).UTC().AppendFormat(b, time.RFC3339Nano), '"')
}

// appendValue writes a value without loss: a number that JSON can't write is a
// text, bytes are standard base64, a location is an object.
func appendValue(b []byte, v holdfast.Value) []byte {
	switch v.Type() {
	case holdfast.Number:
		if s := special(v.Number()); s != "" {
			return appendString(b, s)
		}
		return appendFloat(b, v.Number())
	case holdfast.Integer:
		return strconv.AppendInt(b, v.Integer(), 10)
	case holdfast.Boolean:
		return strconv.AppendBool(b, v.Boolean())
	case holdfast.Text:
		return appendString(b, v.Text())
	case holdfast.Bytes:
		b = base64.StdEncoding.AppendEncode(append(b, '"'), v.Bytes())
		return append(b, '"')
	case holdfast.Location:
		p := v.Position()
		b = appendCoordinate(append(b, `{"latitude":`...), p.Latitude)
		b = appendCoordinate(append(b, `,"longitude":`...), p.Longitude)
		if !math.IsNaN(p.Altitude) {
			b = appendCoordinate(append(b, `,"altitude":`...), p.Altitude)
		}
		return append(b, '}')
	}
	return append(b, "null"...)
}

func appendCoordinate(b []byte, f float64) []byte {
	if s := special(f); s != "" {
		return appendString(b, s)
	}
	return appendFloat(b, f)
}

// appendFloat writes the shortest literal that gives f back.
func appendFloat(b []byte, f float64) []byte {
	format := byte('f')
	if a := math.Abs(f); a != 0 && a < 1e-6 || a >= 1e21 {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, 64)
}

// special names the numbers that JSON has no literal for; a NaN with other bits
// than the usual one has them as 16 hexadecimal digits.
func special(f float64) string {
	switch bits := math.Float64bits(f); {
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case !math.IsNaN(f):
		return ""
	case bits == math.Float64bits(math.NaN()):
		return "NaN"
	default:
		return "NaN:" + strconv.FormatUint(bits, 16)
	}
}

func appendString(b []byte, s string) []byte {
	text, _ := json.Marshal(s) // a string never fails
	return append(b, text...)
}

// csvRows writes a line a row under a header.
type csvRows struct {
	w      *csv.Writer
	result *query.Result
	fields []string
}

func (c *csvRows) headers(h http.Header) {
	h.Set("Content-Type", "text/csv; charset=utf-8; header=present")
}

func (c *csvRows) begin() error {
	head := []string{"device", "label", "stream", "unit", "type"}
	if len(c.result.Aggregates) == 0 {
		return c.write(append(head, "time", "value", "seq", "marks"))
	}
	head = append(head, "start", "end", "readings")
	for _, g := range c.result.Aggregates {
		head = append(head, g.String())
	}
	return c.write(head)
}

// write hands each line on, so that the sink decides when to flush.
func (c *csvRows) write(fields []string) error {
	if err := c.w.Write(fields); err != nil {
		return err
	}
	c.w.Flush()
	return c.w.Error()
}

func (c *csvRows) row(r query.Row) error {
	f := append(c.fields[:0], r.Device.String(), r.DeviceName, r.Stream, r.Unit, r.Type.String())
	if r.Window != nil {
		f = append(f, timeText(r.Window.Start), timeText(r.Window.End), strconv.FormatUint(r.Window.Count, 10))
		for _, g := range c.result.Aggregates {
			v, _ := r.Window.Value(g)
			f = append(f, valueText(v))
		}
	} else {
		seq, set := "", ""
		if r.Seq != 0 {
			seq = strconv.FormatUint(r.Seq, 10)
		}
		for i, m := range marks(r.Mark) {
			set += [2]string{"", " "}[min(i, 1)] + m
		}
		f = append(f, timeText(r.Time), valueText(r.Value), seq, set)
	}
	c.fields = f
	return c.write(f)
}

func (c *csvRows) end(string) error { return nil }
func (c *csvRows) broken(*Problem)  {}

func timeText(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

// valueText is a value in one cell: a location has its coordinates with spaces.
func valueText(v holdfast.Value) string {
	switch v.Type() {
	case holdfast.Text:
		return v.Text()
	case holdfast.Bytes:
		return base64.StdEncoding.EncodeToString(v.Bytes())
	case holdfast.Location:
		p := v.Position()
		s := numberText(p.Latitude) + " " + numberText(p.Longitude)
		if !math.IsNaN(p.Altitude) {
			s += " " + numberText(p.Altitude)
		}
		return s
	case holdfast.Number:
		return numberText(v.Number())
	case 0:
		return ""
	}
	return string(appendValue(nil, v))
}

func numberText(f float64) string {
	if s := special(f); s != "" {
		return s
	}
	return string(appendFloat(nil, f))
}

// senmlRows writes one SenML pack (RFC 8428). Where rows are of several devices,
// a record's name is DEVICE-ID/STREAM, else it is the stream's, as it was sent.
type senmlRows struct {
	out     *sink
	several bool
	buf     []byte
	more    bool
}

func (s *senmlRows) headers(h http.Header) { h.Set("Content-Type", senml.MediaJSON) }

func (s *senmlRows) begin() error {
	_, err := s.out.Write([]byte{'['})
	return err
}

func (s *senmlRows) row(r query.Row) error {
	b := s.buf[:0]
	if s.more {
		b = append(b, ',')
	}
	s.more = true
	name := r.Stream
	if s.several {
		name = r.Device.String() + "/" + name
	}
	s.buf = senml.AppendJSON(append(b, '\n'), name, r.Unit, r.Reading)
	_, err := s.out.Write(s.buf)
	return err
}

func (s *senmlRows) end(string) error {
	_, err := s.out.Write([]byte("\n]\n"))
	return err
}

func (s *senmlRows) broken(*Problem) {}
