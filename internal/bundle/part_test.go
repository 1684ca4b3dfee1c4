package bundle

import (
	"bytes"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
)

var update = flag.Bool("update", false, "write golden files anew")

type line struct {
	Source Source
	Row    string // canonical bytes
}

// source returns a source whose ids follow from n.
func source(n byte, t holdfast.ValueType) *Source {
	return &Source{
		Device: holdfast.DeviceID{1, n}, DeviceName: "press \"7\"\n", StreamID: holdfast.StreamID{2, n}, Stream: "größe/" + t.String(),
		Unit: map[bool]string{true: "Cel", false: ""}[t == holdfast.Number], Type: t,
	}
}

// corner are readings at the edges of each type.
func corner() map[*Source][]holdfast.Reading {
	all := map[holdfast.ValueType][]holdfast.Value{
		holdfast.Number: {
			holdfast.NumberValue(0), holdfast.NumberValue(math.Copysign(0, -1)), holdfast.NumberValue(math.NaN()), holdfast.NumberValue(math.Inf(-1)),
			holdfast.NumberValue(math.Float64frombits(0x7ff0000000000123)), holdfast.NumberValue(math.SmallestNonzeroFloat64), holdfast.NumberValue(0.1),
		},
		holdfast.Integer:  {holdfast.IntegerValue(math.MinInt64), holdfast.IntegerValue(math.MaxInt64), holdfast.IntegerValue(0)},
		holdfast.Boolean:  {holdfast.BooleanValue(true), holdfast.BooleanValue(false)},
		holdfast.Text:     {holdfast.TextValue(""), holdfast.TextValue("a\x00b"), holdfast.TextValue("héllo")},
		holdfast.Bytes:    {holdfast.BytesValue(nil), holdfast.BytesValue([]byte{0, 0xff})},
		holdfast.Location: {holdfast.LocationValue(holdfast.Position{Latitude: 52.5, Longitude: -13.25, Altitude: math.NaN()}), holdfast.LocationValue(holdfast.Position{Altitude: math.Float64frombits(0x7ff8000000000002)})},
	}
	times := []int64{math.MinInt64, -1, 0, 1_700_000_000_123_456_789, math.MaxInt64}
	out := map[*Source][]holdfast.Reading{}
	for t, values := range all {
		s := source(byte(t), t)
		for i, v := range values {
			out[s] = append(out[s], holdfast.Reading{Time: times[i%len(times)], Seq: uint64(i) * math.MaxUint64, Value: v, Mark: holdfast.Mark(i % 8)})
		}
	}
	return out
}

