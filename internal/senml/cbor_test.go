package senml

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
)

// m is a map that the library writes and ours must read.
type m = map[any]any

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fromHex reads hexadecimal digits with space between them.
func fromHex(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The example of RFC 8428, section 6, item by item.
func TestCBORExampleOfTheRFC(t *testing.T) {
	got, err := DecodeCBOR(fromHex(t, `87
		a7 21 781c 75726e3a6465763a6f773a313065323037336130313038303036333a
		   22 fb41d303a15b001062 23 6141 20 05 00 67766f6c74616765 01 6156 02 fb405e066666666666
		a3 00 6763757272656e74 06 24 02 fb3ff3333333333333
		a3 00 6763757272656e74 06 23 02 fb3ff4cccccccccccd
		a3 00 6763757272656e74 06 22 02 fb3ff6666666666666
		a3 00 6763757272656e74 06 21 02 f93e00
		a3 00 6763757272656e74 06 20 02 fb3ff999999999999a
		a3 00 6763757272656e74 06 00 02 fb3ffb333333333333`), arrival)
	if err != nil {
		t.Fatal(err)
	}
	const dev = "urn:dev:ow:10e2073a01080063:"
	// the float64 nearest to 1276020076.001 is 72.5 ns below it
	want := []holdfast.Sample{sample(dev+"voltage", "V", 1276020076_000999928, 120.1)}
	for i, v := range []float64{1.2, 1.3, 1.4, 1.5, 1.6, 1.7} {
		want = append(want, sample(dev+"current", "A", 1276020071_000999928+int64(i)*1e9, v))
	}
	if d := cmp.Diff(want, got, sameValue); d != "" {
		t.Error(d)
	}
}

func TestDecodeCBOR(t *testing.T) {
	fraction := func(exponent, mantissa int64) cbor.Tag {
		return cbor.Tag{Number: 4, Content: []int64{exponent, mantissa}}
	}
	for name, c := range map[string]struct {
		fields m
		want   holdfast.Sample
	}{
		"unsigned":            {m{2: 24}, sample("x", "", 0, 24.0)},
		"negative":            {m{2: -1}, sample("x", "", 0, -1.0)},
		"beyond float64":      {m{2: 1<<53 + 1}, sample("x", "", 0, int64(1<<53+1))},
		"smallest int64":      {m{2: math.MinInt64}, sample("x", "", 0, float64(math.MinInt64))},
		"beyond int64":        {m{2: uint64(math.MaxUint64)}, sample("x", "", 0, float64(1<<64))},
		"below int64":         {m{2: cbor.RawMessage(fromHex(t, "3b8000000000000000"))}, sample("x", "", 0, float64(math.MinInt64))},
		"least":               {m{2: cbor.RawMessage(fromHex(t, "3bffffffffffffffff"))}, sample("x", "", 0, -float64(1<<64))},
		"long fraction":       {m{2: fraction(-18, -math.MaxInt64)}, sample("x", "", 0, -9.223372036854775807)},
		"large fraction":      {m{2: fraction(20, -3)}, sample("x", "", 0, -3e20)},
		"float16":             {m{2: cbor.RawMessage{0xf9, 0xc5, 0x00}}, sample("x", "", 0, -5.0)},
		"smallest float16":    {m{2: cbor.RawMessage{0xf9, 0x00, 0x01}}, sample("x", "", 0, math.Ldexp(1, -24))},
		"smallest float32":    {m{2: float32(math.SmallestNonzeroFloat32)}, sample("x", "", 0, math.SmallestNonzeroFloat32)},
		"float32":             {m{2: float32(0.1)}, sample("x", "", 0, float64(float32(0.1)))},
		"largest float":       {m{2: math.MaxFloat64}, sample("x", "", 0, math.MaxFloat64)},
		"minus zero, 16 bits": {m{2: cbor.RawMessage{0xf9, 0x80, 0x00}}, sample("x", "", 0, math.Copysign(0, -1))},
		"NaN, 16 bits":        {m{2: cbor.RawMessage{0xf9, 0x7e, 0x00}}, sample("x", "", 0, math.Float64frombits(0x7ff8<<48))},
		"NaN, 32 bits":        {m{2: cbor.RawMessage{0xfa, 0xff, 0x80, 0x00, 0x01}}, sample("x", "", 0, math.Float64frombits(0xfff0000020000000))},
		"infinity, 16 bits":   {m{2: cbor.RawMessage{0xf9, 0xfc, 0x00}}, sample("x", "", 0, math.Inf(-1))},
		"decimal fraction":    {m{2: fraction(-2, 2153)}, sample("x", "", 0, 21.53)},
		"base value":          {m{-5: 20, 2: fraction(-1, 15)}, sample("x", "", 0, 21.5)},
		"boolean":             {m{4: true}, sample("x", "", 0, true)},
		"text":                {m{3: "größe\x00"}, sample("x", "", 0, "größe\x00")},
		"bytes":               {m{8: []byte{0, 1, 255}}, sample("x", "", 0, []byte{0, 1, 255})},
		"integer":             {m{"hf_int": math.MinInt64}, sample("x", "", 0, holdfast.IntegerValue(math.MinInt64))},
		"location": {m{"hf_loc": []any{52.5, -13, fraction(-1, 345)}},
			sample("x", "", 0, holdfast.LocationValue(holdfast.Position{Latitude: 52.5, Longitude: -13, Altitude: 34.5}))},
		"NaN as text":              {m{"hf_f": "NaN"}, sample("x", "", 0, holdfast.NumberValue(math.NaN()))},
		"seconds":                  {m{2: 1, 6: 1735689600}, sample("x", "", 1735689600_000000000, 1.0)},
		"seconds before":           {m{2: 1, 6: -5}, sample("x", "", arrival-5e9, 1.0)},
		"seconds in a float":       {m{2: 1, 6: 1735689600.25}, sample("x", "", 1735689600_250000000, 1.0)},
		"half a nanosecond":        {m{2: 1, 6: 0.5e-9}, sample("x", "", arrival+1, 1.0)},
		"less than half":           {m{2: 1, 6: -0.49e-9}, sample("x", "", 0, 1.0)},
		"nothing at all":           {m{2: 1, 6: math.SmallestNonzeroFloat64}, sample("x", "", 0, 1.0)},
		"decimal seconds":          {m{2: 1, 6: fraction(-9, 1735689600_123456789)}, sample("x", "", 1735689600_123456789, 1.0)},
		"rounded seconds":          {m{2: 1, 6: fraction(-10, 273568960_1234567895)}, sample("x", "", 273568960_123456790, 1.0)},
		"base time":                {m{2: 1, -3: fraction(-1, 17356896001), 6: fraction(-9, 1)}, sample("x", "", 1735689600_100000001, 1.0)},
		"nanoseconds":              {m{2: 1, "hf_ns_": math.MinInt64}, sample("x", "", math.MinInt64, 1.0)},
		"base name, unit, version": {m{-2: "a/", -4: "Cel", -1: 10, 2: 1}, sample("a/x", "Cel", 0, 1.0)},
		"unit":                     {m{-4: "Cel", 1: "K", 2: 1}, sample("x", "K", 0, 1.0)},
		"unknown, nested":          {m{2: 1, 99: []any{m{"a": []any{nil, "x", []byte{1}, 1.5}}}, -77: cbor.Tag{Number: 9999, Content: 0}, "a": nil}, sample("x", "", 0, 1.0)},
		"update time, base sum":    {m{2: 1, 7: 60, -6: 1.5}, sample("x", "", 0, 1.0)},
	} {
		c.fields[labelN] = "x"
		got, err := DecodeCBOR(encode(t, []m{c.fields}), arrival)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if d := cmp.Diff([]holdfast.Sample{c.want}, got, sameValue); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}

func TestDecodeCBORRefuses(t *testing.T) {
	pack := func(fields m) []byte {
		if fields[0] == nil {
			fields[0] = "x"
		}
		return encode(t, []m{fields})
	}
	for name, c := range map[string]struct {
		data []byte
		want string // the end of the error
	}{
		"nothing":            {nil, "EOF"},
		"cut":                {fromHex(t, "81 a2 00 6178"), "EOF"},
		"something after":    {fromHex(t, "81 a2 00 6178 02 01 00"), "extraneous data starting at index 7"},
		"no pack":            {encode(t, m{0: "x", 2: 1}), errPack.Error()},
		"empty pack":         {fromHex(t, "80"), errPack.Error()},
		"indefinite pack":    {fromHex(t, "9f a2 00 6178 02 01 ff"), "isn't allowed"},
		"indefinite record":  {fromHex(t, "81 bf 00 6178 02 01 ff"), "isn't allowed"},
		"indefinite text":    {fromHex(t, "81 a2 00 7f 6178 ff 02 01"), "isn't allowed"},
		"not a record":       {fromHex(t, "81 01"), "record 0: " + errPack.Error()},
		"huge array":         {fromHex(t, "9b 7fffffffffffffff"), "for CBOR array"},
		"huge map":           {fromHex(t, "81 bb 7fffffffffffffff"), "for CBOR map"},
		"huge text":          {fromHex(t, "81 a1 00 7b 7fffffffffffffff"), "EOF"},
		"reserved":           {fromHex(t, "81 a2 00 6178 02 1c"), "for type positive integer"},
		"twice":              {fromHex(t, "81 a3 00 6178 02 01 02 01"), "record 0: a field stands twice"},
		"twice, longer head": {fromHex(t, "81 a3 00 6178 02 01 1802 01"), "record 0: a field stands twice"},
		"unknown twice":      {fromHex(t, "81 a4 00 6178 02 01 6161 01 6161 01"), "record 0: a field stands twice"},
		"key of bytes":       {fromHex(t, "81 a3 00 6178 02 01 4161 01"), "record 0: a field has a value of the wrong type"},
		"false of two bytes": {fromHex(t, "81 a2 00 6178 04 f814"), "for type primitives"},
		"float for a boolean": {fromHex(t, "81 a2 00 6178 04 f90015"),
			"record 0: a field has a value of the wrong type"},
		"text for a boolean": {pack(m{4: "true"}), errType.Error()},
		"text for bytes":     {pack(m{8: "aGkgCg"}), errType.Error()},
		"integer twice":      {fromHex(t, "81 a3 00 6178 66 68665f696e74 01 66 68665f696e74 01"), errRepeated.Error()},
		"fraction of a map":  {pack(m{2: cbor.Tag{Number: 4, Content: m{}}}), errType.Error()},
		"location of text":   {pack(m{"hf_loc": []any{"1", "2"}}), errType.Error()},
		"bad UTF-8":          {fromHex(t, "81 a2 00 61ff 02 01"), "record 0: a text must be UTF-8"},
		"bad UTF-8 as key":   {fromHex(t, "81 a3 00 6178 02 01 61ff 01"), "record 0: a text must be UTF-8"},
		"must understand":    {pack(m{2: 1, "foo_": 1}), errRequired.Error()},
		"no value":           {pack(m{}), errNoValue.Error()},
		"two values":         {pack(m{2: 1, 4: true}), errTwoValues.Error()},
		"sum":                {pack(m{2: 1, 5: 1}), errSum.Error()},
		"version":            {pack(m{2: 1, -1: 11}), errVersion.Error()},
		"name of bytes":      {pack(m{0: []byte("x"), 2: 1}), errType.Error()},
		"text as value":      {pack(m{2: "1"}), errType.Error()},
		"null as value":      {pack(m{2: nil}), errType.Error()},
		"bignum":             {pack(m{2: new(big.Int).Lsh(big.NewInt(1), 70)}), errType.Error()},
		"other tag":          {pack(m{2: cbor.Tag{Number: 5, Content: []int{1, 2}}}), errType.Error()},
		"fraction of one":    {pack(m{2: cbor.Tag{Number: 4, Content: []int{1}}}), errType.Error()},
		"fraction of float":  {pack(m{2: cbor.Tag{Number: 4, Content: []float64{1, 2}}}), errType.Error()},
		"fraction too big":   {pack(m{2: cbor.Tag{Number: 4, Content: []int{400, 1}}}), errOverflow.Error()},
		"fraction far too big": {pack(m{2: 1, 6: cbor.Tag{Number: 4, Content: []int{math.MaxInt64, 1}}}),
			errTimeRange.Error()},
		"time as text":        {pack(m{2: 1, 6: "2025-01-01T00:00:00Z"}), errType.Error()},
		"time NaN":            {pack(m{2: 1, 6: math.NaN()}), errTimeRange.Error()},
		"time infinite":       {pack(m{2: 1, 6: math.Inf(1)}), errTimeRange.Error()},
		"time too late":       {pack(m{2: 1, 6: 9223372037}), errTimeRange.Error()},
		"time too late, 64":   {pack(m{2: 1, 6: uint64(math.MaxUint64)}), errTimeRange.Error()},
		"float time too late": {pack(m{2: 1, 6: 9223372037.0}), errTimeRange.Error()},
		"sequence":            {pack(m{2: 1, "hf_seq": -1}), errSeq.Error()},
		"integer":             {pack(m{"hf_int": uint64(1 << 63)}), errInteger.Error()},
		"location":            {pack(m{"hf_loc": []int{1}}), errLocation.Error()},
		"location NaN":        {pack(m{"hf_loc": []float64{math.NaN(), 1}}), errLocation.Error()},
		"altitude infinite":   {pack(m{"hf_loc": []float64{1, 1, math.Inf(1)}}), errLocation.Error()},
		"long text":           {pack(m{3: strings.Repeat("x", holdfast.MaxValueBytes+1)}), errTooLong.Error()},
		"long bytes":          {pack(m{8: make([]byte, holdfast.MaxValueBytes+1)}), errTooLong.Error()},
		"deep":                {pack(m{2: 1, 99: [][][][][][][]int{{{{{{{}}}}}}}}), "nested level 8"},
		"very deep":           {[]byte(strings.Repeat("\x81", 1<<20)), "nested level 8"},
		"many records":        {encode(t, make([]m, MaxRecords+1)), "for CBOR array"},
	} {
		_, err := DecodeCBOR(c.data, arrival)
		if err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
		if k := holdfast.KindOf(err); k != holdfast.Invalid && k != holdfast.TooLarge {
			t.Errorf("%s: kind %v", name, k)
		}
	}
}

// A time in a float is rounded once, to the nearest nanosecond, half away from
// zero: big.Rat is the witness.
func TestFloatTimes(t *testing.T) {
	rng, seed := drawn(t)
	half := big.NewRat(1, 2)
	for range 100_000 {
		f := math.Float64frombits(rng.Uint64())
		switch rng.IntN(3) {
		case 0:
			f = (rng.Float64() - 0.5) * 2e10
		case 1:
			f = math.Ldexp(float64(rng.Int64N(1<<53)), -rng.IntN(80))
		}
		got, ok := floatToNanos(f)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			if ok {
				t.Fatalf("seed %d: %v fits", seed, f)
			}
			continue
		}
		exact := new(big.Rat).SetFloat64(math.Abs(f))
		exact.Mul(exact, big.NewRat(1e9, 1)).Add(exact, half)
		want := new(big.Int).Quo(exact.Num(), exact.Denom())
		if f < 0 {
			want.Neg(want)
		}
		if ok != want.IsInt64() || ok && want.Int64() != got {
			t.Fatalf("seed %d: %v: got %d, %v, want %d", seed, f, got, ok, want)
		}
	}
}

// A decimal time is the nearest nanosecond to its digits: big.Rat is the witness.
func TestDecimalTimes(t *testing.T) {
	rng, seed := drawn(t)
	half := big.NewRat(1, 2)
	for range 50_000 {
		text := drawLiteral(rng)
		var n literal
		s := scanner{data: []byte(text)}
		if err := s.number(&n); err != nil || !s.end() {
			t.Fatalf("seed %d: %s: %v", seed, text, err)
		}
		got, ok := n.nanos()
		exact, valid := new(big.Rat).SetString(text)
		if !valid {
			t.Fatalf("seed %d: %s is no number", seed, text)
		}
		negative := exact.Sign() < 0
		exact.Abs(exact).Mul(exact, big.NewRat(1e9, 1)).Add(exact, half)
		want := new(big.Int).Quo(exact.Num(), exact.Denom())
		if negative {
			want.Neg(want)
		}
		if ok != want.IsInt64() || ok && want.Int64() != got {
			t.Fatalf("seed %d: %s: got %d, %v, want %d", seed, text, got, ok, want)
		}
	}
}

func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{
		`[{"bn":"a:","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},{"n":"c","t":-5,"v":1.2}]`,
		`[{"n":"x","vs":"\ud83d\ude00"},{"n":"x","vd":"aGkgCg"},{"n":"x","vb":true,"a":{"b":[1,null]}}]`,
		`[{"n":"x","hf_loc":[1,2,3],"hf_seq":7,"hf_ns_":-1},{"n":"x","v":5,"hf_int":5},{"n":"x","hf_f":"NaN"}]`,
		`[{"n":"x","bv":9007199254740992,"v":1}]`, `[[[[`, `[{"n":"x","v":1e999}]`, `[{"n":"x","v":1,"a_":1}]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		samples, err := DecodeJSON(data, arrival)
		if err == nil && !json.Valid(data) {
			t.Fatal("taken, and not JSON")
		}
		sound(t, samples, err)
	})
}

func FuzzDecodeCBOR(f *testing.F) {
	for _, v := range []m{
		{0: "x", 2: 1.5, 6: -1}, {0: "x", 3: "a"}, {0: "x", 8: []byte{1}, "hf_seq": 1}, {0: "x", "hf_loc": []float64{1, 2}},
		{0: "x", 2: cbor.Tag{Number: 4, Content: []int{-1, 5}}, -3: 1735689600.5, "o": []any{nil, m{1: 2}}},
	} {
		f.Add(encode(f, []m{v}))
	}
	f.Add([]byte("\x9b\x7f\xff\xff\xff\xff\xff\xff\xff"))
	foreign, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, MapKeyByteString: cbor.MapKeyByteStringAllowed}.DecMode()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		samples, err := DecodeCBOR(data, arrival)
		if err == nil {
			var records []map[any]cbor.RawMessage
			if err := foreign.Unmarshal(data, &records); err != nil || len(records) != len(samples) {
				t.Fatalf("taken, and the library says %v of %d records", err, len(records))
			}
		}
		sound(t, samples, err)
	})
}

// sound checks what must hold of every answer: a kind, or samples that both
// encodings carry on unchanged.
func sound(t *testing.T, samples []holdfast.Sample, err error) {
	if err != nil {
		if k := holdfast.KindOf(err); k != holdfast.Invalid && k != holdfast.TooLarge {
			t.Fatalf("kind %v", k)
		}
		return
	}
	text, binary := []byte("["), AppendCBORPack(nil, len(samples))
	for i, s := range samples {
		if !s.Timed {
			samples[i].Time, samples[i].Timed = arrival, true
		}
		samples[i].Literal = false
		r := holdfast.Reading{Time: samples[i].Time, Seq: s.Seq, Value: s.Value}
		text = append(AppendJSON(text, s.Stream, s.Unit, r), ',')
		binary = AppendCBOR(binary, s.Stream, s.Unit, r)
	}
	text[len(text)-1] = ']'
	for _, decode := range []func() ([]holdfast.Sample, error){
		func() ([]holdfast.Sample, error) { return DecodeJSON(text, arrival) },
		func() ([]holdfast.Sample, error) { return DecodeCBOR(binary, arrival) },
	} {
		again, err := decode()
		if err != nil {
			t.Fatalf("written again: %v: %s %x", err, text, binary)
		}
		for i := range again {
			again[i].Literal = false
		}
		if d := cmp.Diff(samples, again, sameValue); d != "" {
			t.Fatal(d)
		}
	}
}

func BenchmarkPack(b *testing.B) {
	const n = 100
	text, binary := []byte("["), AppendCBORPack(nil, n)
	for i := range n {
		r := holdfast.Reading{Time: arrival + int64(i)*1e9, Seq: uint64(i), Value: holdfast.NumberValue(21.5 + float64(i)/100)}
		text = append(AppendJSON(text, "spindle/temperature", "Cel", r), ',')
		binary = AppendCBOR(binary, "spindle/temperature", "Cel", r)
	}
	text[len(text)-1] = ']'
	perRecord := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/record")
	}
	b.Run("DecodeJSON", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeJSON(text, arrival); err != nil {
				b.Fatal(err)
			}
		}
		perRecord(b)
	})
	b.Run("DecodeCBOR", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeCBOR(binary, arrival); err != nil {
				b.Fatal(err)
			}
		}
		perRecord(b)
	})
	r := holdfast.Reading{Time: arrival, Value: holdfast.NumberValue(21.53)}
	buf := make([]byte, 0, 256)
	b.Run("AppendJSON", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			AppendJSON(buf, "spindle/temperature", "Cel", r)
		}
	})
	b.Run("AppendCBOR", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			AppendCBOR(buf, "spindle/temperature", "Cel", r)
		}
	})
}
