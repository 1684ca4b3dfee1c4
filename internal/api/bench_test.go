package api

import (
	"net/http"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// discard is a writer that keeps nothing.
type discard struct {
	header http.Header
	bytes  int64
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { d.bytes += int64(len(p)); return len(p), nil }

func BenchmarkReadings(b *testing.B) {
	h := build(b, Limits{PerSecond: 1e9, Burst: 1e9})
	const rows = 100_000
	begin := time.Now().Add(-50 * time.Minute)
	for i := 0; i < rows; i += 5000 {
		var all []holdfast.Sample
		for j := range 5000 {
			all = append(all, querytest.At("level", begin.Add(time.Duration(i+j)*25*time.Millisecond), holdfast.NumberValue(float64((i+j)%977)/8)))
		}
		h.Send(h.pump, all...)
	}
	h.Roll()
	for _, format := range []string{"ndjson", "csv", "senml"} {
		b.Run(format, func(b *testing.B) {
			b.ReportAllocs()
			var sent int64
			for b.Loop() {
				r := newRequest("GET", "/v1/readings?device=pump-1&stream=level&format="+format, "")
				r.Header.Set("Authorization", "Bearer "+h.admin)
				w := &discard{header: http.Header{}}
				h.ServeHTTP(w, r)
				sent += w.bytes
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			b.SetBytes(sent / int64(b.N))
		})
	}
}
