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
	for _, format := range []string{"ndjson", "columns", "csv", "senml"} {
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

// BenchmarkSmall is what a question costs whose answer is small: who asks, what
// about, may he, the record of it.
func BenchmarkSmall(b *testing.B) {
	h := build(b, Limits{PerSecond: 1e9, Burst: 1e9})
	begin := time.Now().Add(-50 * time.Minute)
	var all []holdfast.Sample
	for i := range 3000 {
		all = append(all, querytest.At("level", begin.Add(time.Duration(i)*time.Second), holdfast.NumberValue(float64(i%977)/8)))
	}
	h.Send(h.pump, all...)
	h.Roll()
	for name, path := range map[string]string{
		"by label": "/v1/readings?device=pump-1&stream=level&every=1m&format=ndjson",
		"by id":    "/v1/readings?device=" + h.pump.ID.String() + "&stream=level&every=1m&format=ndjson",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := newRequest("GET", path, "")
				r.Header.Set("Authorization", "Bearer "+h.admin)
				w := &discard{header: http.Header{}}
				h.ServeHTTP(w, r)
				if w.bytes == 0 {
					b.Fatal("no answer")
				}
			}
		})
	}
}
