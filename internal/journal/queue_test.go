package journal

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/holdfast-iot/holdfast"
)

// gatedDisk is a memDisk whose file syncs wait for a token each.
type gatedDisk struct {
	*memDisk
	gate chan struct{}
}

type gatedFile struct {
	DiskFile
	gate chan struct{}
}

func (d gatedDisk) Create(name string, size int64) (DiskFile, error) {
	f, err := d.memDisk.Create(name, size)
	return gatedFile{f, d.gate}, err
}

func (f gatedFile) Sync() error {
	<-f.gate
	return f.DiskFile.Sync()
}

// TestAppendBlocksWhileTheQueueIsFull: the waiters come in as room appears, and
// those that wait at Close are refused.
func TestAppendBlocksWhileTheQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, err := Options{SegmentSize: 64 << 10, QueueBytes: 3000, Linger: -1}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{}, 100)
		gate <- struct{}{} // for the new segment's header
		f, err := open(gatedDisk{newMemDisk(1), gate}, o)
		if err != nil {
			t.Fatal(err)
		}
		var in, acked, refused atomic.Int64
		for range 10 {
			go func() {
				f.Append([]byte(long("x")), func(_ Pos, err error) {
					switch {
					case err == nil:
						acked.Add(1)
					case holdfast.KindOf(err) == holdfast.Unavailable:
						refused.Add(1)
					}
				})
				in.Add(1)
			}()
		}
		synctest.Wait()
		if in.Load() != 2 || acked.Load() != 0 {
			t.Errorf("%d are in a queue of 3000 bytes, %d acknowledged", in.Load(), acked.Load())
		}
		if s := f.Stats(); s.QueuedBytes != 3000 {
			t.Errorf("%+v", s)
		}
		gate <- struct{}{}
		synctest.Wait()
		was := acked.Load()
		if was < 1 || in.Load() <= 2 || in.Load() > was+2 {
			t.Errorf("after a sync %d acknowledged, %d in", was, in.Load())
		}
		go f.Close()
		synctest.Wait()
		if refused.Load() != 0 {
			t.Error("refused before what was handed over is answered")
		}
		close(gate)
		synctest.Wait()
		if acked.Load()+refused.Load() != 10 || refused.Load() != 10-was-2 {
			t.Errorf("%d acknowledged, %d refused", acked.Load(), refused.Load())
		}
	})
}

// TestLinger: a lone record waits for company no longer than it was told; when
// more than 64 wait, or enough bytes, or the journal closes, not at all.
func TestLinger(t *testing.T) {
	for _, c := range []struct {
		name    string
		fill    func(q *queue)
		linger  time.Duration
		waited  time.Duration
		records int
	}{
		{"alone", func(q *queue) { push(q, 1, 10) }, time.Second, time.Second, 1},
		{"not asked to", func(q *queue) { push(q, 1, 10) }, -1, 0, 1},
		{"64 are not deep", func(q *queue) { push(q, 64, 10) }, time.Second, time.Second, 64},
		{"65 are", func(q *queue) { push(q, 65, 10) }, time.Second, 0, 65},
		{"many bytes", func(q *queue) { push(q, 2, groupLimit/2) }, time.Second, 0, 2},
		{"company comes", func(q *queue) {
			push(q, 1, 10)
			go func() { time.Sleep(time.Second / 4); push(q, 64, 10) }()
		}, time.Second, time.Second / 4, 65},
		{"little comes", func(q *queue) {
			push(q, 1, 10)
			go func() { time.Sleep(time.Second / 4); push(q, 1, 10) }()
		}, time.Second, time.Second, 2},
		{"closed", func(q *queue) {
			push(q, 1, 10)
			go func() { time.Sleep(time.Second / 4); q.close() }()
		}, time.Second, time.Second / 4, 1},
		{"cut", func(q *queue) {
			push(q, 1, 10)
			go func() { time.Sleep(time.Second / 4); q.push(pending{cut: true}) }()
		}, time.Second, time.Second / 4, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(16 << 20)
				began := time.Now()
				c.fill(q)
				items, _ := q.take(c.linger)
				if waited := time.Since(began); waited != c.waited || len(items) != c.records {
					t.Errorf("%d records after %v, want %d after %v", len(items), waited, c.records, c.waited)
				}
			})
		})
	}
}

func push(q *queue, records, size int) {
	for range records {
		q.push(pending{data: make([]byte, size)})
	}
}

func TestLingerFollowsTheDisk(t *testing.T) {
	f := &File{opts: Options{Linger: 2 * time.Millisecond}}
	var got []time.Duration
	for _, f.syncTime = range []time.Duration{0, 300 * time.Microsecond, 1500 * time.Microsecond, time.Second} {
		got = append(got, f.linger())
	}
	if diff := cmp.Diff([]time.Duration{0, 0, 1500 * time.Microsecond, 2 * time.Millisecond}, got); diff != "" {
		t.Error(diff)
	}
}

// TestRecordsShareSyncs: what waits while a sync runs goes out with the next one.
func TestRecordsShareSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, err := Options{Linger: -1}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{}, 10)
		gate <- struct{}{}
		f, err := open(gatedDisk{newMemDisk(1), gate}, o)
		if err != nil {
			t.Fatal(err)
		}
		var acked atomic.Int64
		add := func(n int) {
			for range n {
				f.Append([]byte(strings.Repeat("x", 100)), func(_ Pos, err error) {
					if err == nil {
						acked.Add(1)
					}
				})
			}
			synctest.Wait()
		}
		add(1)
		add(999)
		if acked.Load() != 0 {
			t.Error("acknowledged before the sync")
		}
		gate <- struct{}{}
		gate <- struct{}{}
		synctest.Wait()
		if s := f.Stats(); s.Syncs != 2 || s.Records != 1000 || acked.Load() != 1000 {
			t.Errorf("%+v, %d acknowledged", s, acked.Load())
		}
		close(gate)
		mustClose(t, f)
	})
}

// TestKilledProcess is the plain case on real files: nothing but the process goes.
func TestKilledProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	f := mustOpen(t, dir, small)
	put(t, f, long("a"), long("b"), "c")
	g := mustOpen(t, dir, small) // the first was never closed
	if diff := cmp.Diff([]string{long("a"), long("b"), "c"}, get(t, g, 0)); diff != "" {
		t.Error(diff)
	}
}
