package api

import (
	"encoding/base64"
	"math"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// csvRows writes a line a row under a header.
type csvRows struct {
	out    *sink
	result *query.Result
	clock  clock
	buf    []byte
	of     *query.Source // whose head is
	head   []byte        // what all rows of a stream or group begin with
}

func (c *csvRows) headers(h http.Header) {
	h.Set("Content-Type", "text/csv; charset=utf-8; header=present")
}

// csvKeys names the columns that say what a row is of.
func csvKeys(by query.Keys) []string {
	if by == 0 {
		return []string{"device", "label", "stream", "unit", "type"}
	}
	var keys []string
	for _, k := range []struct {
		key   query.Keys
		names []string
	}{{query.ByDevice, []string{"device", "label"}}, {query.ByStream, []string{"stream"}}, {query.ByOwner, []string{"owner"}}, {query.ByProfile, []string{"profile"}}} {
		if by&k.key != 0 {
			keys = append(keys, k.names...)
		}
	}
	return append(keys, "unit", "type", "streams")
}

// keyOf is what a row has in the column of a key.
func keyOf(s *query.Source, key string) string {
	switch key {
	case "device":
		return s.Device.String()
	case "label":
		return s.DeviceName
	case "stream":
		return s.Stream
	case "owner":
		return s.Owner.String()
	case "profile":
		return s.Profile
	case "unit":
		return s.Unit
	case "type":
		return s.Type.String()
	}
	return strconv.Itoa(s.Streams)
}

func (c *csvRows) begin() error {
	head := csvKeys(c.result.By)
	if len(c.result.Aggregates) == 0 {
		head = append(head, "time", "value", "seq", "marks")
	} else {
		head = append(head, "start", "end", "readings")
		for _, g := range c.result.Aggregates {
			head = append(head, g.String())
		}
	}
	_, err := c.out.Write([]byte(strings.Join(head, ",") + "\n"))
	return err
}

func (c *csvRows) row(r query.Row) error {
	if c.of != r.Source {
		c.of, c.head = r.Source, c.head[:0]
		for _, key := range csvKeys(c.result.By) {
			c.head = append(appendCell(c.head, keyOf(r.Source, key)), ',')
		}
	}
	b := append(c.buf[:0], c.head...)
	if w := r.Window; w != nil {
		b = append(c.clock.append(b, w.Start), ',')
		b = append(c.clock.append(b, w.End), ',')
		b = strconv.AppendUint(b, w.Count, 10)
		for _, g := range c.result.Aggregates {
			v, _ := w.Value(g)
			b = c.value(append(b, ','), v)
		}
	} else {
		b = append(c.clock.append(b, r.Time), ',')
		b = append(c.value(b, r.Value), ',')
		if r.Seq != 0 {
			b = strconv.AppendUint(b, r.Seq, 10)
		}
		b = append(b, ',')
		if r.Mark != 0 {
			b = append(b, strings.Join(marks(r.Mark), " ")...)
		}
	}
	c.buf = append(b, '\n')
	_, err := c.out.Write(c.buf)
	return err
}

func (c *csvRows) end(string) error { return nil }
func (c *csvRows) broken(*Problem)  {}

// value appends a value as one cell: a location has its coordinates with spaces.
func (c *csvRows) value(b []byte, v holdfast.Value) []byte {
	switch v.Type() {
	case 0:
		return b
	case holdfast.Text:
		return appendCell(b, v.Text())
	case holdfast.Bytes:
		return base64.StdEncoding.AppendEncode(b, v.Bytes())
	case holdfast.Location:
		p := v.Position()
		b = appendNumber(append(appendNumber(b, p.Latitude), ' '), p.Longitude)
		if !math.IsNaN(p.Altitude) {
			b = appendNumber(append(b, ' '), p.Altitude)
		}
		return b
	case holdfast.Number:
		return appendNumber(b, v.Number())
	}
	return appendValue(b, v)
}

func appendNumber(b []byte, f float64) []byte {
	if s := special(f); s != "" {
		return append(b, s...)
	}
	return appendFloat(b, f)
}

// appendCell appends a text, in quotes where encoding/csv puts it in quotes.
func appendCell(b []byte, s string) []byte {
	first, _ := utf8.DecodeRuneInString(s)
	if s == "" || s != `\.` && !strings.ContainsAny(s, "\",\r\n") && !unicode.IsSpace(first) {
		return append(b, s...)
	}
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' {
			b = append(b, '"')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}
