package journal

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkAppend is many submitters that each wait for their record to be
// durable before they hand over the next.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ size, submitters int }{{128, 1}, {128, 64}, {16 << 10, 1}, {16 << 10, 64}, {64 << 10, 1}, {64 << 10, 64}} {
		b.Run(fmt.Sprintf("size=%d/submitters=%d", c.size, c.submitters), func(b *testing.B) {
			f, err := OpenFile(b.TempDir()+"/journal", Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range c.submitters {
				wg.Go(func() {
					data := make([]byte, c.size)
					result := make(chan error, 1)
					done := func(_ Pos, err error) { result <- err }
					for left.Add(-1) >= 0 {
						f.Append(data, done)
						if err := <-result; err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			s := f.Stats()
			b.ReportMetric(float64(s.Records)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(s.Records)/float64(s.Syncs), "records/sync")
			if err := f.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkRecover opens a folder of 256 MiB: what a restart waits for before the
// replay begins.
func BenchmarkRecover(b *testing.B) {
	for _, size := range []int{256, 16 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			dir, total := filled(b, size, 256<<20)
			b.SetBytes(total)
			for b.Loop() {
				f, err := OpenFile(dir, Options{})
				if err != nil {
					b.Fatal(err)
				}
				if err := f.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRead reads all of it: the journal's share of a replay.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{256, 16 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			dir, total := filled(b, size, 256<<20)
			f, err := OpenFile(dir, Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			b.SetBytes(total)
			for b.Loop() {
				for _, err := range f.Read(0) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkAt reads records here and there: the tail of a query.
func BenchmarkAt(b *testing.B) {
	dir, _ := filled(b, 512, 8<<20)
	f, err := OpenFile(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	step, end := Pos(recordSize(512)), f.End()
	b.ReportAllocs()
	for pos := Pos(0); b.Loop(); pos = (pos + 101*step) % (end - step) / step * step {
		if _, err := f.At(pos); err != nil {
			b.Fatal(err)
		}
	}
}

// filled makes a journal of records of one size, bytes in all.
func filled(b *testing.B, size int, bytes int64) (dir string, total int64) {
	dir = b.TempDir() + "/journal"
	f, err := OpenFile(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 31)
	}
	for ; total < bytes; total += int64(size) {
		f.Append(data, func(_ Pos, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	return dir, total
}
