package senml

import (
	"math"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// What AppendScalar writes is what DecodeScalar reads.
func TestAppendScalar(t *testing.T) {
	for want, v := range map[string]holdfast.Value{
		`{"t":"2025-01-01T00:00:00.000000001Z","v":21.5,"seq":7}`:                       holdfast.NumberValue(21.5),
		`{"t":"2025-01-01T00:00:00.000000001Z","v":true,"seq":7}`:                       holdfast.BooleanValue(true),
		`{"t":"2025-01-01T00:00:00.000000001Z","v":"a \"b\"","seq":7}`:                  holdfast.TextValue(`a "b"`),
		`{"t":"2025-01-01T00:00:00.000000001Z","v":{"b64":"AAEC/w=="},"seq":7}`:         holdfast.BytesValue([]byte{0, 1, 2, 255}),
		`{"t":"2025-01-01T00:00:00.000000001Z","v":{"lat":52.5,"lon":-13.25},"seq":7}`:  holdfast.LocationValue(holdfast.Position{Latitude: 52.5, Longitude: -13.25, Altitude: math.NaN()}),
		`{"t":"2025-01-01T00:00:00.000000001Z","v":{"lat":1,"lon":2,"alt":34},"seq":7}`: holdfast.LocationValue(holdfast.Position{Latitude: 1, Longitude: 2, Altitude: 34}),
		`{"t":"2025-01-01T00:00:00.000000001Z","v":1.7976931348623157e+308,"seq":7}`:    holdfast.NumberValue(math.MaxFloat64),
	} {
		r := holdfast.Reading{Time: 1735689600_000000001, Value: v, Seq: 7}
		got := AppendScalar(nil, r)
		if string(got) != want {
			t.Errorf("wrote %s, want %s", got, want)
		}
		s, err := DecodeScalar(got)
		again := AppendScalar(nil, holdfast.Reading{Time: s.Time, Value: s.Value, Seq: s.Seq})
		if err != nil || s.Value.Type() != v.Type() || string(again) != want {
			t.Errorf("%s is read as %+v: %v", got, s, err)
		}
	}
	for want, v := range map[string]holdfast.Value{
		`{"t":"1969-12-31T23:59:59Z","v":-7}`: holdfast.IntegerValue(-7), `{"t":"1969-12-31T23:59:59Z","v":"Infinity"}`: holdfast.NumberValue(math.Inf(1)),
	} {
		if got := AppendScalar(nil, holdfast.Reading{Time: -1_000_000_000, Value: v}); string(got) != want {
			t.Errorf("wrote %s, want %s", got, want)
		}
	}
}
