package chunk_test

import (
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// perRow reports what one row takes, in bytes and in time; the times column is
// included.
func perRow(b *testing.B, rows, bytes int) {
	b.ReportMetric(float64(bytes)/float64(rows), "B/value")
	b.ReportMetric(float64(b.N)*float64(rows)/b.Elapsed().Seconds()/1e6, "Mpoints/s")
}

func BenchmarkEncode(b *testing.B) {
	for _, s := range allSeries {
		b.Run(s.name, func(b *testing.B) {
			c := s.make(random(1), 3600)
			var e chunk.Encoder
			var data []byte
			var err error
			b.ReportAllocs()
			for b.Loop() {
				if data, err = e.Encode(data[:0], c); err != nil {
					b.Fatal(err)
				}
			}
			perRow(b, 3600, len(data))
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, s := range allSeries {
		b.Run(s.name, func(b *testing.B) {
			data, err := chunk.Encode(nil, s.make(random(1), 3600))
			if err != nil {
				b.Fatal(err)
			}
			var d chunk.Decoder
			var c chunk.Columns
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(data, &c); err != nil {
					b.Fatal(err)
				}
			}
			perRow(b, 3600, len(data))
		})
	}
}

// BenchmarkSlow measures what a device that sends once a minute costs: a chunk of
// an hour.
func BenchmarkSlow(b *testing.B) {
	for _, s := range allSeries {
		b.Run(s.name, func(b *testing.B) {
			c := s.make(random(1), 60)
			for i := range c.Times {
				c.Times[i] += int64(i) * 59 * second
			}
			var e chunk.Encoder
			var data []byte
			b.ReportAllocs()
			for b.Loop() {
				data, _ = e.Encode(data[:0], c)
			}
			perRow(b, 60, len(data))
		})
	}
}

// BenchmarkAppend measures readings into columns and back, the way of a roll.
func BenchmarkAppend(b *testing.B) {
	c := temperature(random(1), 3600)
	var to chunk.Columns
	b.ReportAllocs()
	for b.Loop() {
		to.Reset(holdfast.Number)
		for i := range c.Len() {
			if err := to.Append(c.Reading(i)); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N)*3600/b.Elapsed().Seconds()/1e6, "Mpoints/s")
}
