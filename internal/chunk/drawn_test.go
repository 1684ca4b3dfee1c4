package chunk_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// TestDrawn draws columns that mix everything the encodings tell apart.
func TestDrawn(t *testing.T) {
	r := random(testseed.Of(t))
	var reused, rebuilt chunk.Columns
	for range 200 {
		c := draw(r)
		data := roundTrip(t, c)
		if err := chunk.Decode(data, &reused); err != nil {
			t.Fatal(err)
		}
		equal(t, &reused, c)
		rebuilt.Reset(c.Type)
		for i := range c.Len() {
			if err := rebuilt.Append(c.Reading(i)); err != nil {
				t.Fatal(err)
			}
		}
		equal(t, &rebuilt, c)
		again, err := chunk.Encode(nil, &rebuilt)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("the same rows appended encode to %d bytes (%v), not to the same %d", len(again), err, len(data))
		}
	}
}

func draw(r *rand.Rand) *chunk.Columns {
	n := 1 + r.IntN(1<<r.IntN(14))
	n = min(n, chunk.MaxRows)
	c := &chunk.Columns{Type: holdfast.ValueType(1 + r.IntN(6)), Times: drawIntegers(r, n)}
	if r.IntN(2) == 0 {
		c.Seqs = make([]uint64, n)
		for i, x := range drawIntegers(r, n) {
			c.Seqs[i] = uint64(x)
		}
	}
	if r.IntN(2) == 0 {
		c.Marks = make([]holdfast.Mark, n)
		for i, x := range drawIntegers(r, n) {
			c.Marks[i] = holdfast.Mark(x)
		}
	}
	switch c.Type {
	case holdfast.Number:
		c.Numbers = drawNumbers(r, n)
	case holdfast.Integer:
		c.Integers = drawIntegers(r, n)
	case holdfast.Boolean:
		c.Booleans = make([]bool, n)
		for i, x := range drawIntegers(r, n) {
			c.Booleans[i] = x&4 != 0
		}
	case holdfast.Text, holdfast.Bytes:
		words := 1 + r.IntN(2*n)
		for range n {
			word := random(r.Uint64N(uint64(words)))
			b := make([]byte, word.IntN(40))
			for i := range b {
				b[i] = byte('a' + word.IntN(26))
			}
			c.Texts = append(c.Texts, string(b))
			c.Blobs = append(c.Blobs, b)
		}
	case holdfast.Location:
		lat, lon, alt := drawNumbers(r, n), drawNumbers(r, n), drawNumbers(r, n)
		for i := range n {
			c.Positions = append(c.Positions, holdfast.Position{Latitude: lat[i], Longitude: lon[i], Altitude: alt[i]})
		}
	}
	return c
}

func drawIntegers(r *rand.Rand, n int) []int64 {
	v := make([]int64, n)
	spread := int64(1) << r.IntN(62)
	rare := 1 << r.IntN(14)
	step := r.Int64N(spread)
	scale := []int64{1, 1, 10, 1000, 1e9, 1 << 20}[r.IntN(6)]
	x := int64(r.Uint64())
	stay := r.IntN(2) == 0
	for i := range v {
		switch {
		case r.IntN(rare) > 0 && stay:
		case r.IntN(rare) > 0:
			x += step * scale
		default:
			x += r.Int64N(spread) * scale
		}
		v[i] = x
		if r.IntN(5000) == 0 {
			v[i] = int64(r.Uint64())
		}
	}
	return v
}

func drawNumbers(r *rand.Rand, n int) []float64 {
	digits, kind := r.IntN(9), r.IntN(5)
	odd := 1 << r.IntN(12)
	v := make([]float64, n)
	x := r.NormFloat64() * 100
	for i := range v {
		x += r.NormFloat64()
		switch kind {
		case 0, 1:
			v[i] = round(x, digits)
		case 2:
			v[i] = float64(float32(x))
		case 3:
			v[i] = math.Round(x*(1<<25)) / (1 << 25)
		default:
			v[i] = x
		}
		if r.IntN(odd) == 0 {
			v[i] = []float64{math.NaN(), loudNaN, negativeZero, math.Inf(-1), math.Pi, math.Float64frombits(r.Uint64())}[r.IntN(6)]
		}
	}
	return v
}
