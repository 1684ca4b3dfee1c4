package chunk_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// equal compares bit for bit: every NaN is itself, 0 and -0 differ. Missing and
// zero sequence numbers and marks say the same.
func equal(t *testing.T, got, want *chunk.Columns) {
	t.Helper()
	if got.Type != want.Type || got.Len() != want.Len() {
		t.Fatalf("got %d rows of %s, want %d of %s", got.Len(), got.Type, want.Len(), want.Type)
	}
	for i := range want.Len() {
		g, w := got.Reading(i), want.Reading(i)
		if g != w {
			t.Fatalf("row %d: got %+v, want %+v (numbers %x, %x)", i, g, w,
				math.Float64bits(g.Value.Number()), math.Float64bits(w.Value.Number()))
		}
	}
}

// roundTrip encodes c, decodes it and returns the bytes.
func roundTrip(t *testing.T, c *chunk.Columns) []byte {
	t.Helper()
	before := "kept"
	data, err := chunk.Encode([]byte(before), c)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, string(data[:len(before)])); diff != "" {
		t.Fatal(diff)
	}
	data = data[len(before):]
	var got chunk.Columns
	if err := chunk.Decode(data, &got); err != nil {
		t.Fatal(err)
	}
	equal(t, &got, c)
	return data
}

func TestSeries(t *testing.T) {
	for _, s := range allSeries {
		t.Run(s.name, func(t *testing.T) {
			for _, n := range []int{1, 2, 3, 4, 5, 7, 10, 16, 31, 33, 60, 64, 127, 128, 129, 130, 255, 511, 513, 600, 3600, chunk.MaxRows} {
				roundTrip(t, s.make(random(uint64(n)), n))
			}
		})
	}
}
