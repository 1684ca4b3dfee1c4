package server

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
)

// BenchmarkIngest is the way in without its edges: whose it is, may it come in,
// seal, journal, durable. n readings share a record; 64 batches are under way.
func BenchmarkIngest(b *testing.B) {
	for _, n := range []int{1, 20} {
		b.Run(fmt.Sprintf("%d readings", n), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "data")
			if _, err := Init(b.Context(), dir, InitOptions{Hosts: []string{"localhost"}, RootKey: filepath.Join(b.TempDir(), "root.key")}); err != nil {
				b.Fatal(err)
			}
			s, err := Open(b.Context(), Config{Data: dir})
			if err != nil {
				b.Fatal(err)
			}
			defer s.stores.close()
			d, err := s.custody.AddDevice(b.Context(), holdfast.NewID[holdfast.CredentialID](), custody.DeviceSpec{Label: "pump"})
			if err != nil {
				b.Fatal(err)
			}
			peer := identity.Peer{Device: d.Device.ID, Assignment: d.Device.Assignment}
			samples := make([]holdfast.Sample, n)
			slots := make(chan struct{}, 64)
			failed := make(chan error, 1)
			at := time.Now()
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				for k := range samples {
					samples[k] = number("temperature", at.Add(time.Duration(i*n+k)*time.Millisecond), float64(i%500)/10)
				}
				slots <- struct{}{}
				batch := s.ingest.Batch(b.Context(), peer, "")
				if err := batch.Add("", samples, ingest.Delivery{}); err != nil {
					b.Fatal(err)
				}
				batch.Commit(func(err error) {
					if err != nil {
						select {
						case failed <- err:
						default:
						}
					}
					<-slots
				})
			}
			for range cap(slots) {
				slots <- struct{}{}
			}
			select {
			case err := <-failed:
				b.Fatal(err)
			default:
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "readings/s")
		})
	}
}
