package ledger

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// Take-backs are signed as they come, some at a time, and read by a restore.
// copied-B/op is what each push writes to a copy, copy-B what a copy keeps of each.
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
		var before, after runtime.MemStats
		b.ReportAllocs()
		for b.Loop() {
			runtime.GC()
			runtime.ReadMemStats(&before)
			t, err := l.ReadTakeBacks(b.Context(), copied, 1)
			if err != nil || len(t.Fresh) != n-1 {
				b.Fatalf("%d fresh, %v", len(t.Fresh), err)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			runtime.KeepAlive(t)
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "held-B/take-back")
		b.ReportMetric(float64(size)/n, "copy-B/take-back")
	})
}
