package chunk_test

import (
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// FuzzDecode: no input panics or gives more than the limits, a Decoder's past
// changes nothing, and what decodes encodes to equal columns.
func FuzzDecode(f *testing.F) {
	for _, g := range goldens() {
		data, err := chunk.Encode(nil, g.columns)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range allSeries {
		data, err := chunk.Encode(nil, s.make(random(1), 80))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	used := chunk.Columns{}
	f.Fuzz(func(t *testing.T, data []byte) {
		var d chunk.Decoder
		var c chunk.Columns
		err := d.Decode(data, &c)
		usedErr := chunk.Decode(data, &used)
		if (err == nil) != (usedErr == nil) {
			t.Fatalf("a new decoder says %v, a used one %v", err, usedErr)
		}
		if err != nil {
			if k := holdfast.KindOf(err); k != holdfast.Invalid && k != holdfast.Unavailable {
				t.Fatalf("kind %s of %v", k, err)
			}
			if c.Len() != 0 {
				t.Fatal("rows are left after an error")
			}
			return
		}
		if c.Len() == 0 || c.Len() > chunk.MaxRows || c.Content() > chunk.MaxBytes {
			t.Fatalf("%d rows with %d bytes of content", c.Len(), c.Content())
		}
		equal(t, &used, &c)
		roundTrip(t, &c)
	})
}

// FuzzNumbers builds number columns from the bytes of any floats.
func FuzzNumbers(f *testing.F) {
	for _, v := range nastyNumbers {
		var b []byte
		for _, x := range v {
			b = appendNumber(b, x)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v := readNumbers(b)
		if len(v) == 0 || len(v) > chunk.MaxRows {
			t.Skip("no chunk has as many rows")
		}
		roundTrip(t, numbers(len(v), func(i int) float64 { return v[i] }))
	})
}
