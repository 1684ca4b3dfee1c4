package senml

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

func number(f float64) holdfast.Sample {
	return holdfast.Sample{Value: holdfast.NumberValue(f), Literal: true}
}

func at(t int64, s holdfast.Sample) holdfast.Sample {
	s.Time, s.Timed = t, true
	return s
}

func value(v holdfast.Value) holdfast.Sample { return holdfast.Sample{Value: v} }

func place(lat, lon, alt float64) holdfast.Sample {
	return value(holdfast.LocationValue(holdfast.Position{Latitude: lat, Longitude: lon, Altitude: alt}))
}

var sameValue = cmp.Comparer(holdfast.Value.Same)

func TestDecodeScalar(t *testing.T) {
	seventh := number(7)
	seventh.Seq = math.MaxUint64
	literal := func(i int64) holdfast.Sample {
		return holdfast.Sample{Value: holdfast.IntegerValue(i), Literal: true}
	}
	text := func(s string) holdfast.Sample { return value(holdfast.TextValue(s)) }
	for payload, want := range map[string]holdfast.Sample{
		"21.5":                          number(21.5),
		" 21.5\r\n":                     number(21.5),
		"0":                             number(0),
		"-0":                            number(math.Copysign(0, -1)),
		"-0.0e0":                        number(math.Copysign(0, -1)),
		"1e3":                           number(1000),
		"0.1":                           number(0.1),
		"1e-999":                        number(0),
		"5e-324":                        number(5e-324),
		"9007199254740992":              number(1 << 53),
		"9007199254740993":              literal(1<<53 + 1),
		"-9007199254740993":             literal(-1<<53 - 1),
		"9007199254740993.0":            number(1 << 53),
		"9223372036854775807":           literal(math.MaxInt64),
		"-9223372036854775808":          number(math.MinInt64),
		"-9223372036854775807":          literal(-math.MaxInt64),
		"9223372036854775808":           number(1 << 63),
		"18446744073709551616":          number(1 << 64),
		"1735689600.123456789":          number(1735689600.123456789),
		"true":                          value(holdfast.BooleanValue(true)),
		"\tfalse ":                      value(holdfast.BooleanValue(false)),
		`"on"`:                          text("on"),
		`""`:                            text(""),
		`"\"\\\/\b\f\n\r\té😀\u0000"`:    text("\"\\/\b\f\n\r\té😀\x00"),
		`"gr\u00fc\u00DF \ud83d\ude00"`: text("grüß 😀"),
		"on":                            text("on"),
		"On\t\r\n":                      text("On\t\r\n"),
		" ":                             text(" "),
		"12:30":                         text("12:30"),
		"01":                            text("01"),
		"1.":                            text("1."),
		".5":                            text(".5"),
		"+1":                            text("+1"),
		"1e":                            text("1e"),
		"-":                             text("-"),
		"0x10":                          text("0x10"),
		"1_000":                         text("1_000"),
		"NaN":                           text("NaN"),
		"21,5":                          text("21,5"),
		"trueish":                       text("trueish"),
		"nullable":                      text("nullable"),
		`"open`:                         text(`"open`),
		`"a" b`:                         text(`"a" b`),
		`"\x"`:                          text(`"\x"`),
		`"\ud800" x`:                    text(`"\ud800" x`),
		"größer":                        text("größer"),
		"\ufffd":                        text("\ufffd"),

		`{"lat":52.5,"lon":13.4}`:                         place(52.5, 13.4, math.NaN()),
		`{"alt":-3,"lon":-180,"lat":90}`:                  place(90, -180, -3),
		`{"v":{"lat":-90,"lon":180,"alt":1e3}}`:           place(-90, 180, 1000),
		`{"b64":"AAEC/w=="}`:                              value(holdfast.BytesValue([]byte{0, 1, 2, 255})),
		`{"v":{"b64":""},"t":1}`:                          at(1e9, value(holdfast.BytesValue(nil))),
		` { "v" : 21.5 } `:                                number(21.5),
		`{"v":"x"}`:                                       text("x"),
		`{"v":true}`:                                      value(holdfast.BooleanValue(true)),
		`{"\u0076":false}`:                                value(holdfast.BooleanValue(false)),
		`{"v":7,"seq":18446744073709551615}`:              seventh,
		`{"t":1735689600.123,"v":21.5}`:                   at(1735689600_123000000, number(21.5)),
		`{"t":1735689600.123456789,"v":0}`:                at(1735689600_123456789, number(0)),
		`{"t":1735689600.1234567894,"v":0}`:               at(1735689600_123456789, number(0)),
		`{"t":1735689600.1234567895,"v":0}`:               at(1735689600_123456790, number(0)),
		`{"t":1.7356896001234567895e9,"v":0}`:             at(1735689600_123456790, number(0)),
		`{"t":-1735689600.1234567895,"v":0}`:              at(-1735689600_123456790, number(0)),
		`{"t":0.0000000005,"v":0}`:                        at(1, number(0)),
		`{"t":0.00000000049999999999999,"v":0}`:           at(0, number(0)),
		`{"t":5e-10,"v":0}`:                               at(1, number(0)),
		`{"t":5e-11,"v":0}`:                               at(0, number(0)),
		`{"t":0e999999999999999999999,"v":0}`:             at(0, number(0)),
		`{"t":1e-999999999999999999999,"v":0}`:            at(0, number(0)),
		`{"t":-1.5,"v":0}`:                                at(-1_500000000, number(0)),
		`{"t":9223372036.854775807,"v":0}`:                at(math.MaxInt64, number(0)),
		`{"t":-9223372036.854775808,"v":0}`:               at(math.MinInt64, number(0)),
		`{"t":"2025-01-01T00:00:00Z","v":0}`:              at(1735689600_000000000, number(0)),
		`{"t":"2025-01-01T02:00:00.5+02:00","v":0}`:       at(1735689600_500000000, number(0)),
		`{"t":"1969-12-31T23:59:59.999999999Z","v":0}`:    at(-1, number(0)),
		`{"t":"1677-09-21T00:12:43.145224192Z","v":0}`:    at(math.MinInt64, number(0)),
		`{"t":"2262-04-11T23:47:16.854775807Z","v":true}`: at(math.MaxInt64, value(holdfast.BooleanValue(true))),
		`{"t":"2024-02-29T23:59:59.1234567899Z","v":"x"}`: at(1709251199_123456789, text("x")),
	} {
		got, err := DecodeScalar([]byte(payload))
		if err != nil {
			t.Errorf("%s: %v", payload, err)
			continue
		}
		if d := cmp.Diff(want, got, sameValue); d != "" {
			t.Errorf("%s:\n%s", payload, d)
		}
	}
}

