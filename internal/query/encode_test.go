package query

import (
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
)

var update = flag.Bool("update", false, "write golden files anew")

// answer is a Result of rows that are given, and of an error at their end.
func answer(rows []Row, aggregates []Aggregate, end error) *Result {
	return &Result{
		Rows: func(yield func(Row, error) bool) {
			for _, r := range rows {
				if !yield(r, nil) {
					return
				}
			}
			if end != nil {
				yield(Row{}, end)
			}
		},
		Aggregates: aggregates, Withheld: 2, cursor: "abc", finish: func() error { return nil },
	}
}

// sample returns rows of every type, with what is hard to write.
func sample() []Row {
	of := func(t holdfast.ValueType) *Source {
		return &Source{Device: holdfast.DeviceID{1}, DeviceName: `press "7", left`, Stream: "a/" + t.String(), Type: t, Unit: map[bool]string{true: "Cel"}[t == holdfast.Number]}
	}
	number, integer, boolean := of(holdfast.Number), of(holdfast.Integer), of(holdfast.Boolean)
	text, blob, location := of(holdfast.Text), of(holdfast.Bytes), of(holdfast.Location)
	var rows []Row
	add := func(s *Source, v holdfast.Value, at int64, seq uint64, m holdfast.Mark) {
		rows = append(rows, Row{Source: s, Reading: holdfast.Reading{Time: at, Seq: seq, Value: v, Mark: m}})
	}
	for i, f := range []float64{
		0, math.Copysign(0, -1), 0.1, -21.5, 1e21, 1 << 53, 1e-7, math.MaxFloat64, math.SmallestNonzeroFloat64,
		math.NaN(), math.Inf(1), math.Inf(-1), math.Float64frombits(0xfff8000000000123),
	} {
		add(number, holdfast.NumberValue(f), time.Date(2026, 11, 22, 12, 0, 0, i, time.UTC).UnixNano(), uint64(i), 0)
	}
	for _, i := range []int64{0, math.MinInt64, math.MaxInt64} {
		add(integer, holdfast.IntegerValue(i), i, math.MaxUint64, holdfast.Stamped|holdfast.Clock|holdfast.TLS12)
	}
	add(boolean, holdfast.BooleanValue(true), -1, 0, holdfast.TLS12)
	for _, s := range []string{"", "on", " on ", "a,b", "\"", "line\r\nfeed\x00\x7f", "größe 😀 \u2028", `back\slash`, "=1+1"} {
		add(text, holdfast.TextValue(s), 0, 0, 0)
	}
	for _, b := range []string{"", "\x00", "\xff\xfe\x00"} {
		add(blob, holdfast.BytesValue([]byte(b)), 0, 0, 0)
	}
	add(location, holdfast.LocationValue(holdfast.Position{Latitude: 52.520008, Longitude: 13.404954, Altitude: 34}), 0, 0, 0)
	add(location, holdfast.LocationValue(holdfast.Position{Latitude: -0.5, Longitude: -180, Altitude: math.NaN()}), 0, 0, 0)
	return rows
}

// windowed returns rows of windows of numbers, integers and texts.
func windowed() (rows []Row, all []Aggregate) {
	for _, s := range []struct {
		typ    holdfast.ValueType
		values []holdfast.Value
	}{
		{holdfast.Number, numbers(1, 2.5)},
		{holdfast.Integer, integers(math.MaxInt64, 1)},
		{holdfast.Boolean, []holdfast.Value{holdfast.BooleanValue(true)}},
		{holdfast.Text, []holdfast.Value{holdfast.TextValue("on"), holdfast.TextValue("")}},
		{holdfast.Location, []holdfast.Value{holdfast.LocationValue(holdfast.Position{Latitude: 1, Longitude: 2, Altitude: math.NaN()})}},
	} {
		rows = append(rows, Row{Source: &Source{Device: holdfast.DeviceID{1}, DeviceName: "press", Stream: s.typ.String(), Type: s.typ}, Window: windowOf(s.typ, s.values...)})
	}
	return rows, []Aggregate{Mean, Count, Sum, Min, Max, First, Last}
}

func TestGolden(t *testing.T) {
	rows := sample()
	windows, all := windowed()
	for name, c := range map[string]struct {
		write func(io.Writer, *Result) error
		res   *Result
	}{
		"readings.csv":        {WriteCSV, answer(rows, nil, nil)},
		"readings.json":       {WriteJSON, answer(rows, nil, nil)},
		"readings.ndjson":     {WriteNDJSON, answer(rows, nil, nil)},
		"readings.senml.json": {WriteSenML, answer(rows, nil, nil)},
		"windows.csv":         {WriteCSV, answer(windows, all, nil)},
		"windows.json":        {WriteJSON, answer(windows, all, nil)},
		"nothing.csv":         {WriteCSV, answer(nil, nil, nil)},
		"nothing.json":        {WriteJSON, answer(nil, nil, nil)},
		"nothing.senml.json":  {WriteSenML, answer(nil, nil, nil)},
	} {
		var b bytes.Buffer
		if err := c.write(&b, c.res); err != nil {
			t.Fatal(name, err)
		}
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), b.String()); diff != "" {
			t.Error(name, diff)
		}
		if strings.HasSuffix(name, "json") && !strings.HasSuffix(name, "ndjson") && !json.Valid(b.Bytes()) {
			t.Error(name, "is not JSON")
		}
	}
}

