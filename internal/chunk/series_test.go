package chunk_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// start is 22 November 2026, a clock of milliseconds.
const (
	start  int64 = 1795305600_000_000_000
	second int64 = 1e9
)

// series makes n readings of one kind of sensor from a seed. The recipes follow
// what devices do: fixed resolution, slow walks, clocks that jitter, states that
// last.
type series struct {
	name string
	make func(r *rand.Rand, n int) *chunk.Columns
}

func exactTimes(n int) []int64 {
	t := make([]int64, n)
	for i := range t {
		t[i] = start + int64(i)*second
	}
	return t
}

func jitteredTimes(r *rand.Rand, n int) []int64 {
	t := exactTimes(n)
	for i := range t {
		t[i] += (r.Int64N(7) - 3) * 1e6
	}
	return t
}

// skippingTimes are those of a device that jitters and is silent now and then.
func skippingTimes(r *rand.Rand, n int) []int64 {
	t := jitteredTimes(r, n)
	silent := int64(0)
	for i := range t {
		if r.IntN(200) == 0 {
			silent += 1 + r.Int64N(60)
		}
		t[i] += silent * second
	}
	return t
}

func numbers(n int, f func(i int) float64) *chunk.Columns {
	c := &chunk.Columns{Type: holdfast.Number, Times: exactTimes(n), Numbers: make([]float64, n)}
	for i := range n {
		c.Numbers[i] = f(i)
	}
	return c
}

func integers(n int, f func(i int) int64) *chunk.Columns {
	c := &chunk.Columns{Type: holdfast.Integer, Times: exactTimes(n), Integers: make([]int64, n)}
	for i := range n {
		c.Integers[i] = f(i)
	}
	return c
}

func round(f float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(f*p) / p
}

func temperature(r *rand.Rand, n int) *chunk.Columns {
	t := 21.0
	return numbers(n, func(int) float64 { t += r.NormFloat64() * 0.12; return round(t, 1) })
}

func heartRate(r *rand.Rand, n int) *chunk.Columns {
	h := 70.0
	return numbers(n, func(int) float64 { h += (72-h)*0.02 + r.NormFloat64(); return math.Round(h) })
}

func counter(r *rand.Rand, n int) *chunk.Columns {
	c := int64(123456)
	return integers(n, func(int) int64 { c += 150 + int64(r.NormFloat64()*18); return c })
}

func states(r *rand.Rand, n int) *chunk.Columns {
	s := int64(0)
	return integers(n, func(int) int64 {
		if r.IntN(120) == 0 {
			s = r.Int64N(5)
		}
		return s
	})
}

func vibration(r *rand.Rand, n int) *chunk.Columns {
	return numbers(n, func(i int) float64 {
		return float64(float32(math.Sin(float64(i)*0.7)*0.8 + r.NormFloat64()*0.3))
	})
}

func noise(r *rand.Rand, n int) *chunk.Columns {
	return numbers(n, func(int) float64 { return r.NormFloat64() })
}

func positions(r *rand.Rand, n int) *chunk.Columns {
	c := &chunk.Columns{Type: holdfast.Location, Times: exactTimes(n)}
	lat, lon, dx, dy := 48.137, 11.575, 1e-5, 1.5e-5
	for range n {
		dx += r.NormFloat64() * 1e-6
		dy += r.NormFloat64() * 1e-6
		lat, lon = lat+dx, lon+dy
		c.Positions = append(c.Positions, holdfast.Position{
			Latitude: round(lat, 7), Longitude: round(lon, 6), Altitude: math.NaN()})
	}
	return c
}

// semicircles are degrees as a GPS recorder (FIT) gives them: 2^31 for 180.
func semicircles(r *rand.Rand, n int) *chunk.Columns {
	c := positions(r, n)
	for i, p := range c.Positions {
		c.Positions[i].Latitude = math.Round(p.Latitude*(1<<31)/180) * 180 / (1 << 31)
		c.Positions[i].Longitude = math.Round(p.Longitude*(1<<31)/180) * 180 / (1 << 31)
	}
	return c
}

func door(r *rand.Rand, n int) *chunk.Columns {
	c := &chunk.Columns{Type: holdfast.Boolean, Times: exactTimes(n), Booleans: make([]bool, n)}
	open := false
	for i := range n {
		if r.IntN(200) == 0 {
			open = !open
		}
		c.Booleans[i] = open
	}
	return c
}

var modes = []string{"idle", "heating", "cooling", "defrost", "fault: sensor"}

func modeTexts(r *rand.Rand, n int) *chunk.Columns {
	c := &chunk.Columns{Type: holdfast.Text, Times: exactTimes(n), Texts: make([]string, n)}
	s := 0
	for i := range n {
		if r.IntN(120) == 0 {
			s = r.IntN(len(modes))
		}
		c.Texts[i] = modes[s]
	}
	return c
}

func logLines(r *rand.Rand, n int) *chunk.Columns {
	c := &chunk.Columns{Type: holdfast.Text, Times: exactTimes(n), Texts: make([]string, n)}
	for i := range n {
		c.Texts[i] = fmt.Sprintf("valve %d moved to %d %%, took %d ms", r.IntN(8), r.IntN(101), 200+r.IntN(400))
	}
	return c
}

func frames(r *rand.Rand, n int) *chunk.Columns {
	c := &chunk.Columns{Type: holdfast.Bytes, Times: exactTimes(n), Blobs: make([][]byte, n)}
	for i := range n {
		c.Blobs[i] = []byte{0x68, byte(i), byte(i >> 8), 0x03, byte(r.IntN(256)), byte(r.IntN(4)), 0x16}
	}
	return c
}

func skipping(make func(*rand.Rand, int) *chunk.Columns) func(*rand.Rand, int) *chunk.Columns {
	return func(r *rand.Rand, n int) *chunk.Columns {
		c := make(r, n)
		c.Times = skippingTimes(r, n)
		return c
	}
}

func jittered(make func(*rand.Rand, int) *chunk.Columns) func(*rand.Rand, int) *chunk.Columns {
	return func(r *rand.Rand, n int) *chunk.Columns {
		c := make(r, n)
		c.Times = jitteredTimes(r, n)
		return c
	}
}

// allSeries are the kinds measured; all but the jittered ones have exact times,
// which cost about ten bytes a chunk.
var allSeries = []series{
	{"temperature", temperature},
	{"temperature-jitter", jittered(temperature)},
	{"temperature-skips", skipping(temperature)},
	{"heart-rate", heartRate},
	{"counter", counter},
	{"state", states},
	{"state-text", modeTexts},
	{"door", door},
	{"position", positions},
	{"semicircles", semicircles},
	{"vibration", vibration},
	{"noise", noise},
	{"log-line", logLines},
	{"frame", frames},
}

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func appendNumber(b []byte, f float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
}

func readNumbers(b []byte) []float64 {
	var v []float64
	for ; len(b) >= 8; b = b[8:] {
		v = append(v, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	}
	return v
}