func TestDecodeScalarRefuses(t *testing.T) {
	deep := strings.Repeat(`{"v":`, 100_000)
	for payload, want := range map[string]error{
		"":                                     errEmpty,
		"null":                                 errNull,
		" null ":                               errNull,
		"[]":                                   errArray,
		"[1":                                   errArray,
		"1e999":                                errOverflow,
		"-1e400":                               errOverflow,
		"a\x00":                                errControl,
		"\x1b[0m":                              errControl,
		"a\x7f":                                errControl,
		"\u0085":                               errControl,
		"\xff":                                 errControl,
		"\"\xff\"":                             errUTF8,
		"{\"v\":\"\xff\"}":                     errUTF8,
		"{\"\xff\":1}":                         errUTF8,
		`"\ud800"`:                             errSurrogate,
		`"\udc00\ud800"`:                       errSurrogate,
		`"\ud800\u0041"`:                       errSurrogate,
		`"\ud800\n12345"`:                      errSurrogate,
		"{":                                    errObject,
		`{"v":`:                                errObject,
		`{"v":1`:                               errObject,
		`{"v":1}x`:                             errObject,
		`{"v":1,}`:                             errObject,
		`{"v" 1}`:                              errObject,
		`{"v":tru}`:                            errObject,
		`{"v":01}`:                             errObject,
		`{v:1}`:                                errObject,
		`{"v":"x}`:                             errObject,
		`{}`:                                   errShape,
		`{"t":1}`:                              errShape,
		`{"t":1,"seq":2}`:                      errShape,
		`{"v":null}`:                           errShape,
		`{"v":[1]}`:                            errShape,
		`{"v":{}}`:                             errShape,
		`{"v":{"v":1}}`:                        errShape,
		`{"v":{"lat":1}}`:                      errShape,
		`{"v":{"lat":1,"lon":{}}}`:             errLocation,
		`{"v":{"b64":"","lat":1}}`:             errShape,
		`{"v":1,"lat":1,"lon":1}`:              errShape,
		`{"t":1,"lat":1,"lon":1}`:              errShape,
		`{"b64":"","t":1}`:                     errShape,
		`{"V":1}`:                              errShape,
		`{"v":1,"x":1}`:                        errShape,
		deep:                                   errShape,
		`{"v":1,"v":1}`:                        errTwice,
		`{"v":1,"\u0076":1}`:                   errTwice,
		`{"lat":1,"lon":1,"lat":1}`:            errTwice,
		`{"lat":90.1,"lon":0}`:                 errLocation,
		`{"lat":0,"lon":-180.5}`:               errLocation,
		`{"lat":"0","lon":0}`:                  errLocation,
		`{"lat":0,"lon":0,"alt":1e999}`:        errOverflow,
		`{"b64":1}`:                            errBase64,
		`{"b64":"AA"}`:                         errBase64,
		`{"b64":"AB=="}`:                       errBase64, // bits left over
		`{"b64":"-_=="}`:                       errBase64,
		`{"v":1,"seq":-1}`:                     errSeq,
		`{"v":1,"seq":1.0}`:                    errSeq,
		`{"v":1,"seq":1e1}`:                    errSeq,
		`{"v":1,"seq":"1"}`:                    errSeq,
		`{"v":1,"seq":18446744073709551616}`:   errSeq,
		`{"t":null,"v":1}`:                     errTime,
		`{"t":true,"v":1}`:                     errTime,
		`{"t":"","v":1}`:                       errTime,
		`{"t":"2025-01-01","v":1}`:             errTime,
		`{"t":"2025-01-01 00:00:00Z","v":1}`:   errTime,
		`{"t":"2025-02-30T00:00:00Z","v":1}`:   errTime,
		`{"t":"2025-01-01T00:00:00","v":1}`:    errTime,
		`{"t":9223372036.854775808,"v":1}`:     errTimeRange,
		`{"t":9223372036.8547758075,"v":1}`:    errTimeRange,
		`{"t":-9223372036.854775809,"v":1}`:    errTimeRange,
		`{"t":18446744073.709551615999,"v":1}`: errTimeRange,
		`{"t":1e10,"v":1}`:                     errTimeRange,
		`{"t":1e999999999999999999999,"v":1}`:  errTimeRange,
		`{"t":1735689600123,"v":1}`:            errTimeRange, // milliseconds by mistake
		`{"t":"2262-04-11T23:47:16.854775808Z","v":1}`:                         errTimeRange,
		`{"t":"0001-01-01T00:00:00Z","v":1}`:                                   errTimeRange,
		strings.Repeat("x", holdfast.MaxValueBytes+1):                          errTooLong,
		`"` + strings.Repeat("x", holdfast.MaxValueBytes+1) + `"`:              errTooLong,
		`{"b64":"` + strings.Repeat("AAAA", holdfast.MaxValueBytes/3+1) + `"}`: errTooLong,
	} {
		if len(payload) > 80 {
			payload, name := payload, payload[:40]
			if _, err := DecodeScalar([]byte(payload)); err != want {
				t.Errorf("%s...: got %v, want %v", name, err, want)
			}
			continue
		}
		if _, err := DecodeScalar([]byte(payload)); err != want {
			t.Errorf("%s: got %v, want %v", payload, err, want)
		}
		if k := holdfast.KindOf(want); k != holdfast.Invalid && k != holdfast.TooLarge {
			t.Errorf("%v has kind %v", want, k)
		}
	}
}

