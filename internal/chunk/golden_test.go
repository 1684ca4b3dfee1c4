package chunk_test

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

var update = flag.Bool("update", false, "write the golden files anew")

// scatter gives numbers below n that look drawn, from integers alone: the same on
// every machine.
func scatter(i int, n int64) int64 {
	x := uint64(i+1) * 0x9e3779b97f4a7c15
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	return int64(x>>33) % n
}

// walk sums small steps.
func walk(i int) int64 {
	x := int64(0)
	for j := range i {
		x += scatter(j, 3) + scatter(j+1000, 3) - 2
	}
	return x
}

// sum rises by steps below n.
func sum(i int, n int64) int64 {
	x := int64(0)
	for j := range i {
		x += scatter(j, n)
	}
	return x
}

// golden is one file: a chunk whose times are all 0, so that its value column
// begins behind version, type, rows and two bytes of times.
type golden struct {
	name    string
	head    string // first bytes of the value column, as docs/format/chunk.md has them
	columns *chunk.Columns
}

func zeroTimes(c *chunk.Columns) *chunk.Columns {
	clear(c.Times)
	return c
}

func goldenNumbers(n int, f func(i int) float64) *chunk.Columns { return zeroTimes(numbers(n, f)) }
func goldenIntegers(n int, f func(i int) int64) *chunk.Columns  { return zeroTimes(integers(n, f)) }

func goldenColumns(t holdfast.ValueType, n int) *chunk.Columns {
	return &chunk.Columns{Type: t, Times: make([]int64, n)}
}

func goldens() []golden {
	return append(append(goldenScalars(), goldenContents()...), goldenRows()...)
}

func goldenScalars() []golden {
	tenths := func(i int) float64 { return float64(210+walk(i)) / 10 }
	return []golden{
		{"number-decimal", "\x08\x07", goldenNumbers(600, tenths)},
		{"number-decimal-exceptions", "\x0c\x04", goldenNumbers(200, func(i int) float64 {
			switch i {
			case 0:
				return math.NaN()
			case 70:
				return negativeZero
			case 140:
				return math.Pi
			case 199:
				return quietNaN
			}
			return tenths(i)
		})},
		{"number-binary32", "\x01\x03", goldenNumbers(200, func(i int) float64 {
			return float64(float32(scatter(i, 1<<24)) / 16777259)
		})},
		{"number-binary32-exceptions", "\x05\x01", goldenNumbers(50, func(i int) float64 {
			if i == 20 {
				return loudNaN
			}
			return float64(float32(scatter(i, 1<<24)) / 16777259)
		})},
		{"number-binary64", "\x02", goldenNumbers(100, func(i int) float64 {
			return float64(scatter(i, 1<<31)) / float64(1+scatter(i+500, 1<<31))
		})},
		{"number-binary-fraction", "\xeb", goldenNumbers(100, func(i int) float64 {
			return float64(574_000_000+walk(i)*100+sum(i, 90)) * 180 / (1 << 31)
		})},
		{"number-nan", "\x03", goldenNumbers(9, func(int) float64 { return math.NaN() })},
		{"integer-constant", "\x00\x54", goldenIntegers(100, func(int) int64 { return 42 })},
		{"integer-steady", "\x34", goldenIntegers(100, func(i int) int64 { return start + int64(i)*60*second })},
		{"integer-bits-first", "\x01", goldenIntegers(60, func(i int) int64 { return scatter(i, 1000) })},
		{"integer-bits-before", "\x05", goldenIntegers(50, func(i int) int64 { return sum(i, 1000) })},
		{"integer-bits-line", "\x3d", goldenIntegers(60, func(i int) int64 { return start + int64(i)*second + (scatter(i, 7)-3)*1e6 })},
		{"integer-bits-slope", "\x09", goldenIntegers(60, func(i int) int64 { return int64(i*i*i)*5 + scatter(i, 2) })},
		{"integer-bits-extremes", "\x09", goldenIntegers(4, func(i int) int64 { return []int64{math.MinInt64, math.MaxInt64, 0, -1}[i] })},
		{"integer-variable", "\x06", goldenIntegers(600, func(i int) int64 {
			return walk(i) + 1000*sum(i, 40)/39*(scatter(i, 40)/39)
		})},
		{"integer-planes-huffman", "\x07", goldenIntegers(1000, walk)},
		{"integer-planes-zstd", "\x03", goldenIntegers(1000, func(i int) int64 { return scatter(i%50, 200) })},
		{"integer-runs", "\x40", goldenIntegers(1000, func(i int) int64 { return scatter(i/60, 5) })},
	}
}

