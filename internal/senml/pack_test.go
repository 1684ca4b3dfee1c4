package senml

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
)

// arrival is 2025-01-01 00:00:00.000000001.
const arrival = 1735689600_000000001

func sample(stream, unit string, time int64, v any) holdfast.Sample {
	s := holdfast.Sample{Stream: stream, Unit: unit, Time: time, Timed: time != 0}
	switch v := v.(type) {
	case float64:
		s.Value, s.Literal = holdfast.NumberValue(v), true
	case int64:
		s.Value, s.Literal = holdfast.IntegerValue(v), true
	case string:
		s.Value = holdfast.TextValue(v)
	case bool:
		s.Value = holdfast.BooleanValue(v)
	case []byte:
		s.Value = holdfast.BytesValue(v)
	case holdfast.Value:
		s.Value = v
	}
	return s
}

// The examples of RFC 8428, sections 5.1.1 to 5.1.7.
func TestExamplesOfTheRFC(t *testing.T) {
	const dev = "urn:dev:ow:10e2073a01080063"
	for name, c := range map[string]struct {
		pack string
		want []holdfast.Sample
	}{
		"single data point": {
			`[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]`,
			[]holdfast.Sample{sample(dev, "Cel", 0, 23.1)},
		},
		"two data points": {
			`[{"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},
			  {"n":"current","u":"A","v":1.2}]`,
			[]holdfast.Sample{sample(dev+":voltage", "V", 0, 120.1), sample(dev+":current", "A", 0, 1.2)},
		},
		"base time and version": {
			`[{"bn":"urn:dev:ow:10e2073a01080063:","bt":1.276020076001e+09,"bu":"A","bver":5,
			   "n":"voltage","u":"V","v":120.1},
			  {"n":"current","t":-5,"v":1.2},
			  {"n":"current","t":-4,"v":1.3},
			  {"n":"current","v":1.7}]`,
			[]holdfast.Sample{
				sample(dev+":voltage", "V", 1276020076_001000000, 120.1),
				sample(dev+":current", "A", 1276020071_001000000, 1.2),
				sample(dev+":current", "A", 1276020072_001000000, 1.3),
				sample(dev+":current", "A", 1276020076_001000000, 1.7),
			},
		},
		"units that change": {
			`[{"bn":"urn:dev:ow:10e2073a01080063","bt":1.320067464e+09,"bu":"%RH","v":20},
			  {"u":"lon","v":24.30621},{"u":"lat","v":60.07965},{"t":60,"v":20.3},{"u":"lon","t":60,"v":24.30622}]`,
			[]holdfast.Sample{
				sample(dev, "%RH", 1320067464_000000000, 20.0),
				sample(dev, "lon", 1320067464_000000000, 24.30621),
				sample(dev, "lat", 1320067464_000000000, 60.07965),
				sample(dev, "%RH", 1320067524_000000000, 20.3),
				sample(dev, "lon", 1320067524_000000000, 24.30622),
			},
		},
		"data types": {
			`[{"bn":"urn:dev:ow:10e2073a01080063:","n":"temp","u":"Cel","v":23.1},
			  {"n":"label","vs":"Machine Room"},{"n":"open","vb":false},{"n":"nfc-reader","vd":"aGkgCg"}]`,
			[]holdfast.Sample{
				sample(dev+":temp", "Cel", 0, 23.1), sample(dev+":label", "", 0, "Machine Room"),
				sample(dev+":open", "", 0, false), sample(dev+":nfc-reader", "", 0, []byte("hi \n")),
			},
		},
		"collection of resources": {
			`[{"bn":"http://[2001:db8::2]/","bt":1.320078429e+09,"n":"temperature","u":"Cel","v":27.2},
			  {"n":"humidity","u":"%RH","v":80}]`,
			[]holdfast.Sample{
				sample("http://[2001:db8::2]/temperature", "Cel", 1320078429_000000000, 27.2),
				sample("http://[2001:db8::2]/humidity", "%RH", 1320078429_000000000, 80.0),
			},
		},
	} {
		got, err := DecodeJSON([]byte(c.pack), arrival)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if d := cmp.Diff(c.want, got, sameValue); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}

// one puts the fields of one record into a pack.
func one(fields string) string { return `[{"n":"x",` + fields + `}]` }

func TestDecodeJSON(t *testing.T) {
	withSeq := sample("x", "", 0, 1.0)
	withSeq.Seq = 1 << 63
	position := func(alt float64) holdfast.Value {
		return holdfast.LocationValue(holdfast.Position{Latitude: 52.5, Longitude: -13.25, Altitude: alt})
	}
	for pack, want := range map[string]holdfast.Sample{
		one(`"v":9007199254740993`):                                   sample("x", "", 0, int64(1<<53+1)),
		one(`"v":1e-999`):                                             sample("x", "", 0, 0.0),
		one(`"bv":10,"v":9007199254740983`):                           sample("x", "", 0, int64(1<<53+1)),
		one(`"bv":0.5,"v":20`):                                        sample("x", "", 0, 20.5),
		one(`"bv":9223372036854775807,"v":1`):                         sample("x", "", 0, float64(1<<63)),
		one(`"v":1,"t":0`):                                            sample("x", "", 0, 1.0),
		one(`"v":1,"t":-0.0000000001`):                                sample("x", "", 0, 1.0),
		one(`"v":1,"t":-5`):                                           sample("x", "", arrival-5e9, 1.0),
		one(`"v":1,"t":1e-9`):                                         sample("x", "", arrival+1, 1.0),
		one(`"v":1,"t":268435455.999999999`):                          sample("x", "", arrival+268435455_999999999, 1.0),
		one(`"v":1,"t":268435456`):                                    sample("x", "", 268435456_000000000, 1.0),
		one(`"v":1,"bt":1735689600.1,"t":-0.1`):                       sample("x", "", 1735689600_000000000, 1.0),
		one(`"v":1,"bt":0.1,"t":1735689600.123456789`):                sample("x", "", 1735689600_223456789, 1.0),
		one(`"v":1,"hf_ns_":-1`):                                      sample("x", "", -1, 1.0),
		one(`"v":1,"bt":1735689600,"hf_ns_":42`):                      sample("x", "", 42, 1.0),
		one(`"v":1,"hf_seq":9223372036854775808`):                     withSeq,
		one(`"v":5,"hf_int":5`):                                       sample("x", "", 0, holdfast.IntegerValue(5)),
		one(`"hf_int":-9223372036854775808`):                          sample("x", "", 0, holdfast.IntegerValue(math.MinInt64)),
		one(`"v":9007199254740992,"hf_int":9007199254740993`):         sample("x", "", 0, holdfast.IntegerValue(1<<53+1)),
		one(`"hf_loc":[52.5,-13.25]`):                                 sample("x", "", 0, position(math.NaN())),
		one(`"hf_loc": [ 52.5 , -13.25 , 30 ] `):                      sample("x", "", 0, position(30)),
		one(`"hf_f":"NaN"`):                                           sample("x", "", 0, holdfast.NumberValue(math.NaN())),
		one(`"hf_f":"-Infinity"`):                                     sample("x", "", 0, holdfast.NumberValue(math.Inf(-1))),
		one(`"hf_f":"NaN:fff8000000000000"`):                          sample("x", "", 0, holdfast.NumberValue(math.Float64frombits(0xfff8<<48))),
		one(`"vd":"_-8="`):                                            sample("x", "", 0, []byte{0xff, 0xef}),
		one(`"vd":""`):                                                sample("x", "", 0, []byte(nil)),
		one(`"vs":"\ud83d\ude00\u0000"`):                              sample("x", "", 0, "😀\x00"),
		one(`"v":1,"ut":10,"bs":3,"bver":10`):                         sample("x", "", 0, 1.0),
		one(`"v":1,"other":[{"a":[null,true,"x",-1e9,{}]},[]],"a":0`): sample("x", "", 0, 1.0),
		one(`"bu":"m","u":"","v":1`):                                  sample("x", "", 0, 1.0),
		` [ { "bn" : "a/" , "n" : "b" , "v" : 1 } ] `:                 sample("a/b", "", 0, 1.0),
		`[{"bn":"a","v":1}]`:                                          sample("a", "", 0, 1.0),
		`[{"\u006e":"größe/µ","v":1}]`:                                sample("größe/µ", "", 0, 1.0),
	} {
		got, err := DecodeJSON([]byte(pack), arrival)
		if err != nil {
			t.Errorf("%s: %v", pack, err)
		} else if d := cmp.Diff([]holdfast.Sample{want}, got, sameValue); d != "" {
			t.Errorf("%s:\n%s", pack, d)
		}
	}
}

func TestDecodeJSONRefuses(t *testing.T) {
	long := strings.Repeat("x", holdfast.MaxValueBytes+1)
	fields := ""
	for i := range MaxFields {
		fields += fmt.Sprintf(`,"f%d":0`, i)
	}
	for pack, want := range map[string]string{
		``:                                     errPack.Error(),
		`{}`:                                   errPack.Error(),
		`[]`:                                   errPack.Error(),
		`[{"n":"x","v":1}] 1`:                  errPack.Error(),
		`[{}]`:                                 "record 0: stream has no name",
		`[1]`:                                  "record 0: not valid JSON",
		`[{"n":"x","v":1},]`:                   "record 1: not valid JSON",
		`[{"n":"x","v":1}{"n":"x","v":1}]`:     "record 1: not valid JSON",
		`[{"n":"x","v":1},{"v":1}]`:            "record 1: stream has no name",
		`[{"n":"x","v":1`:                      "record 0: not valid JSON",
		`[{"n":"x"}]`:                          "record 0: it has no value",
		one(`"v":1,"vb":true`):                 "record 0: it has more than one value",
		one(`"vb":true,"hf_int":1`):            "record 0: it has more than one value",
		one(`"v":1,"hf_loc":[1,2],"hf_int":1`): "record 0: it has more than one value",
		one(`"v":1,"s":1`):                     "record 0: " + errSum.Error(),
		one(`"s":1`):                           "record 0: " + errSum.Error(),
		one(`"v":1,"v":1`):                     "record 0: a field stands twice",
		one(`"v":1,"foo":1,"f\u006fo":1`):      "record 0: a field stands twice",
		one(`"v":1,"foo_":1`):                  "record 0: " + errRequired.Error(),
		one(`"v":1,"_":1`):                     "record 0: " + errRequired.Error(),
		one(`"v":1` + fields):                  "record 0: a record has at most 64 fields",
		one(`"bver":11,"v":1`):                 "record 0: " + errVersion.Error(),
		one(`"bver":0,"v":1`):                  "record 0: " + errVersion.Error(),
		one(`"bver":-1,"v":1`):                 "record 0: " + errVersion.Error(),
		one(`"bver":10.0,"v":1`):               "record 0: " + errVersion.Error(),
		`[{"n":"x","v":1},{"bver":9,"v":1,"n":"x"}]`: "record 1: " + errVersion.Error(),
		one(`"v":1e999`):                                   "record 0: " + errOverflow.Error(),
		one(`"bv":1e308,"v":1.7e308`):                      "record 0: " + errOverflow.Error(),
		one(`"v":"1"`):                                     "record 0: a field has a value of the wrong type",
		one(`"v":null`):                                    "record 0: a field has a value of the wrong type",
		one(`"vb":1`):                                      "record 0: a field has a value of the wrong type",
		one(`"vs":1`):                                      "record 0: a field has a value of the wrong type",
		one(`"vd":1`):                                      "record 0: a field has a value of the wrong type",
		one(`"t":"1","v":1`):                               "record 0: a field has a value of the wrong type",
		`[{"n":1,"v":1}]`:                                  "record 0: a field has a value of the wrong type",
		one(`"vd":"+/8"`):                                  "record 0: " + errBase64.Error(),
		one(`"vd":"a"`):                                    "record 0: " + errBase64.Error(),
		one(`"hf_f":"nan"`):                                "record 0: " + errFloat.Error(),
		one(`"hf_f":"NaN:7ff0000000000000"`):               "record 0: " + errFloat.Error(), // infinity
		one(`"hf_f":"NaN:7ff800000000000"`):                "record 0: " + errFloat.Error(),
		one(`"hf_int":1.5`):                                "record 0: " + errInteger.Error(),
		one(`"hf_int":9223372036854775808`):                "record 0: " + errInteger.Error(),
		one(`"v":2,"hf_int":1`):                            "record 0: " + errInteger.Error(),
		one(`"v":1,"hf_ns_":1.0`):                          "record 0: " + errInteger.Error(),
		one(`"v":1,"t":0,"hf_ns_":1`):                      "record 0: " + errTwoTimes.Error(),
		one(`"v":1,"hf_seq":-1`):                           "record 0: " + errSeq.Error(),
		one(`"hf_loc":[]`):                                 "record 0: " + errLocation.Error(),
		one(`"hf_loc":[1]`):                                "record 0: " + errLocation.Error(),
		one(`"hf_loc":[1,2,3,4]`):                          "record 0: " + errLocation.Error(),
		one(`"hf_loc":[91,2]`):                             "record 0: " + errLocation.Error(),
		one(`"hf_loc":[1,null]`):                           "record 0: " + errLocation.Error(),
		one(`"v":1,"t":9223372037`):                        "record 0: " + errTimeRange.Error(),
		one(`"v":1,"bt":9e9,"t":9e9`):                      "record 0: " + errTimeRange.Error(),
		one(`"v":1,"t":-9223372036`):                       "", // relative to the arrival: fits
		one(`"v":1,"bt":-9e9,"t":-9e9`):                    "record 0: " + errTimeRange.Error(),
		one(`"v":1,"u":"\u0000"`):                          "record 0: " + errUnit.Error(),
		one(`"v":1,"bu":"` + long[:129] + `"`):             "record 0: " + errUnit.Error(),
		`[{"bn":"` + long + `","n":"x","v":1}]`:            "record 0: " + errLongName.Error(),
		`[{"n":"a+b","v":1}]`:                              "record 0: the name of a stream must not contain + or #",
		"[{\"n\":\"\xff\",\"v\":1}]":                       "record 0: a text must be UTF-8",
		"[{\"n\":\"x\",\"vs\":\"\xc3(\"}]":                 "record 0: a text must be UTF-8",
		one(`"vs":"\udc00"`):                               "record 0: " + errSurrogate.Error(),
		one(`"vs":"` + long + `"`):                         "record 0: " + errTooLong.Error(),
		one(`"v":1,"a":` + strings.Repeat("[", 1<<20)):     "record 0: " + errDepth.Error(),
		one(`"v":1,"a":` + strings.Repeat(`{"a":`, 1<<18)): "record 0: " + errDepth.Error(),
		one(`"v":1,"a":[1,]`):                              "record 0: not valid JSON",
		one(`"v":1,"a":{"b"}`):                             "record 0: not valid JSON",
		one(`"v":1,"a":nul`):                               "record 0: not valid JSON",
		strings.Repeat("[", 1<<20):                         "record 0: not valid JSON",
		`[` + strings.Repeat(`{"n":"x","v":1},`, MaxRecords) + `{"n":"x","v":1}]`: errRecords.Error(),
	} {
		name := pack[:min(len(pack), 60)]
		_, err := DecodeJSON([]byte(pack), arrival)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
		if k := holdfast.KindOf(err); k != holdfast.Invalid && k != holdfast.TooLarge {
			t.Errorf("%s: kind %v", name, k)
		}
	}
}

func TestRecordsAtTheLimit(t *testing.T) {
	pack := `[` + strings.Repeat(`{"n":"x","v":1},`, MaxRecords-1) + `{"n":"x","v":1}]`
	if got, err := DecodeJSON([]byte(pack), arrival); err != nil || len(got) != MaxRecords {
		t.Errorf("got %d records, %v", len(got), err)
	}
}

// A pack that was refused for its size has the kind TooLarge, so that a device
// knows to send it in parts.
func TestTooLarge(t *testing.T) {
	for _, pack := range []string{
		`[` + strings.Repeat(`{"n":"x","v":1},`, MaxRecords+1),
		one(`"vs":"` + strings.Repeat("x", holdfast.MaxValueBytes+1) + `"`),
		one(`"a":` + strings.Repeat("[", 20)),
	} {
		if _, err := DecodeJSON([]byte(pack), arrival); holdfast.KindOf(err) != holdfast.TooLarge {
			t.Errorf("%.40s: %v", pack, err)
		}
	}
}

// No error repeats what was sent.
func TestErrorsKeepContentToThemselves(t *testing.T) {
	const secret = "PLANTED"
	for _, pack := range []string{
		`[{"n":"PLANTED#","v":1}]`, `[{"n":"x","u":"PLANTED\u0000","v":1}]`, `[{"n":"x","PLANTED_":1,"v":1}]`,
		`[{"n":"x","hf_f":"PLANTED"}]`, `[{"n":"x","vd":"PLANTED*"}]`, `[{"n":"x","v":PLANTED}]`,
		`[{"n":"x","PLANTED":1,"PLANTED":1,"v":1}]`,
	} {
		if _, err := DecodeJSON([]byte(pack), arrival); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", pack, err)
		}
		if _, err := DecodeScalar([]byte(pack[1 : len(pack)-1])); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", pack, err)
		}
	}
}