func written(t testing.TB, rows map[*Source][]holdfast.Reading) ([]byte, []line) {
	t.Helper()
	var buf bytes.Buffer
	var want []line
	p := NewPart(&buf)
	for typ := holdfast.Number; typ <= holdfast.Location; typ++ {
		for s, readings := range rows {
			if s.Type != typ {
				continue
			}
			for _, r := range readings {
				if err := p.Append(s, r); err != nil {
					t.Fatal(err)
				}
				want = append(want, line{*s, string(AppendRow(nil, s.StreamID, r))})
			}
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), want
}

func readBack(t testing.TB, file []byte) (got []line) {
	t.Helper()
	err := ReadPart(bytes.NewReader(file), int64(len(file)), func(s *Source, r holdfast.Reading) error {
		got = append(got, line{*s, string(AppendRow(nil, s.StreamID, r))})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestPartKeepsEveryBit(t *testing.T) {
	file, want := written(t, corner())
	if diff := cmp.Diff(want, readBack(t, file)); diff != "" {
		t.Error(diff)
	}
	golden := filepath.Join("testdata", "observations.parquet")
	if *update {
		if err := os.WriteFile(golden, file, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, readBack(t, old)); diff != "" {
		t.Error("the golden file:", diff)
	}
}

// TestPartGroups: many batches, groups and streams, and both encodings.
func TestPartGroups(t *testing.T) {
	draw := rand.New(rand.NewPCG(1, 2))
	for name, value := range map[string]func() float64{"few": func() float64 { return float64(draw.IntN(9)) }, "many": draw.Float64} {
		rows := map[*Source][]holdfast.Reading{}
		for n := range byte(3) {
			s := source(n, holdfast.Number)
			for i := range 5000 {
				rows[s] = append(rows[s], holdfast.Reading{Time: int64(i), Value: holdfast.NumberValue(value())})
			}
		}
		long := source(9, holdfast.Text)
		for i := range 40 {
			rows[long] = append(rows[long], holdfast.Reading{Time: int64(i), Value: holdfast.TextValue(strings.Repeat("x", holdfast.MaxValueBytes))})
		}
		file, want := written(t, rows)
		if diff := cmp.Diff(len(want), len(readBack(t, file))); diff != "" {
			t.Fatal(name, diff)
		}
		if got := readBack(t, file); !cmp.Equal(want, got) {
			t.Errorf("%s: rows differ", name)
		}
	}
	many := map[*Source][]holdfast.Reading{}
	for n := range 2 * batchRows {
		s := source(1, holdfast.Number)
		s.StreamID[2], s.StreamID[3] = byte(n), byte(n>>8)
		many[s] = []holdfast.Reading{{Time: int64(n), Value: holdfast.NumberValue(float64(n))}}
	}
	if file, want := written(t, many); !cmp.Equal(want, readBack(t, file)) {
		t.Error("of many streams with one row each, rows differ")
	}
	empty, _ := written(t, nil)
	if got := readBack(t, empty); len(got) != 0 {
		t.Error("an empty part has rows")
	}
}

func TestPartRefuses(t *testing.T) {
	p := NewPart(new(bytes.Buffer))
	if err := p.Append(source(1, holdfast.Number), holdfast.Reading{Value: holdfast.TextValue("x")}); holdfast.KindOf(err) != holdfast.Invalid {
		t.Error(err)
	}
	file, _ := written(t, corner())
	stop := errors.New("enough")
	n := 0
	err := ReadPart(bytes.NewReader(file), int64(len(file)), func(*Source, holdfast.Reading) error { n++; return stop })
	if n != 1 || !errors.Is(err, stop) {
		t.Error(n, err)
	}
	defer func() {
		if recover() != "mine" {
			t.Error("a panic of the caller was caught")
		}
	}()
	_ = ReadPart(bytes.NewReader(file), int64(len(file)), func(*Source, holdfast.Reading) error { panic("mine") })
}

func FuzzReadPart(f *testing.F) {
	file, _ := written(f, corner())
	f.Add(file)
	f.Add([]byte("PAR1PAR1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = ReadPart(bytes.NewReader(b), int64(len(b)), func(*Source, holdfast.Reading) error { return nil })
	})
}

func BenchmarkPart(b *testing.B) {
	draw := rand.New(rand.NewPCG(1, 2))
	const rows = 1 << 20
	for name, value := range map[string]func() float64{"rounded": func() float64 { return math.Round(2000+500*draw.NormFloat64()) / 100 }, "full": draw.NormFloat64} {
		var readings []holdfast.Reading
		for i := range rows {
			readings = append(readings, holdfast.Reading{Time: int64(i)*1e9 + draw.Int64N(1e7), Value: holdfast.NumberValue(value())})
		}
		s := source(1, holdfast.Number)
		b.Run("write/"+name, func(b *testing.B) {
			var buf bytes.Buffer
			for b.Loop() {
				buf.Reset()
				p := NewPart(&buf)
				for _, r := range readings {
					if err := p.Append(s, r); err != nil {
						b.Fatal(err)
					}
				}
				if err := p.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(buf.Len())/rows, "B/row")
		})
		var buf bytes.Buffer
		p := NewPart(&buf)
		for _, r := range readings {
			if err := p.Append(s, r); err != nil {
				b.Fatal(err)
			}
		}
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
		b.Run("read/"+name, func(b *testing.B) {
			for b.Loop() {
				n := 0
				if err := ReadPart(bytes.NewReader(buf.Bytes()), int64(buf.Len()), func(*Source, holdfast.Reading) error { n++; return nil }); err != nil || n != rows {
					b.Fatal(n, err)
				}
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
		b.Run("tally/"+name, func(b *testing.B) {
			for b.Loop() {
				var t Tally
				for _, r := range readings {
					t.Add(s.StreamID, r)
				}
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