// number reads what appendNumber wrote.
func parseNumber(t *testing.T, s string) float64 {
	t.Helper()
	if hex, ok := strings.CutPrefix(s, "NaN:"); ok {
		u, err := strconv.ParseUint(hex, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return math.Float64frombits(u)
	}
	if s == "NaN" {
		return math.NaN()
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestCSVIsExact reads the file with the standard library and compares bits.
func TestCSVIsExact(t *testing.T) {
	rows := sample()
	var b bytes.Buffer
	if err := WriteCSV(&b, answer(rows, nil, nil)); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(lines) != len(rows)+1 {
		t.Fatal(len(lines), err)
	}
	for i, l := range lines[1:] {
		r := rows[i]
		at, err := time.Parse(time.RFC3339Nano, l[0])
		if err != nil || at.UnixNano() != r.Time {
			t.Error(i, l[0], err)
		}
		var v holdfast.Value
		switch r.Type {
		case holdfast.Number:
			v = holdfast.NumberValue(parseNumber(t, l[6]))
		case holdfast.Integer:
			n, err := strconv.ParseInt(l[6], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			v = holdfast.IntegerValue(n)
		case holdfast.Boolean:
			v = holdfast.BooleanValue(l[6] == "true")
		case holdfast.Text:
			v = holdfast.TextValue(l[6])
			r.Value = holdfast.TextValue(strings.ReplaceAll(r.Value.Text(), "\r\n", "\n")) // encoding/csv does that on reading
		case holdfast.Bytes:
			raw, err := base64.StdEncoding.DecodeString(l[6])
			if err != nil {
				t.Fatal(err)
			}
			v = holdfast.BytesValue(raw)
		case holdfast.Location:
			p := holdfast.Position{Latitude: parseNumber(t, l[7]), Longitude: parseNumber(t, l[8]), Altitude: math.NaN()}
			if l[9] != "" {
				p.Altitude = parseNumber(t, l[9])
			}
			v = holdfast.LocationValue(p)
		}
		if !v.Same(r.Value) || l[2] != r.DeviceName || l[3] != r.Stream || l[10] == "" != (r.Seq == 0) {
			t.Errorf("row %d: %q is not %v", i, l, r.Value)
		}
	}
}

// TestJSONIsExact reads each line with the standard library, numbers as text.
func TestJSONIsExact(t *testing.T) {
	rows := sample()
	var b bytes.Buffer
	if err := WriteNDJSON(&b, answer(rows, nil, nil)); err != nil {
		t.Fatal(err)
	}
	i := 0
	for line := range bytes.Lines(b.Bytes()) {
		var got struct {
			Time  time.Time
			Seq   uint64
			Value json.RawMessage
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		r := rows[i]
		text, quoted := string(got.Value), ""
		if text[0] == '"' {
			if err := json.Unmarshal(got.Value, &quoted); err != nil {
				t.Fatal(err)
			}
		}
		ok := got.Time.UnixNano() == r.Time && got.Seq == r.Seq
		switch r.Type {
		case holdfast.Number:
			ok = ok && holdfast.NumberValue(parseNumber(t, strings.Trim(text, `"`))).Same(r.Value)
		case holdfast.Integer:
			ok = ok && text == strconv.FormatInt(r.Value.Integer(), 10)
		case holdfast.Text:
			ok = ok && quoted == r.Value.Text()
		case holdfast.Bytes:
			ok = ok && quoted == base64.StdEncoding.EncodeToString(r.Value.Bytes())
		}
		if !ok {
			t.Errorf("row %d: %s is not %v", i, line, r.Reading)
		}
		i++
	}
	if i != len(rows) {
		t.Error(i, "lines")
	}
}

func TestEncodersEndWithTheError(t *testing.T) {
	broken := errors.New("gone")
	for name, write := range map[string]func(io.Writer, *Result) error{"csv": WriteCSV, "json": WriteJSON, "ndjson": WriteNDJSON, "senml": WriteSenML} {
		var b bytes.Buffer
		if err := write(&b, answer(sample(), nil, broken)); !errors.Is(err, broken) {
			t.Error(name, err)
		}
		if b.Len() == 0 || (name == "json" || name == "senml") && json.Valid(b.Bytes()) {
			t.Error(name, "does not show that it broke off")
		}
		if err := write(failing{}, answer(sample(), nil, nil)); !errors.Is(err, io.ErrClosedPipe) {
			t.Error(name, err)
		}
	}
	rows, all := windowed()
	if err := WriteSenML(io.Discard, answer(rows, all, nil)); holdfast.KindOf(err) != holdfast.Invalid {
		t.Error(err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func BenchmarkEncode(b *testing.B) {
	s := &Source{Device: holdfast.DeviceID{1}, DeviceName: "press", Stream: "load", Type: holdfast.Number, Unit: "N"}
	rows := make([]Row, 100_000)
	for i := range rows {
		rows[i] = Row{Source: s, Reading: holdfast.Reading{Time: int64(i) * 1e8, Value: holdfast.NumberValue(float64(i) / 7)}}
	}
	for name, write := range map[string]func(io.Writer, *Result) error{"csv": WriteCSV, "json": WriteJSON, "senml": WriteSenML} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := write(io.Discard, answer(rows, nil, nil)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(rows))*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
