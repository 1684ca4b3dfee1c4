package lineproto

import (
	"bytes"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// point is a Point that may be kept, with texts to compare and to print.
type point struct {
	Line        int
	Measurement string
	Tags        []string // key, value, key, value
	Fields      []field
	Time        int64
	Timed       bool
}

type field struct {
	Key   string
	Value holdfast.Value
}

var sameValue = cmp.Comparer(holdfast.Value.Same)

func keep(p *Point) point {
	k := point{Line: p.Line, Measurement: string(p.Measurement), Time: p.Time, Timed: p.Timed}
	for _, t := range p.Tags {
		k.Tags = append(k.Tags, string(t.Key), string(t.Value))
	}
	for _, f := range p.Fields {
		k.Fields = append(k.Fields, field{string(f.Key), f.Value})
	}
	return k
}

// all reads on after errors.
func all(points iter.Seq2[*Point, error]) (kept []point, errs []error) {
	for p, err := range points {
		if err != nil {
			errs = append(errs, err)
		} else {
			kept = append(kept, keep(p))
		}
	}
	return kept, errs
}

func number(f float64) holdfast.Value { return holdfast.NumberValue(f) }
func integer(i int64) holdfast.Value  { return holdfast.IntegerValue(i) }
func boolean(b bool) holdfast.Value   { return holdfast.BooleanValue(b) }
func text(s string) holdfast.Value    { return holdfast.TextValue(s) }

// tags is a measurement m with one tag and the field f=1.
func tagged(key, value string) point {
	return point{Measurement: "m", Tags: []string{key, value}, Fields: []field{{"f", number(1)}}}
}

func valued(v holdfast.Value) point {
	return point{Measurement: "m", Fields: []field{{"f", v}}}
}

func timed(t int64) point {
	return point{Measurement: "m", Fields: []field{{"f", number(1)}}, Time: t, Timed: true}
}

func TestDecode(t *testing.T) {
	for line, want := range map[string]point{
		// the reference of InfluxDB: elements of a line
		`myMeasurement,tag1=value1,tag2=value2 fieldKey="fieldValue" 1556813561098000000`: {
			Measurement: "myMeasurement", Tags: []string{"tag1", "value1", "tag2", "value2"},
			Fields: []field{{"fieldKey", text("fieldValue")}}, Time: 1556813561098000000, Timed: true},
		`weather,location=us-midwest temperature=82,humidity=71i,ok=true,note="dry"`: {
			Measurement: "weather", Tags: []string{"location", "us-midwest"},
			Fields: []field{{"temperature", number(82)}, {"humidity", integer(71)}, {"ok", boolean(true)}, {"note", text("dry")}}},

		// its examples of special characters
		`my\ Measurement fieldKey="string value"`: {Measurement: "my Measurement", Fields: []field{{"fieldKey", text("string value")}}},
		`myMeasurement fieldKey="\"string\" within a string"`: {
			Measurement: "myMeasurement", Fields: []field{{"fieldKey", text(`"string" within a string`)}}},
		`myMeasurement,tag\ Key1=tag\ Value1,tag\ Key2=tag\ Value2 fieldKey=100`: {Measurement: "myMeasurement",
			Tags: []string{"tag Key1", "tag Value1", "tag Key2", "tag Value2"}, Fields: []field{{"fieldKey", number(100)}}},
		`myMeasurement,tagKey=🍭 fieldKey="Launch 🚀" 1556813561098000000`: {Measurement: "myMeasurement",
			Tags: []string{"tagKey", "🍭"}, Fields: []field{{"fieldKey", text("Launch 🚀")}}, Time: 1556813561098000000, Timed: true},
		`weather,location\ place=us\,midwest temp\=rature=82`: {Measurement: "weather",
			Tags: []string{"location place", "us,midwest"}, Fields: []field{{"temp=rature", number(82)}}},
		`wea\,ther f=1`:                    {Measurement: "wea,ther", Fields: []field{{"f", number(1)}}},
		`"wea=ther" "f"="a, b = c"`:        {Measurement: `"wea=ther"`, Fields: []field{{`"f"`, text("a, b = c")}}},
		`wea\=ther f=1`:                    {Measurement: `wea\=ther`, Fields: []field{{"f", number(1)}}},
		`m,k=v\=w f=1`:                     tagged("k", "v=w"),
		`m,k=C:\dir\ x f=1`:                tagged("k", `C:\dir x`),
		`m,k=a\\b f=1`:                     tagged("k", `a\\b`),
		`m,k=a\\\ b f=1`:                   tagged("k", `a\\ b`),
		`m,k\,=v f=1`:                      tagged("k,", "v"),
		`m,k="v" f=1`:                      tagged("k", `"v"`),
		`m f="C:\dir\file"`:                valued(text(`C:\dir\file`)),
		`m f="C:\\dir\\"`:                  valued(text(`C:\dir\`)),
		`m f="\\\""`:                       valued(text(`\"`)),
		`m f="\ \,\="`:                     valued(text(`\ \,\=`)),
		`m f=""`:                           valued(text("")),
		"m f=\"two\nlines\r\nand more\" 7": {Measurement: "m", Fields: []field{{"f", text("two\nlines\r\nand more")}}, Time: 7, Timed: true},

		// values
		`m f=1`:                         valued(number(1)),
		`m f=-0`:                        valued(number(math.Copysign(0, -1))),
		`m f=+1.5`:                      valued(number(1.5)),
		`m f=.5`:                        valued(number(0.5)),
		`m f=5.`:                        valued(number(5)),
		`m f=007.50`:                    valued(number(7.5)),
		`m f=-1.234456e+78`:             valued(number(-1.234456e+78)),
		`m f=1E-3`:                      valued(number(0.001)),
		`m f=1e-999`:                    valued(number(0)),
		`m f=9007199254740993`:          valued(number(1 << 53)),
		`m f=0.1234567890123456789`:     valued(number(0.1234567890123456789)),
		`m f=1.7976931348623157e308`:    valued(number(math.MaxFloat64)),
		`m f=0i`:                        valued(integer(0)),
		`m f=-0i`:                       valued(integer(0)),
		`m f=9223372036854775807i`:      valued(integer(math.MaxInt64)),
		`m f=-9223372036854775808i`:     valued(integer(math.MinInt64)),
		`m f=-00009223372036854775808i`: valued(integer(math.MinInt64)),
		`m f=00000000000000000000042i`:  valued(integer(42)),
		`m f=9223372036854775807u`:      valued(integer(math.MaxInt64)),
		`m f=t`:                         valued(boolean(true)),
		`m f=T`:                         valued(boolean(true)),
		`m f=true`:                      valued(boolean(true)),
		`m f=True`:                      valued(boolean(true)),
		`m f=TRUE`:                      valued(boolean(true)),
		`m f=f`:                         valued(boolean(false)),
		`m f=F`:                         valued(boolean(false)),
		`m f=false`:                     valued(boolean(false)),
		`m f=False`:                     valued(boolean(false)),
		`m f=FALSE`:                     valued(boolean(false)),
		`m f=1,f=2i`:                    {Measurement: "m", Fields: []field{{"f", number(1)}, {"f", integer(2)}}},

		// times and blanks
		`m f=1 0`:                    timed(0),
		`m f=1 -1`:                   timed(-1),
		`m f=1 9223372036854775807`:  timed(math.MaxInt64),
		`m f=1 -9223372036854775808`: timed(math.MinInt64),
		" \tm   f=1   7 \t":          timed(7),
		"m f=1\t7":                   timed(7),
		"m f=1 \r":                   valued(number(1)),
		"m f=1 7\r":                  timed(7),
	} {
		want.Line = 1
		for _, end := range []string{"", "\n", "\r\n"} {
			got, errs := all(Decode([]byte(line+end), Nanosecond))
			if errs != nil {
				t.Errorf("%s: %v", line, errs)
			} else if d := cmp.Diff([]point{want}, got, sameValue); d != "" {
				t.Errorf("%s:\n%s", line, d)
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for line, want := range map[string]error{
		"m":                               errNoFields,
		"m ":                              errNoFields,
		"m\r":                             errNoFields,
		"m,k=v":                           errNoFields,
		`m,k=v\`:                          errNoFields,
		`m\ f=1`:                          errNoFields,
		",k=v f=1":                        errMeasurement,
		"m, f=1":                          errTag,
		"m,k f=1":                         errTag,
		"m,k= f=1":                        errTag,
		"m,=v f=1":                        errTag,
		"m,k=v=w f=1":                     errTag,
		"m,k=v, f=1":                      errTag,
		"m,k=v,k=v f=1":                   errTagTwice,
		`m,k\ =v,k\ =w f=1`:               errTagTwice,
		"m f":                             errField,
		"m f=":                            errField,
		"m f= 1":                          errField,
		"m =1":                            errField,
		"m f=1,":                          errField,
		"m f=1, g=2":                      errField,
		"m f=,g=2":                        errField,
		"m f==1":                          errField,
		"m f =1":                          errField,
		"m f=x":                           errValue,
		"m f=NaN":                         errValue,
		"m f=nan":                         errValue,
		"m f=inf":                         errValue,
		"m f=-Inf":                        errValue,
		"m f=+Inf":                        errValue,
		"m f=Infinity":                    errValue,
		"m f=tr":                          errValue,
		"m f=truE":                        errValue,
		"m f='x'":                         errValue,
		"m f=-":                           errValue,
		"m f=.":                           errValue,
		"m f=-.e1":                        errValue,
		"m f=1e":                          errValue,
		"m f=1e+":                         errValue,
		"m f=1.5i":                        errValue,
		"m f=1e3i":                        errValue,
		"m f=i":                           errValue,
		"m f=-u":                          errValue,
		"m f=-1u":                         errValue,
		"m f=1ii":                         errValue,
		"m f=1f":                          errValue,
		"m f=0x10":                        errValue,
		"m f=1_000":                       errValue,
		"m f=1.2.3":                       errValue,
		`m f="x"y`:                        errValue,
		`m f="x""y"`:                      errValue,
		`m f="x`:                          errQuote,
		`m f="x\"`:                        errQuote,
		`m f="x\`:                         errQuote,
		"m f=1e999":                       errRange,
		"m f=-1e400":                      errRange,
		"m f=9223372036854775808i":        errRange,
		"m f=-9223372036854775809i":       errRange,
		"m f=99999999999999999999999i":    errRange,
		"m f=9223372036854775808u":        errRange,
		"m f=18446744073709551615u":       errRange,
		"m f=1 x":                         errTime,
		"m f=1 1.5":                       errTime,
		"m f=1 1e9":                       errTime,
		"m f=1 -":                         errTime,
		"m f=1 1 2":                       errTime,
		"m f=1 1x":                        errTime,
		"m f=1 9223372036854775808":       errTimeRange,
		"m f=1 -9223372036854775809":      errTimeRange,
		"m f=1 18446744073709551617":      errTimeRange,
		"m f=1 99999999999999999999999":   errTimeRange,
		"\xff f=1":                        errUTF8,
		"m,\xff=v f=1":                    errUTF8,
		"m,k=\xff f=1":                    errUTF8,
		"m \xff=1":                        errUTF8,
		"m f=\"\xc3(\"":                   errUTF8,
		"m" + many(65, ",k%d=v") + " f=1": errTags,
		"m f=1" + many(1024, ",k%d=1"):    errFields,
		`m f="` + strings.Repeat("x", holdfast.MaxValueBytes+1) + `"`: errText,
		`m f="` + strings.Repeat("x", MaxLineBytes):                   errLine,
		"#" + strings.Repeat("x", MaxLineBytes):                       errLine,
		strings.Repeat("x", MaxLineBytes+1):                           errLine,
		"m f=1 1" + strings.Repeat(" ", MaxLineBytes):                 errLine,
	} {
		_, errs := all(Decode([]byte("\n"+line), Nanosecond))
		if len(errs) != 1 || errs[0].Error() != "line 2: "+want.Error() || holdfast.KindOf(errs[0]) != holdfast.KindOf(want) {
			t.Errorf("%.60s: got %v, want %v", line, errs, want)
		}
	}
}

func TestLimitsAreReached(t *testing.T) {
	var line strings.Builder
	line.WriteString("m")
	for i := range MaxTags {
		fmt.Fprintf(&line, ",k%d=v", i)
	}
	for i := range MaxFields {
		fmt.Fprintf(&line, "%cf%d=1", " ,"[min(i, 1)], i)
	}
	fmt.Fprintf(&line, ",s=\"%s\"", strings.Repeat("x", holdfast.MaxValueBytes))
	full := strings.Replace(line.String(), ",f1=1", "", 1)
	full += strings.Repeat(" ", MaxLineBytes-len(full))
	got, errs := all(Decode([]byte(full+"\nm f=1 7"), Nanosecond))
	if errs != nil || len(got) != 2 || len(got[0].Tags) != 2*MaxTags || len(got[0].Fields) != MaxFields || got[1].Time != 7 {
		t.Errorf("got %d points, %v", len(got), errs)
	}
}

func TestPrecision(t *testing.T) {
	for name, want := range map[string]int64{
		"": 3, "n": 3, "ns": 3, "u": 3e3, "us": 3e3, "µs": 3e3, "ms": 3e6, "s": 3e9, "m": 180e9, "h": 10800e9,
	} {
		unit, err := ParsePrecision(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got, errs := all(Decode([]byte("m f=1 -3"), unit))
		if errs != nil || got[0].Time != -want {
			t.Errorf("%s: got %v, %v", name, got, errs)
		}
	}
	for _, name := range []string{"S", "d", "1s", " "} {
		if _, err := ParsePrecision(name); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%q: %v", name, err)
		}
	}
	for line, fits := range map[string]bool{
		"m f=1 9223372036": true, "m f=1 9223372037": false, "m f=1 -9223372036": true, "m f=1 -9223372037": false,
		"m f=1 18446744073709551615": false, "m f=1 18446744074": false,
	} {
		if _, errs := all(Decode([]byte(line), Second)); (errs == nil) != fits {
			t.Errorf("%s: %v", line, errs)
		}
	}
}

// Comments and blank lines say nothing; a bad line keeps no other from being
// read; the numbers of lines count what lies within a text.
func TestLines(t *testing.T) {
	const data = "# a comment\n" +
		"\n" +
		"  \t\r\n" +
		"  # indented, m f=1\n" +
		"m f=1 1\n" + // 5
		"bad\n" +
		"m f=\"a\n\n\nb\" 2\r\n" + // 7 to 10
		"m f=1,g=\"\n\" x\n" + // 11 and 12, bad behind its text
		"m f=1 3\n" + // 13
		"m f=\"open\n" + // 14: has no closing quote
		"m f=1 4"
	got, errs := all(Decode([]byte(data), Nanosecond))
	var lines []int
	var times []int64
	for _, p := range got {
		lines, times = append(lines, p.Line), append(times, p.Time)
	}
	if d := cmp.Diff([]int{5, 7, 13, 15}, lines); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]int64{1, 2, 3, 4}, times); d != "" {
		t.Error(d)
	}
	want := []string{"line 6: " + errNoFields.Error(), "line 11: " + errTime.Error(), "line 14: " + errQuote.Error()}
	if d := cmp.Diff(want, strings.Split(fmt.Sprintln(errs[0])+fmt.Sprintln(errs[1])+fmt.Sprint(errs[2]), "\n")); d != "" {
		t.Error(d)
	}
}

// Who stops early is asked nothing more.
func TestStop(t *testing.T) {
	for _, data := range []string{"m f=1\nm f=2\n", "bad\nbad\n"} {
		n := 0
		for range Decode([]byte(data), Nanosecond) {
			n++
			break
		}
		if n != 1 {
			t.Errorf("%q: %d times", data, n)
		}
	}
}

func TestStream(t *testing.T) {
	for p, err := range Decode([]byte(`cpu\ 0,device=spindle\ 7,host=a usage\ idle=1,temp/core=2,a#b=3`), Nanosecond) {
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"cpu 0_usage idle", "cpu 0_temp/core"} {
			if got, err := p.Stream(&p.Fields[i]); got != want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
			if got := p.AppendStream([]byte("x/"), &p.Fields[i]); string(got) != "x/"+want {
				t.Errorf("got %q, want x/%s", got, want)
			}
		}
		if _, err := p.Stream(&p.Fields[2]); holdfast.KindOf(err) != holdfast.Invalid || !strings.HasPrefix(err.Error(), "line 1: ") {
			t.Errorf("a stream with a wildcard: %v", err)
		}
		device, ok := p.Tag("device")
		if string(device) != "spindle 7" || !ok {
			t.Errorf("device %q, %v", device, ok)
		}
		if _, ok := p.Tag("Device"); ok {
			t.Error("a tag that is not there")
		}
	}
}

func TestErrorsKeepContentToThemselves(t *testing.T) {
	for _, line := range []string{
		"PLANTED", "m,PLANTED f=1", "m PLANTED", "m f=PLANTED", `m f="PLANTED`, "m f=1 PLANTED", "PLANTED# f=1", "m,a=PLANTED,a=PLANTED f=1",
	} {
		for p, err := range Decode([]byte(line), Nanosecond) {
			if err == nil {
				_, err = p.Stream(&p.Fields[0])
			}
			if err == nil || strings.Contains(err.Error(), "PLANTED") {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
}

// appendPoint writes a point as the reference says, for what is drawn and fuzzed.
func appendPoint(dst []byte, p point) []byte {
	name := strings.NewReplacer(",", `\,`, " ", `\ `)
	key := strings.NewReplacer(",", `\,`, " ", `\ `, "=", `\=`)
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	dst = append(dst, name.Replace(p.Measurement)...)
	for i := 0; i < len(p.Tags); i += 2 {
		dst = append(append(append(append(dst, ','), key.Replace(p.Tags[i])...), '='), key.Replace(p.Tags[i+1])...)
	}
	for i, f := range p.Fields {
		dst = append(append(append(dst, " ,"[min(i, 1)]), key.Replace(f.Key)...), '=')
		switch f.Value.Type() {
		case holdfast.Number:
			dst = strconv.AppendFloat(dst, f.Value.Number(), "feg"[i%3], -1, 64)
		case holdfast.Integer:
			dst = append(strconv.AppendInt(dst, f.Value.Integer(), 10), 'i')
		case holdfast.Boolean:
			dst = strconv.AppendBool(dst, f.Value.Boolean())
		case holdfast.Text:
			dst = append(append(append(dst, '"'), quote.Replace(f.Value.Text())...), '"')
		}
	}
	if p.Timed {
		dst = strconv.AppendInt(append(dst, ' '), p.Time, 10)
	}
	return append(dst, '\n')
}

func drawPoint(rng *rand.Rand) point {
	word := func(alphabet string) string {
		runes := []rune(alphabet)
		out := []rune{'a' + rng.Int32N(26)}
		for range rng.IntN(8) {
			out = append(out, runes[rng.IntN(len(runes))])
		}
		return string(append(out, 'z')) // a backslash at the end can't be written
	}
	const names = `ab ,="\/é🚀`
	p := point{Measurement: word(names)}
	for i := range rng.IntN(4) {
		p.Tags = append(p.Tags, strconv.Itoa(i)+word(names), word(names))
	}
	for range 1 + rng.IntN(6) {
		f := field{Key: word(names)}
		switch rng.IntN(4) {
		case 0:
			f.Value = number(rng.NormFloat64() * math.Pow(10, float64(rng.IntN(40)-20)))
			if v := math.Float64frombits(rng.Uint64()); rng.IntN(2) == 0 && !math.IsNaN(v) && !math.IsInf(v, 0) {
				f.Value = number(v)
			}
		case 1:
			f.Value = integer(int64(rng.Uint64()) >> rng.IntN(64))
		case 2:
			f.Value = boolean(rng.IntN(2) == 0)
		case 3:
			f.Value = text(word(names + "\n\r\t\x00"))
		}
		p.Fields = append(p.Fields, f)
	}
	if rng.IntN(4) > 0 {
		p.Time, p.Timed = int64(rng.Uint64())>>rng.IntN(64), true
	}
	return p
}

func TestRoundTrip(t *testing.T) {
	seed := testseed.Of(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		var want []point
		var data []byte
		line := 1
		for range rng.IntN(10) {
			p := drawPoint(rng)
			p.Line = line
			before := len(data)
			data = appendPoint(data, p)
			line += bytes.Count(data[before:], []byte("\n"))
			want = append(want, p)
		}
		got, errs := all(Decode(data, Nanosecond))
		if errs != nil {
			t.Fatalf("seed %d: %v\n%s", seed, errs, data)
		}
		if d := cmp.Diff(want, got, sameValue); d != "" {
			t.Fatalf("seed %d:\n%s\n%s", seed, d, data)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"m,k=v f=1,g=2i,h=\"x\\\"\n\",i=t 1\n", `a\ b,c\==d\, e\ =-1.5e-9`, "# x\r\n\r\nm f=1\r\n", "m f=18446744073709551615u",
		`m f="`, "m,=", "m f=1e999 99999999999999999999", `m\\ \\=1`,
	} {
		f.Add([]byte(s), int64(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, unit int64) {
		if unit < 1 || unit > int64(Hour) {
			unit = 1
		}
		kept, errs := all(Decode(data, Precision(unit)))
		if n := bytes.Count(data, []byte("\n")) + 1; len(kept)+len(errs) > n {
			t.Fatalf("%d points and %d errors in %d lines", len(kept), len(errs), n)
		}
		for _, err := range errs {
			if k := holdfast.KindOf(err); k != holdfast.Invalid && k != holdfast.TooLarge {
				t.Fatalf("kind %v", k)
			}
		}
		for _, p := range kept {
			again, errs := all(Decode(appendPoint(nil, p), Nanosecond))
			p.Line = 1
			if writable(p) && (errs != nil || cmp.Diff([]point{p}, again, sameValue) != "") {
				t.Fatalf("written again: %v\n%s", errs, cmp.Diff([]point{p}, again, sameValue))
			}
		}
	})
}

// writable: line protocol can't write a name that ends in a backslash, or has
// one before what needs an escape, nor a measurement that begins like a comment
// or a blank line.
func writable(p point) bool {
	names := append([]string{p.Measurement}, p.Tags...)
	for _, f := range p.Fields {
		names = append(names, f.Key)
	}
	for _, n := range names {
		if strings.Contains(n, `\`) || strings.HasPrefix(n, " ") || strings.HasPrefix(n, "#") {
			return false
		}
	}
	return true
}

func BenchmarkDecode(b *testing.B) {
	for name, line := range map[string]string{
		"telegraf": "cpu,cpu=cpu0,host=gateway-17 usage_user=12.304120,usage_system=3.2,usage_idle=84.10999999999999,usage_iowait=0,usage_steal=0 1735689600000000000\n",
		"sensor":   "env,device=node-0042 temperature=21.53,humidity=44.1,battery=3021i,open=f 1735689600123456789\n",
		"single":   "t,device=n1 v=21.5 1735689600123\n",
	} {
		b.Run(name, func(b *testing.B) {
			data := []byte(strings.Repeat(line, 1000))
			fields := 0
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				for p, err := range Decode(data, Nanosecond) {
					if err != nil {
						b.Fatal(err)
					}
					fields += len(p.Fields)
				}
			}
			b.ReportMetric(float64(fields)/b.Elapsed().Seconds()/1e6, "Mfields/s")
		})
	}
}
