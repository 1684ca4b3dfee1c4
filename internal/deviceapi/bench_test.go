package deviceapi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/custody"
)

// BenchmarkPost sends packs of n readings over 8 kept connections of 8 devices, as
// many devices do: TLS, sealing and the sync of the disk included.
func BenchmarkPost(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n, " readings"), func(b *testing.B) {
			h := build(b, Options{PerSecond: -1})
			things := make(chan *thing, 8)
			for i := range cap(things) {
				things <- h.enrolled(custody.DeviceSpec{Label: fmt.Sprint("device ", i)})
			}
			b.SetParallelism(4) // of GOMAXPROCS
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				x := <-things
				defer func() { things <- x }()
				for at := 1_772_366_400; pb.Next(); at += n {
					var body strings.Builder
					for i := range n {
						fmt.Fprintf(&body, `%c{"n":"temperature","v":21.5,"t":%d}`, "[,"[min(i, 1)], at+i)
					}
					body.WriteByte(']')
					if r := x.post("/v1/data", "", strings.NewReader(body.String())); r.status != 204 {
						b.Errorf("%d %s", r.status, r.text)
					}
				}
			})
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "readings/s")
		})
	}
}
