package query

import (
	"encoding/base64"
	"io"
	"strconv"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

const (
	csvReadings = "time,device,device_name,stream,type,unit,value,latitude,longitude,altitude,seq,marks\n"
	csvWindows  = "start,end,device,device_name,stream,type,unit"
)

// WriteCSV writes a line of column names and a line for each row (RFC 4180, with
// line feeds). A location stands in the columns latitude, longitude and altitude,
// any other value in value; marks are separated by spaces. Of windows each
// aggregate is a column, in the order of the request; a location there is
// latitude, longitude and altitude with spaces. An empty text is "" and an absent
// value nothing.
func WriteCSV(w io.Writer, r *Result) error {
	head := csvReadings
	if len(r.Aggregates) > 0 {
		head = csvWindows
		for _, a := range r.Aggregates {
			head += "," + a.String()
		}
		head += "\n"
	}
	var e encoder
	return eachLine(w, r, head, func(dst []byte, row *Row, _ int) []byte {
		if row.Window != nil {
			return e.appendCSVWindow(dst, row, r.Aggregates)
		}
		return e.appendCSV(dst, row)
	})
}

// appendCSVSource writes what the rows of a source share.
func (e *encoder) appendCSVSource(dst []byte, row *Row) []byte {
	if e.of != row.Source {
		e.of = row.Source
		p := append(append(e.prefix[:0], ','), row.Device.String()...)
		p = appendCSVText(append(p, ','), row.DeviceName)
		p = appendCSVText(append(p, ','), row.Stream)
		p = append(append(p, ','), row.Type.String()...)
		p = append(p, ',')
		if row.Unit != "" {
			p = appendCSVText(p, row.Unit)
		}
		e.prefix = p
	}
	return append(dst, e.prefix...)
}

func (e *encoder) appendCSV(dst []byte, row *Row) []byte {
	dst = append(e.appendCSVSource(e.appendTime(dst, row.Time), row), ',')
	if row.Value.Type() == holdfast.Location {
		p := row.Value.Position()
		dst = appendNumber(append(dst, ','), p.Latitude)
		dst = appendNumber(append(dst, ','), p.Longitude)
		if dst = append(dst, ','); !unknown(p.Altitude) {
			dst = appendNumber(dst, p.Altitude)
		}
	} else {
		dst = append(appendCSVValue(dst, row.Value), ",,,"...)
	}
	if dst = append(dst, ','); row.Seq != 0 {
		dst = strconv.AppendUint(dst, row.Seq, 10)
	}
	dst = append(dst, ',')
	if row.Mark != 0 {
		dst = append(dst, strings.Join(marksOf(row.Mark), " ")...)
	}
	return append(dst, '\n')
}

func (e *encoder) appendCSVWindow(dst []byte, row *Row, aggregates []Aggregate) []byte {
	dst = append(e.appendTime(dst, row.Window.Start), ',')
	dst = e.appendCSVSource(e.appendTime(dst, row.Window.End), row)
	for _, a := range aggregates {
		dst = append(dst, ',')
		if v, ok := row.Window.Value(a); ok {
			dst = appendCSVValue(dst, v)
		}
	}
	return append(dst, '\n')
}

func appendCSVValue(dst []byte, v holdfast.Value) []byte {
	switch v.Type() {
	case holdfast.Number:
		return appendNumber(dst, v.Number())
	case holdfast.Text:
		return appendCSVText(dst, v.Text())
	case holdfast.Bytes:
		if v.Size() == 8 { // no content
			return append(dst, `""`...)
		}
		return base64.StdEncoding.AppendEncode(dst, v.Bytes())
	case holdfast.Location:
		p := v.Position()
		dst = appendNumber(append(appendNumber(dst, p.Latitude), ' '), p.Longitude)
		if !unknown(p.Altitude) {
			dst = appendNumber(append(dst, ' '), p.Altitude)
		}
		return dst
	}
	return appendJSONValue(dst, v)
}

// appendCSVText quotes where a reader could take the text for something else.
func appendCSVText(dst []byte, s string) []byte {
	if s != "" && !strings.ContainsAny(s, "\",\r\n") && strings.TrimSpace(s) == s {
		return append(dst, s...)
	}
	dst = append(dst, '"')
	for {
		i := strings.IndexByte(s, '"')
		if i < 0 {
			return append(append(dst, s...), '"')
		}
		dst, s = append(append(dst, s[:i]...), `""`...), s[i+1:]
	}
}