func goldenContents() []golden {
	bits, runs := goldenColumns(holdfast.Boolean, 100), goldenColumns(holdfast.Boolean, 1000)
	for i := range 100 {
		bits.Booleans = append(bits.Booleans, scatter(i, 2) == 0)
	}
	for i := range 1000 {
		runs.Booleans = append(runs.Booleans, scatter(i/90, 2) == 0)
	}
	each, dict, few := goldenColumns(holdfast.Text, 100), goldenColumns(holdfast.Text, 300), goldenColumns(holdfast.Text, 3)
	for i := range 100 {
		each.Texts = append(each.Texts, fmt.Sprintf("valve %d moved to %d %%", scatter(i, 9), scatter(i+1, 100)))
	}
	for i := range 300 {
		dict.Texts = append(dict.Texts, modes[scatter(i, 5)])
	}
	few.Texts = []string{"", "grün", "\xff"}
	blobs := goldenColumns(holdfast.Bytes, 40)
	for i := range 40 {
		blobs.Blobs = append(blobs.Blobs, []byte{byte(i), 0x68, byte(scatter(i, 256)), 0x16}[:1+scatter(i, 4)])
	}
	twice := goldenColumns(holdfast.Bytes, 4)
	twice.Blobs = [][]byte{{0x68, 1}, {}, {0x68, 1}, {}}
	return []golden{
		{"boolean-bits", "\x00", bits},
		{"boolean-runs", "\x01", runs},
		{"text-each", "\x00", each},
		{"text-each-raw", "\x00", few},
		{"text-dictionary", "\x01\x05", dict},
		{"bytes-each", "\x00", blobs},
		{"bytes-dictionary", "\x01\x02", twice},
	}
}

func goldenRows() []golden {
	place := goldenColumns(holdfast.Location, 100)
	for i := range 100 {
		place.Positions = append(place.Positions, holdfast.Position{
			Latitude:  float64(481370000+walk(i)*100+int64(i)*91) / 1e7,
			Longitude: float64(11575000+walk(i+7)*10) / 1e6,
			Altitude:  math.NaN(),
		})
	}
	// Not only zero times here: what stands before the values is looked at.
	full := temperature(random(1), 1)
	full.Numbers[0] = 21.5
	full.Seqs, full.Marks = []uint64{7}, []holdfast.Mark{holdfast.Stamped}
	skips := numbers(600, func(i int) float64 { return 21.5 })
	for i := range skips.Times {
		skips.Times[i] += (scatter(i, 7)-3)*1e6 + int64(i/150)*17*second
	}
	return []golden{
		{"location", "\x38", place},
		{"times-grid", "", skips},
		{"sequence-and-mark", "", full},
	}
}

// TestGolden freezes the format: today's Decode reads every file, and today's
// Encode writes it. A new version of the compressor may find other bytes for the
// same columns; then only the second part changes.
func TestGolden(t *testing.T) {
	for _, g := range goldens() {
		t.Run(g.name, func(t *testing.T) {
			file := filepath.Join("testdata", g.name+".chunk")
			data, err := chunk.Encode(nil, g.columns)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var c chunk.Columns
			if err := chunk.Decode(want, &c); err != nil {
				t.Fatal(err)
			}
			equal(t, &c, g.columns)
			if !bytes.Equal(data, want) {
				t.Errorf("encodes to\n%x, the file has\n%x", data, want)
			}
			at := 5
			if c.Len() > 127 {
				at++ // two bytes of rows
			}
			if !bytes.HasPrefix(want[at:], []byte(g.head)) {
				t.Errorf("the value column begins with %x, not %x", want[at:at+4], g.head)
			}
		})
	}
	files, err := filepath.Glob(filepath.Join("testdata", "*.chunk"))
	if err != nil || len(files) != len(goldens()) {
		t.Errorf("%d golden files (%v), %d are written", len(files), err, len(goldens()))
	}
}