// A scalar of exactly the limit passes.
func TestScalarAtTheLimit(t *testing.T) {
	text := strings.Repeat("x", holdfast.MaxValueBytes)
	for _, payload := range []string{text, `"` + text + `"`} {
		if got, err := DecodeScalar([]byte(payload)); err != nil || got.Value.Text() != text {
			t.Errorf("text of %d bytes: %v", len(text), err)
		}
	}
	b, _ := json.Marshal(map[string][]byte{"b64": make([]byte, holdfast.MaxValueBytes)})
	if got, err := DecodeScalar(b); err != nil || len(got.Value.Bytes()) != holdfast.MaxValueBytes {
		t.Errorf("bytes at the limit: %v", err)
	}
}

// Every literal is the float64 that strconv reads, bit for bit.
func TestNumbersAreStrconv(t *testing.T) {
	rng, seed := drawn(t)
	for range 200_000 {
		s := drawLiteral(rng)
		want, rangeErr := strconv.ParseFloat(s, 64)
		i, intErr := strconv.ParseInt(s, 10, 64)
		got, err := DecodeScalar([]byte(s))
		switch {
		case rangeErr != nil:
			if err != errOverflow {
				t.Fatalf("seed %d: %s: got %v, want an overflow", seed, s, err)
			}
		case err != nil || !got.Literal:
			t.Fatalf("seed %d: %s: %v, literal %v", seed, s, err, got.Literal)
		case intErr == nil && got.Value.Type() == holdfast.Integer:
			if got.Value.Integer() != i || exact(i) {
				t.Fatalf("seed %d: %s: got integer %d", seed, s, got.Value.Integer())
			}
		case intErr == nil && !exact(i), !got.Value.Same(holdfast.NumberValue(want)):
			t.Fatalf("seed %d: %s: got %v", seed, s, got.Value.Number())
		}
	}
}

