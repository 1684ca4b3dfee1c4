package demo

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// measure is one value as the sensor gave it.
type measure struct {
	stream *Stream
	value  holdfast.Value
	json   string // the value as a scalar; "" for NaN, which JSON can't say
	member string // the value as a member of a SenML record
}

// measures collects what is measured at one second.
type measures struct {
	streams []Stream
	list    []measure
}

func (m *measures) add(stream string, v holdfast.Value, json, member string) {
	i := slices.IndexFunc(m.streams, func(s Stream) bool { return s.Name == stream })
	m.list = append(m.list, measure{&m.streams[i], v, json, member})
}

// rounded is x as a device writes it, and what that reads as.
func rounded(x float64, decimals int) (string, float64) {
	text := strconv.FormatFloat(x, 'f', decimals, 64)
	v, _ := strconv.ParseFloat(text, 64) // what FormatFloat wrote is a number
	return text, v
}

func (m *measures) number(stream string, x float64, decimals int) {
	text, v := rounded(x, decimals)
	m.add(stream, holdfast.NumberValue(v), text, `"v":`+text)
}

func (m *measures) boolean(stream string, b bool) {
	text := strconv.FormatBool(b)
	m.add(stream, holdfast.BooleanValue(b), text, `"vb":`+text)
}

func (m *measures) text(stream, w string) {
	m.add(stream, holdfast.TextValue(w), strconv.Quote(w), `"vs":`+strconv.Quote(w))
}

func (m *measures) location(stream string, p holdfast.Position) {
	lat, latitude := rounded(p.Latitude, 6)
	lon, longitude := rounded(p.Longitude, 6)
	v := holdfast.LocationValue(holdfast.Position{Latitude: latitude, Longitude: longitude, Altitude: math.NaN()})
	m.add(stream, v, `{"lat":`+lat+`,"lon":`+lon+`}`, `"hf_loc":[`+lat+`,`+lon+`]`)
}

// broken is what a sensor with a torn wire gives in place of m.
func (m measure) broken() measure {
	return measure{m.stream, holdfast.NumberValue(math.NaN()), "", `"hf_f":"NaN"`}
}

// reading is a measure with the device's own idea of when, in whole milliseconds,
// and its sequence number, 0 if its stream has none.
type reading struct {
	measure
	time time.Time
	seq  uint64
}

// sample is what a hub must read from r, however r is written.
func (r reading) sample() holdfast.Sample {
	return holdfast.Sample{
		Stream: r.stream.Name, Time: r.time.UnixNano(), Timed: true, Seq: r.seq,
		Value: r.value, Literal: r.value.Type() == holdfast.Number && r.json != "",
	}
}

// single writes a reading in a message of its own, if its value can stand alone.
// rfc chooses how its time is written: RFC 3339, or Unix seconds.
func (r reading) single(rfc bool) Message {
	s := r.sample()
	payload := r.json
	switch {
	case r.json == "":
		return pack([]reading{r})
	case r.stream.form == bare:
		s.Time, s.Timed = 0, false
	case rfc:
		payload = fmt.Sprintf(`{"t":"%s","v":%s,"seq":%d}`, r.time.Format("2006-01-02T15:04:05.000Z07:00"), r.json, r.seq)
	default:
		payload = fmt.Sprintf(`{"t":%.3f,"v":%s,"seq":%d}`, float64(r.time.UnixMilli())/1000, r.json, r.seq)
	}
	return Message{Topic: "data/" + s.Stream, Payload: []byte(payload), Samples: []holdfast.Sample{s}}
}

// pack writes readings as one SenML pack (RFC 8428, and the labels hf_... of
// package senml). Its times count from a whole second, so that none of their
// digits is lost.
func pack(rs []reading) Message {
	base := rs[0].time.Truncate(time.Second)
	m := Message{Topic: "data"}
	records := fmt.Appendf(nil, `[{"bt":%d`, base.Unix())
	for i, r := range rs {
		s := r.sample()
		s.Unit = r.stream.Unit
		if i > 0 {
			records = append(records, `},{`...)
		} else {
			records = append(records, ',')
		}
		records = fmt.Appendf(records, `"n":"%s","t":%v,%s`, s.Stream, float64(r.time.Sub(base).Milliseconds())/1000, r.member)
		if s.Unit != "" {
			records = fmt.Appendf(records, `,"u":"%s"`, s.Unit)
		}
		if s.Seq > 0 {
			records = fmt.Appendf(records, `,"hf_seq":%d`, s.Seq)
		}
		m.Samples = append(m.Samples, s)
	}
	m.Payload = append(records, `}]`...)
	return m
}
