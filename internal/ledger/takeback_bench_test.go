package ledger

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"slices"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// An hour of a hub in which much is taken back: signed as it comes, second by second,
// and read by a restore. bytes/op is what a copy keeps for each.
func BenchmarkTakeBacks(b *testing.B) {
	box := make([]byte, 180) // a grant's sealed column
	rand.Read(box)
	for _, each := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("push/%d", each), func(b *testing.B) {
			l := open(b).Ledger
			all := slices.Repeat([]TakeBack{{Kind: GrantEnded, ID: holdfast.NewID[TakenID](), Box: box}}, each)
			written := 0
			b.ReportAllocs()
			for b.Loop() {
				if err := l.db.Write(b.Context(), func(tx *sql.Tx) error { return AddTakeBacks(b.Context(), tx, all...) }); err != nil {
					b.Fatal(err)
				}
				if err := l.SignTakeBacks(b.Context(), 1); err != nil {
					b.Fatal(err)
				}
				if err := l.db.Read(b.Context(), func(tx *sql.Tx) error {
					last, err := newestBatch(b.Context(), tx)
					written += len(last.text())
					return err
				}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(written)/float64(b.N), "copied-B/op")
		})
	}
	b.Run("read", func(b *testing.B) {
		l := open(b).Ledger
		const n = 100 * batchSize
		for range 100 {
			all := slices.Repeat([]TakeBack{{Kind: GrantEnded, ID: holdfast.NewID[TakenID](), Box: box}}, batchSize)
			if err := l.db.Write(b.Context(), func(tx *sql.Tx) error { return AddTakeBacks(b.Context(), tx, all...) }); err != nil {
				b.Fatal(err)
			}
		}
		copied, size := files(b, l, 1), 0
		for _, f := range copied {
			size += len(f)
		}
		forget(b, l, 1)
		b.ReportAllocs()
		for b.Loop() {
			if t, err := l.ReadTakeBacks(b.Context(), copied, 1); err != nil || len(t.Fresh) != n-1 {
				b.Fatalf("%d fresh, %v", len(t.Fresh), err)
			}
		}
		b.ReportMetric(float64(size)/n, "copy-B/take-back")
	})
}
