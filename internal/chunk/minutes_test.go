package chunk_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// sameStretch compares bit for bit: values are compared by their bits.
func sameStretch(a, b chunk.Stretch) bool {
	total := func(s chunk.Stretch) [3]holdfast.Value {
		return [3]holdfast.Value{holdfast.NumberValue(s.Total), holdfast.NumberValue(s.Low), holdfast.NumberValue(s.High)}
	}
	ta, tb := total(a), total(b)
	a.Total, a.Low, a.High, b.Total, b.Low, b.High = 0, 0, 0, 0, 0, 0
	return a == b && ta == tb
}

func byTheMinute(r *rand.Rand) *chunk.Columns {
	c := draw(r)
	t := start - r.Int64N(1e12)
	step := int64(1) << r.IntN(38)
	for i := range c.Times {
		c.Times[i] = t
		t += r.Int64N(step)
	}
	return c
}

// TestMinutesSayWhatTheRowsSay: bit for bit, through their bytes.
func TestMinutesSayWhatTheRowsSay(t *testing.T) {
	r := random(testseed.Of(t))
	var m, back chunk.Minutes
	var e chunk.Encoder
	made := map[holdfast.ValueType]int{}
	for range 400 {
		c := byTheMinute(r)
		if !m.Of(c) {
			continue
		}
		made[c.Type]++
		data := e.EncodeMinutes(nil, &m)
		if err := chunk.DecodeMinutes(data, &back); err != nil {
			t.Fatal(err)
		}
		if back.Rows() != c.Len() {
			t.Fatalf("%d rows of %d", back.Rows(), c.Len())
		}
		at := 0
		for i := range back.Len() {
			begin, _ := slices.BinarySearch(c.Times, back.Start(i))
			end, _ := slices.BinarySearch(c.Times, back.Start(i)+chunk.Minute)
			if begin != at || begin == end {
				t.Fatalf("minute %d has rows %d to %d, those before end at %d", i, begin, end, at)
			}
			at = end
			if got, want := back.At(i), c.Stretch(begin, end); !sameStretch(got, want) {
				t.Fatalf("%s: minute %d:\n%+v\nwant\n%+v", c.Type, i, got, want)
			}
			if got := back.Times(i); got != (holdfast.Span{From: c.Times[begin], To: c.Times[end-1]}) {
				t.Fatalf("minute %d: %v", i, got)
			}
		}
		if again := e.EncodeMinutes(nil, &back); !cmp.Equal(again, data) {
			t.Fatal("minutes that were read are written otherwise")
		}
	}
	for _, typ := range []holdfast.ValueType{holdfast.Number, holdfast.Integer, holdfast.Boolean} {
		if made[typ] == 0 {
			t.Errorf("no minutes of %s", typ)
		}
	}
}

// TestGoldenMinutes freezes the format of summaries.
func TestGoldenMinutes(t *testing.T) {
	spread := func(c *chunk.Columns, step int64) *chunk.Columns {
		for i := range c.Times {
			c.Times[i] = int64(i)*step - 90e9
		}
		return c
	}
	door := goldenColumns(holdfast.Boolean, 300)
	for i := range 300 {
		door.Booleans = append(door.Booleans, scatter(i/40, 2) == 0)
	}
	for name, c := range map[string]*chunk.Columns{
		"number": spread(numbers(600, func(i int) float64 {
			if i/60 == 3 {
				return math.NaN()
			}
			return float64(210+walk(i)) / 10
		}), 1e9),
		"integer": spread(integers(200, func(i int) int64 { return sum(i, 300) }), 25e8),
		"boolean": spread(door, 1e9),
	} {
		var m, back chunk.Minutes
		if !m.Of(c) {
			t.Fatal(name, "has no minutes")
		}
		var e chunk.Encoder
		data := e.EncodeMinutes(nil, &m)
		file := filepath.Join("testdata", name+".minutes")
		if *update {
			if err := os.WriteFile(file, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, want) {
			t.Errorf("%s: encodes to\n%x, the file has\n%x", name, data, want)
		}
		if err := chunk.DecodeMinutes(want, &back); err != nil || back.Len() != m.Len() {
			t.Fatalf("%s: %d minutes of %d: %v", name, back.Len(), m.Len(), err)
		}
		for i := range m.Len() {
			if !sameStretch(m.At(i), back.At(i)) {
				t.Errorf("%s: minute %d: %+v, want %+v", name, i, back.At(i), m.At(i))
			}
		}
	}
}

func TestMinutesThatCanNotBe(t *testing.T) {
	var m chunk.Minutes
	big := integers(2, func(int) int64 { return 1<<63 - 1 })
	early := integers(1, func(int) int64 { return 1 })
	early.Times[0] = -1 << 63
	texts := &chunk.Columns{Type: holdfast.Text, Times: []int64{1}, Texts: []string{"a"}}
	for i, c := range []*chunk.Columns{big, early, texts} {
		if m.Of(c) {
			t.Errorf("%d: minutes were made", i)
		}
	}
}

func FuzzDecodeMinutes(f *testing.F) {
	var e chunk.Encoder
	var m chunk.Minutes
	r := random(1)
	for range 20 {
		if c := byTheMinute(r); m.Of(c) && m.Len() < 100 {
			f.Add(e.EncodeMinutes(nil, &m))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var m chunk.Minutes
		if err := chunk.DecodeMinutes(data, &m); err != nil {
			if k := holdfast.KindOf(err); k != holdfast.Invalid && k != holdfast.Unavailable || m.Len() != 0 {
				t.Fatalf("%d minutes, kind %s of %v", m.Len(), k, err)
			}
			return
		}
		if m.Len() == 0 || m.Rows() > chunk.MaxRows {
			t.Fatalf("%d minutes of %d rows", m.Len(), m.Rows())
		}
		var back chunk.Minutes
		if err := chunk.DecodeMinutes(e.EncodeMinutes(nil, &m), &back); err != nil {
			t.Fatal(err)
		}
		for i := range m.Len() {
			if !sameStretch(m.At(i), back.At(i)) {
				t.Fatalf("minute %d: %+v, %+v", i, m.At(i), back.At(i))
			}
		}
	})
}

// BenchmarkMinutes says what the minutes of a chunk take, spread over its rows.
func BenchmarkMinutes(b *testing.B) {
	for _, s := range allSeries {
		c := s.make(random(1), 8192)
		var m, back chunk.Minutes
		if !m.Of(c) {
			continue
		}
		var e chunk.Encoder
		data := e.EncodeMinutes(nil, &m)
		b.Run("make/"+s.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.Of(c)
				data = e.EncodeMinutes(data[:0], &m)
			}
			perRow(b, c.Len(), len(data))
		})
		b.Run("decode/"+s.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := chunk.DecodeMinutes(data, &back); err != nil {
					b.Fatal(err)
				}
			}
			perRow(b, c.Len(), len(data))
		})
	}
}
