package server

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// A restore carries 100,000 take-backs out again, of what the older catalog does not
// know. An op is all of them.
func BenchmarkReplay(b *testing.B) {
	h := newHouse(b)
	box := make([]byte, 180)
	rand.Read(box)
	all := make([]ledger.TakeBack, 100_000)
	for i := range all {
		all[i] = ledger.TakeBack{Number: uint64(i + 1), Kind: ledger.GrantEnded, At: time.Now(), ID: holdfast.NewID[ledger.TakenID](), Box: box}
		if i%2 == 0 {
			all[i].Kind = ledger.CredentialRevoked
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.replay(b.Context(), all); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(all)), "us/take-back")
}
