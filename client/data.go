package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
)

// Limits of one request; Send makes as many as it needs.
const (
	packSamples = 5000
	packBytes   = 3 << 20 // a hub takes 4 MiB; the largest value, all of it escaped, has half of that
)

// Send sends samples as the device whose identity the client has, in SenML over
// HTTPS. When it returns nil they are durable. They go in requests of up to 5,000,
// each of which is taken whole or not at all; sent is how many were taken, which
// on an error are the first ones. Sending a timed sample again does no harm: equal
// ones are dropped.
func (c *Client) Send(ctx context.Context, samples ...holdfast.Sample) (sent int, err error) {
	for sent < len(samples) {
		pack := []byte{'['}
		n := 0
		for _, s := range samples[sent:] {
			if n == packSamples {
				break
			}
			end := len(pack)
			if n > 0 {
				pack = append(pack, ',')
			}
			if pack, err = appendSample(pack, s); err != nil {
				return sent, err
			}
			if n > 0 && len(pack) > packBytes {
				pack = pack[:end]
				break
			}
			n++
		}
		if err := c.Do(ctx, http.MethodPost, "/v1/data", Body{Type: "application/senml+json", Data: append(pack, ']')}, nil); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// absolute is where SenML's times stop to be relative (RFC 8428, 4.5.3), in ns.
const absolute = 1 << 28 * 1_000_000_000

// appendSample writes one SenML record. Labels that begin with hf_ are Holdfast's
// own: they carry what SenML can't say exactly.
func appendSample(b []byte, s holdfast.Sample) ([]byte, error) {
	if err := holdfast.CheckName("stream", s.Stream); err != nil {
		return nil, err
	}
	if s.Value.Size() > holdfast.MaxValueBytes+8 {
		return nil, holdfast.Errorf(holdfast.TooLarge, "a value has at most %d bytes", holdfast.MaxValueBytes)
	}
	b = appendString(append(b, `{"n":`...), s.Stream)
	if s.Unit != "" {
		b = appendString(append(b, `,"u":`...), s.Unit)
	}
	switch {
	case !s.Timed:
	case s.Time < absolute:
		b = strconv.AppendInt(append(b, `,"hf_ns_":`...), s.Time, 10)
	default:
		b = strconv.AppendInt(append(b, `,"t":`...), s.Time/1e9, 10)
		if ns := s.Time % 1e9; ns != 0 {
			b = append(b, '.')
			b = append(b, strconv.FormatInt(1e9+ns, 10)[1:]...)
		}
	}
	if s.Seq != 0 {
		b = strconv.AppendUint(append(b, `,"hf_seq":`...), s.Seq, 10)
	}
	return appendValue(b, s.Value)
}

func appendValue(b []byte, v holdfast.Value) ([]byte, error) {
	switch v.Type() {
	case holdfast.Number:
		return append(appendNumber(b, v.Number()), '}'), nil
	case holdfast.Integer:
		b = strconv.AppendInt(append(b, `,"v":`...), v.Integer(), 10)
		b = strconv.AppendInt(append(b, `,"hf_int":`...), v.Integer(), 10)
	case holdfast.Boolean:
		b = strconv.AppendBool(append(b, `,"vb":`...), v.Boolean())
	case holdfast.Text:
		if !utf8.ValidString(v.Text()) {
			return nil, holdfast.Errorf(holdfast.Invalid, "a text must be UTF-8: send other content as bytes")
		}
		b = appendString(append(b, `,"vs":`...), v.Text())
	case holdfast.Bytes:
		b = base64.RawURLEncoding.AppendEncode(append(b, `,"vd":"`...), v.Bytes())
		b = append(b, '"')
	case holdfast.Location:
		p := v.Position()
		if bad := p.Latitude + p.Longitude; math.IsNaN(bad) || math.IsInf(bad, 0) || math.IsInf(p.Altitude, 0) {
			return nil, holdfast.Errorf(holdfast.Invalid, "a location is in degrees and metres")
		}
		b = strconv.AppendFloat(append(b, `,"hf_loc":[`...), p.Latitude, 'e', -1, 64)
		b = strconv.AppendFloat(append(b, ','), p.Longitude, 'e', -1, 64)
		if !math.IsNaN(p.Altitude) {
			b = strconv.AppendFloat(append(b, ','), p.Altitude, 'e', -1, 64)
		}
		b = append(b, ']')
	default:
		return nil, holdfast.Errorf(holdfast.Invalid, "a sample has a value")
	}
	return append(b, '}'), nil
}

// appendNumber writes the shortest literal that gives f back, with an exponent
// where plain digits would read as an integer that f is not.
func appendNumber(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		b = strconv.AppendUint(append(b, `,"hf_f":"NaN:`...), math.Float64bits(f), 16)
		return append(b, '"')
	case math.IsInf(f, 1):
		return append(b, `,"hf_f":"Infinity"`...)
	case math.IsInf(f, -1):
		return append(b, `,"hf_f":"-Infinity"`...)
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && a < 1e-6 || a >= 1<<53 {
		format = 'e'
	}
	return strconv.AppendFloat(append(b, `,"v":`...), f, format, -1, 64)
}

func appendString(b []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil { // of a string it has no error
		panic(err)
	}
	return append(b, text...)
}