// The result must not change when the input's buffer is used again.
func TestSamplesKeepNothingOfTheInput(t *testing.T) {
	texts := []byte(`[{"bn":"s","n":"t","u":"Cel","vs":"text"},{"n":"b","bu":"m","vd":"aGkgCg"},{"n":"l","hf_loc":[1,2]}]`)
	binary := AppendCBORPack(nil, 3)
	want, err := DecodeJSON(texts, arrival)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range want {
		binary = AppendCBOR(binary, s.Stream, s.Unit, holdfast.Reading{Time: arrival, Value: s.Value})
	}
	fromCBOR, err := DecodeCBOR(binary, arrival)
	if err != nil {
		t.Fatal(err)
	}
	scalar := []byte(`"text"`)
	fromScalar, _ := DecodeScalar(scalar)
	before := fmt.Sprint(want, fromCBOR, fromScalar)
	clear(texts)
	clear(binary)
	clear(scalar)
	if after := fmt.Sprint(want, fromCBOR, fromScalar); after != before {
		t.Errorf("before %s\nafter %s", before, after)
	}
}

// drawReading draws from all types, and from their corners more than chance would.
func drawReading(rng *rand.Rand) holdfast.Reading {
	pick := func(special []int64) int64 {
		if rng.IntN(3) == 0 {
			return special[rng.IntN(len(special))]
		}
		return int64(rng.Uint64()) >> rng.IntN(64)
	}
	float := func() float64 {
		special := []float64{
			0, math.Copysign(0, -1), 1, 0.1, 21.5, 1 << 53, 1<<53 + 2, 1 << 60, 1 << 63, -1 << 63, 1e21, 1e-7, 123456789012345680,
			math.MaxFloat64, math.SmallestNonzeroFloat64, math.MaxFloat32, math.SmallestNonzeroFloat32,
			math.NaN(), math.Inf(1), math.Inf(-1), math.Float64frombits(0x7ff8 << 48), math.Float64frombits(0xfff0<<48 | 1),
		}
		if n := rng.IntN(2 * len(special)); n < len(special) {
			return special[n]
		}
		return math.Float64frombits(rng.Uint64())
	}
	bytes := func() []byte {
		b := make([]byte, rng.IntN(40))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	r := holdfast.Reading{
		Time: pick([]int64{0, 1, -1, relative, relative - 1, math.MaxInt64, math.MinInt64, arrival, 1735689600_100000000, 1735689600_000000000}),
	}
	if rng.IntN(2) == 0 {
		r.Seq = rng.Uint64() >> rng.IntN(64)
	}
	switch holdfast.ValueType(rng.IntN(6) + 1) {
	case holdfast.Number:
		r.Value = holdfast.NumberValue(float())
	case holdfast.Integer:
		r.Value = holdfast.IntegerValue(pick([]int64{0, -1, 1 << 53, 1<<53 + 1, math.MaxInt64, math.MinInt64}))
	case holdfast.Boolean:
		r.Value = holdfast.BooleanValue(rng.IntN(2) == 0)
	case holdfast.Text:
		r.Value = holdfast.TextValue(strings.ToValidUTF8(string(bytes()), "\"\\\n\x00\x7f<ä\u2028\ufffd😀"))
	case holdfast.Bytes:
		r.Value = holdfast.BytesValue(bytes())
	case holdfast.Location:
		at := holdfast.Position{Latitude: rng.Float64()*180 - 90, Longitude: rng.Float64()*360 - 180, Altitude: rng.NormFloat64() * 1e4}
		if rng.IntN(2) == 0 {
			at.Altitude = math.NaN()
		}
		r.Value = holdfast.LocationValue(at)
	}
	return r
}

// What is written comes back bit for bit, by both encodings.
func TestRoundTrip(t *testing.T) {
	rng, seed := drawn(t)
	for range 300 {
		var want []holdfast.Sample
		n := 1 + rng.IntN(30)
		text, binary := []byte("["), AppendCBORPack(nil, n)
		for i := range n {
			r := drawReading(rng)
			stream := fmt.Sprintf("größe/%d \"%d\"", i, rng.Uint32())
			unit := []string{"", "Cel", "%RH", "m/s"}[rng.IntN(4)]
			if i > 0 {
				text = append(text, ',')
			}
			text = AppendJSON(text, stream, unit, r)
			binary = AppendCBOR(binary, stream, unit, r)
			want = append(want, holdfast.Sample{Stream: stream, Unit: unit, Time: r.Time, Timed: true, Seq: r.Seq, Value: r.Value})
		}
		text = append(text, ']')
		if !json.Valid(text) {
			t.Fatalf("seed %d: not JSON: %s", seed, text)
		}
		fromText, err := DecodeJSON(text, arrival)
		if err != nil {
			t.Fatalf("seed %d: %v: %s", seed, err, text)
		}
		fromBinary, err := DecodeCBOR(binary, arrival)
		if err != nil {
			t.Fatalf("seed %d: %v: %x", seed, err, binary)
		}
		for i := range want { // Literal is a fact about the writing, not about the reading
			fromText[i].Literal, fromBinary[i].Literal = false, false
		}
		if d := cmp.Diff(want, fromText, sameValue); d != "" {
			t.Fatalf("seed %d: JSON\n%s", seed, d)
		}
		if d := cmp.Diff(want, fromBinary, sameValue); d != "" {
			t.Fatalf("seed %d: CBOR\n%s", seed, d)
		}
	}
}

func TestAppend(t *testing.T) {
	for _, c := range []struct {
		unit string
		r    holdfast.Reading
		json string
		cbor string // in the library's diagnostic notation
	}{
		{"Cel", holdfast.Reading{Time: 1735689600_123456789, Seq: 7, Value: holdfast.NumberValue(21.5)},
			`{"n":"s","u":"Cel","t":1735689600.123456789,"hf_seq":7,"v":21.5}`,
			`{0: "s", 1: "Cel", 6: 4([-9, 1735689600123456789]), "hf_seq": 7, 2: 21.5}`},
		{"", holdfast.Reading{Time: 1735689600_050000000, Value: holdfast.BooleanValue(true)},
			`{"n":"s","t":1735689600.05,"vb":true}`, `{0: "s", 6: 4([-2, 173568960005]), 4: true}`},
		{"", holdfast.Reading{Time: 1735689600_000000000, Value: holdfast.IntegerValue(-5)},
			`{"n":"s","t":1735689600,"v":-5,"hf_int":-5}`, `{0: "s", 6: 1735689600, 2: -5, "hf_int": -5}`},
		{"", holdfast.Reading{Time: -1, Value: holdfast.NumberValue(math.NaN())},
			`{"n":"s","hf_ns_":-1,"hf_f":"NaN"}`, `{0: "s", "hf_ns_": -1, 2: NaN}`},
		{"", holdfast.Reading{Time: relative, Value: holdfast.BytesValue([]byte("hi \n"))},
			`{"n":"s","t":268435456,"vd":"aGkgCg"}`, `{0: "s", 6: 268435456, 8: h'6869200a'}`},
		{"", holdfast.Reading{Time: relative, Value: holdfast.NumberValue(1 << 60)},
			`{"n":"s","t":268435456,"v":1.152921504606847e+18}`, `{0: "s", 6: 268435456, 2: 1152921504606847000.0}`},
		{"", holdfast.Reading{Time: relative, Value: holdfast.LocationValue(holdfast.Position{Latitude: 52.5, Longitude: 13, Altitude: math.NaN()})},
			`{"n":"s","t":268435456,"hf_loc":[52.5,13]}`, `{0: "s", 6: 268435456, "hf_loc": [52.5, 13.0]}`},
		{"", holdfast.Reading{Time: relative, Value: holdfast.TextValue("a\xffb\n")},
			"{\"n\":\"s\",\"t\":268435456,\"vs\":\"a\ufffdb\\u000a\"}", ""},
	} {
		if got := string(AppendJSON(nil, "s", c.unit, c.r)); got != c.json {
			t.Errorf("got  %s\nwant %s", got, c.json)
		}
		if c.cbor == "" {
			continue
		}
		if got, err := cbor.Diagnose(AppendCBOR(nil, "s", c.unit, c.r)); got != c.cbor || err != nil {
			t.Errorf("got  %s, %v\nwant %s", got, err, c.cbor)
		}
	}
}