func drawn(t *testing.T) (*rand.Rand, uint64) {
	seed := testseed.Of(t)
	return rand.New(rand.NewPCG(seed, 0)), seed
}

func drawLiteral(rng *rand.Rand) string {
	switch rng.IntN(6) {
	case 0:
		return strconv.FormatFloat(rng.NormFloat64()*1000, 'f', rng.IntN(22), 64)
	case 1:
		return strconv.FormatInt(int64(rng.Uint64())>>rng.IntN(64), 10)
	case 2:
		return strconv.FormatUint(rng.Uint64(), 10) + "." + strconv.FormatUint(rng.Uint64(), 10)
	case 3:
		return strconv.FormatInt(int64(rng.Uint64())>>rng.IntN(64), 10) + "e" + strconv.Itoa(rng.IntN(700)-350)
	case 4:
		return "0." + strings.Repeat("0", rng.IntN(30)) + strconv.FormatUint(rng.Uint64(), 10)
	}
	f := math.Float64frombits(rng.Uint64())
	if math.IsNaN(f) || math.IsInf(f, 0) {
		f = 0
	}
	return strconv.FormatFloat(f, "efg"[rng.IntN(3)], -1, 64)
}

func FuzzDecodeScalar(f *testing.F) {
	for _, s := range []string{
		"21.5", "-0", "1e999", "true", "null", `"on"`, "on", `"\ud83d\ude00"`, `{"v":1`, "[[", "\xff",
		`{"t":1735689600.123,"v":21.5,"seq":7}`, `{"t":"2025-01-01T00:00:00Z","v":{"lat":1,"lon":2,"alt":3}}`,
		`{"b64":"AAEC"}`, `{"t":1e-999999999,"v":9007199254740993}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := DecodeScalar(payload)
		if err != nil {
			if k := holdfast.KindOf(err); k != holdfast.Invalid && k != holdfast.TooLarge {
				t.Fatalf("kind %v", k)
			}
			return
		}
		if !got.Value.Type().Valid() || got.Value.Size() > holdfast.MaxValueBytes+8 {
			t.Fatalf("a value of type %v", got.Value.Type())
		}
		trimmed := strings.Trim(string(payload), " \t\r\n")
		if got.Literal && trimmed[0] != '{' {
			want, err := strconv.ParseFloat(trimmed, 64)
			if err != nil || got.Value.Type() == holdfast.Number && !got.Value.Same(holdfast.NumberValue(want)) {
				t.Fatalf("number %v, strconv has %v, %v", got.Value.Number(), want, err)
			}
		}
		if got.Value.Type() == holdfast.Text && !utf8.ValidString(got.Value.Text()) {
			t.Fatal("a text that is not UTF-8")
		}
		verbatim := got.Value.Type() == holdfast.Text && got.Value.Text() == string(payload)
		if verbatim == json.Valid(payload) {
			t.Fatalf("taken as it stands: %v, JSON: %v", verbatim, !verbatim)
		}
	})
}

func BenchmarkDecodeScalar(b *testing.B) {
	for _, payload := range []string{
		"21.5", `{"t":1735689600.123,"v":21.5}`, `{"t":1735689600.123456,"v":21.53,"seq":123456}`,
		`{"t":"2025-01-01T00:00:00.123Z","v":21.5}`, "0.30000000000000004", "on", `"on"`, "true",
		`{"lat":52.516275,"lon":13.377704,"alt":34.5}`, `{"v":`,
	} {
		b.Run(payload, func(b *testing.B) {
			data := []byte(payload)
			b.ReportAllocs()
			for b.Loop() {
				DecodeScalar(data)
			}
		})
	}
}
