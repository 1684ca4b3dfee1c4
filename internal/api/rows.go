package api

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"net/http"
	"strconv"

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
		return &csvRows{out: out, result: result, clock: clock{zone: result.Zone}}
	case formatParquet:
		if len(result.Aggregates) > 0 {
			return newParquetWindows(out, result)
		}
		return newParquetRows(out)
	case formatColumns:
		return &columnRows{out: out, result: result}
	case formatSenML:
		return &senmlRows{out: out, several: severalDevices(result.Sources)}
	}
	return &jsonRows{out: out, result: result, lines: f == formatNDJSON, first: true, clock: clock{zone: result.Zone}}
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
	clock  clock
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
		j.of, j.head = r.Source, appendHead(j.head[:0], r.Source, j.result.By)
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
		b = j.window(b, r.Window)
	} else {
		b = j.reading(b, r.Reading)
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
		b = appendDone(b, j.count, j.result.Withheld, next)
	} else {
		b = append(b, "\n]"...)
		if next != "" {
			b = appendString(append(b, `,"next":`...), next)
		}
		b = append(b, "}\n"...)
	}
	_, err := j.out.Write(b)
	return err
}

// appendDone is the last line of an answer in lines.
func appendDone(b []byte, rows, withheld int, next string) []byte {
	b = strconv.AppendInt(append(b, `{"done":true,"rows":`...), int64(rows), 10)
	b = strconv.AppendInt(append(b, `,"withheld":`...), int64(withheld), 10)
	if next != "" {
		b = appendString(append(b, `,"next":`...), next)
	}
	return append(b, "}\n"...)
}

func (j *jsonRows) broken(p *Problem) {
	if j.lines {
		json.NewEncoder(j.out).Encode(map[string]any{"error": p})
	}
}

// appendHead begins a row with what all rows of its stream or group have.
func appendHead(b []byte, s *query.Source, by query.Keys) []byte {
	b = append(b, '{')
	field := func(name, value string) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = appendString(append(append(append(b, '"'), name...), `":`...), value)
	}
	if by == 0 || by&query.ByDevice != 0 {
		field("device", s.Device.String())
		field("label", s.DeviceName)
	}
	if by == 0 || by&query.ByStream != 0 {
		field("stream", s.Stream)
	}
	if by&query.ByOwner != 0 {
		field("owner", s.Owner.String())
	}
	if by&query.ByProfile != 0 {
		field("profile", s.Profile)
	}
	if s.Unit != "" {
		field("unit", s.Unit)
	}
	field("type", s.Type.String())
	if by != 0 {
		b = strconv.AppendInt(append(b, `,"streams":`...), int64(s.Streams), 10)
	}
	return b
}

func (j *jsonRows) reading(b []byte, r holdfast.Reading) []byte {
	b = append(j.clock.append(append(b, `,"time":"`...), r.Time), '"')
	b = appendValue(append(b, `,"value":`...), r.Value)
	if r.Seq != 0 {
		b = strconv.AppendUint(append(b, `,"seq":`...), r.Seq, 10)
	}
	if r.Mark == 0 {
		return b
	}
	return appendMarks(append(b, `,"marks":`...), r.Mark)
}

func appendMarks(b []byte, m holdfast.Mark) []byte {
	b = append(b, '[')
	for i, name := range marks(m) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, name)
	}
	return append(b, ']')
}

func (j *jsonRows) window(b []byte, w *query.Window) []byte {
	b = j.clock.append(append(b, `,"start":"`...), w.Start)
	b = j.clock.append(append(b, `","end":"`...), w.End)
	b = strconv.AppendUint(append(b, `","readings":`...), w.Count, 10)
	for _, g := range j.result.Aggregates {
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
