// Package journaltest is the contract of journal.Log as tests. Every driver runs
// it; what only one driver promises is tested beside that driver.
package journaltest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
)

// Open opens one log, the same each time. Only one is open at a time.
type Open func() (journal.Log, error)

// Run tests a driver. start makes a place for an empty log that takes records of
// at least 64 KiB and refuses those above 8 MiB.
func Run(t *testing.T, start func(t *testing.T) Open) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, open Open)
	}{
		{"empty", testEmpty},
		{"order and places", testOrder},
		{"reopen", testReopen},
		{"refused records", testRefused},
		{"trim", testTrim},
		{"64 submitters", testSubmitters},
		{"done in order", testDoneInOrder},
		{"read while appending and trimming", testReadWhileWriting},
		{"close under load", testCloseUnderLoad},
		{"after close", testAfterClose},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, start(t)) })
	}
}

func mustOpen(t *testing.T, open Open) journal.Log {
	t.Helper()
	l, err := open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustClose(t *testing.T, l journal.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// put appends a record and waits until it is durable.
func put(l journal.Log, record []byte) (journal.Pos, error) {
	type result struct {
		pos journal.Pos
		err error
	}
	c := make(chan result, 1)
	l.Append(record, func(pos journal.Pos, err error) { c <- result{pos, err} })
	r := <-c
	return r.pos, r.err
}

func mustPut(t *testing.T, l journal.Log, record []byte) journal.Pos {
	t.Helper()
	pos, err := put(l, record)
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

// putAll appends records and waits until all of them are durable.
func putAll(t *testing.T, l journal.Log, records [][]byte) []journal.Pos {
	t.Helper()
	at := make([]journal.Pos, len(records))
	var wg sync.WaitGroup
	wg.Add(len(records))
	for i, r := range records {
		l.Append(r, func(pos journal.Pos, err error) {
			defer wg.Done()
			at[i] = pos
			if err != nil {
				t.Errorf("append: %v", err)
			}
		})
	}
	wg.Wait()
	return at
}

// entries reads a log to its end; the data are copies.
func entries(t *testing.T, l journal.Log, from journal.Pos) []journal.Entry {
	t.Helper()
	var all []journal.Entry
	for e, err := range l.Read(from) {
		if err != nil {
			t.Fatal(err)
		}
		e.Data = bytes.Clone(e.Data)
		all = append(all, e)
	}
	return all
}

// records are n records of drawn sizes, all different.
func records(n int) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	all := make([][]byte, n)
	for i := range all {
		all[i] = fmt.Appendf(nil, "%08d", i)
		for range rng.IntN(100) {
			all[i] = append(all[i], byte(rng.Uint32()))
		}
		if rng.IntN(20) == 0 {
			all[i] = append(all[i], make([]byte, rng.IntN(64<<10-200))...)
		}
	}
	return all
}

// number reads back which of records it is.
func number(t *testing.T, data []byte) int {
	t.Helper()
	var i int
	if _, err := fmt.Sscanf(string(data[:min(8, len(data))]), "%08d", &i); err != nil {
		t.Fatalf("a record that nobody appended: %.20q", data)
	}
	return i
}

func testEmpty(t *testing.T, open Open) {
	l := mustOpen(t, open)
	if l.Start() != l.End() {
		t.Errorf("an empty log goes from %d to %d", l.Start(), l.End())
	}
	if all := entries(t, l, 0); len(all) != 0 {
		t.Errorf("an empty log holds %v", all)
	}
	if _, err := l.At(l.End()); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("at the end: %v", err)
	}
	if err := l.Trim(l.End()); err != nil {
		t.Errorf("trim nothing: %v", err)
	}
	mustClose(t, l)
}

func testOrder(t *testing.T, open Open) {
	l := mustOpen(t, open)
	given := records(200)
	at := putAll(t, l, given)
	all := entries(t, l, 0)
	if len(all) != len(given) {
		t.Fatalf("%d records of %d", len(all), len(given))
	}
	for i, e := range all {
		if e.Pos != at[i] || !bytes.Equal(e.Data, given[i]) {
			t.Fatalf("record %d at %d is not what was appended at %d", i, e.Pos, at[i])
		}
		if i > 0 && (e.Pos <= all[i-1].Pos || e.Pos < all[i-1].Next) {
			t.Fatalf("record %d at %d comes after one from %d to %d", i, e.Pos, all[i-1].Pos, all[i-1].Next)
		}
		if b, err := l.At(e.Pos); err != nil || !bytes.Equal(b, given[i]) {
			t.Fatalf("at %d: %v", e.Pos, err)
		}
	}
	if l.Start() > at[0] || l.End() < all[len(all)-1].Next {
		t.Errorf("from %d to %d", l.Start(), l.End())
	}
	// From each record, from just past each, and from the place after it.
	for i := 0; i < len(all); i += 17 {
		for from, want := range map[journal.Pos]int{all[i].Pos: i, all[i].Pos + 1: i + 1, all[i].Next: i + 1} {
			rest := entries(t, l, from)
			if len(rest) != len(all)-want {
				t.Fatalf("from %d: %d records, want %d", from, len(rest), len(all)-want)
			}
			if len(rest) > 0 && rest[0].Pos != all[want].Pos {
				t.Fatalf("from %d comes %d", from, rest[0].Pos)
			}
		}
		if _, err := l.At(all[i].Pos + 1); err == nil {
			t.Fatalf("a record at %d", all[i].Pos+1)
		}
	}
	for range l.Read(0) { // a reader may leave early
		break
	}
	mustClose(t, l)
}

func testReopen(t *testing.T, open Open) {
	given := records(60)
	var at []journal.Pos
	for i := 0; i < len(given); i += 20 {
		l := mustOpen(t, open)
		for j, e := range entries(t, l, 0) {
			if e.Pos != at[j] || !bytes.Equal(e.Data, given[j]) {
				t.Fatalf("record %d moved from %d to %d or changed", j, at[j], e.Pos)
			}
		}
		for _, r := range given[i : i+20] {
			end := l.End()
			pos := mustPut(t, l, r)
			if pos < end || l.End() <= pos {
				t.Fatalf("appended at %d while the end went from %d to %d", pos, end, l.End())
			}
			at = append(at, pos)
		}
		mustClose(t, l)
	}
	l := mustOpen(t, open)
	if n := len(entries(t, l, 0)); n != len(given) {
		t.Errorf("%d records of %d", n, len(given))
	}
	mustClose(t, l)
}

func testRefused(t *testing.T, open Open) {
	l := mustOpen(t, open)
	mustPut(t, l, []byte("before"))
	if _, err := put(l, make([]byte, 8<<20+1)); holdfast.KindOf(err) != holdfast.TooLarge {
		t.Errorf("a record of 8 MiB: %v", err)
	}
	if _, err := put(l, nil); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("an empty record: %v", err)
	}
	mustPut(t, l, []byte("after"))
	if n := len(entries(t, l, 0)); n != 2 {
		t.Errorf("%d records", n)
	}
	mustClose(t, l)
}

func testTrim(t *testing.T, open Open) {
	l := mustOpen(t, open)
	given := records(300)
	at := putAll(t, l, given)
	cut := 0
	for _, before := range []int{0, 100, 100, 50, 200} { // going back is nothing to do
		end := l.End()
		if err := l.Trim(at[before]); err != nil {
			t.Fatal(err)
		}
		cut = max(cut, before)
		if l.Start() > at[cut] || l.End() != end {
			t.Fatalf("trimmed before %d: from %d to %d", at[cut], l.Start(), l.End())
		}
		all := entries(t, l, at[cut])
		if len(all) != len(given)-cut || !bytes.Equal(all[0].Data, given[cut]) {
			t.Fatalf("trimmed before record %d: %d are left", cut, len(all))
		}
		if old := entries(t, l, 0); old[0].Pos < l.Start() {
			t.Fatalf("a record at %d, before the start %d", old[0].Pos, l.Start())
		}
	}
	start := l.Start()
	mustClose(t, l)
	l = mustOpen(t, open)
	if l.Start() != start {
		t.Errorf("start moved from %d to %d", start, l.Start())
	}
	if err := l.Trim(l.End() + 1<<30); err != nil { // no further than all
		t.Fatal(err)
	}
	if pos := mustPut(t, l, []byte("00000000")); pos <= at[len(at)-1] {
		t.Errorf("position %d was given before", pos)
	}
	mustClose(t, l)
}

func testSubmitters(t *testing.T, open Open) {
	l := mustOpen(t, open)
	given := records(64 * 20)
	var next atomic.Int64
	at := make([]journal.Pos, len(given))
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(given) {
					return
				}
				pos, err := put(l, given[i])
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				at[i] = pos
				if b, err := l.At(pos); err != nil || !bytes.Equal(b, given[i]) {
					t.Errorf("at %d, just acknowledged: %v", pos, err)
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, l)
	l = mustOpen(t, open)
	all := entries(t, l, 0)
	if len(all) != len(given) {
		t.Fatalf("%d records of %d", len(all), len(given))
	}
	for _, e := range all {
		if i := number(t, e.Data); at[i] != e.Pos || !bytes.Equal(e.Data, given[i]) {
			t.Fatalf("record %d was acknowledged at %d and is at %d, or changed", i, at[i], e.Pos)
		}
	}
	mustClose(t, l)
}

func testDoneInOrder(t *testing.T, open Open) {
	l := mustOpen(t, open)
	given := records(500)
	var order []int // written by one goroutine only, if the contract holds
	var wg sync.WaitGroup
	wg.Add(len(given))
	var last journal.Pos
	for i, r := range given {
		if i%50 == 7 {
			r = nil // refused, in its turn
		}
		l.Append(r, func(pos journal.Pos, err error) {
			defer wg.Done()
			order = append(order, i)
			switch {
			case r == nil && err == nil:
				t.Errorf("record %d was taken", i)
			case r != nil && err != nil:
				t.Errorf("record %d: %v", i, err)
			case r != nil && i > 0 && pos <= last:
				t.Errorf("record %d at %d, the one before at %d", i, pos, last)
			case r != nil:
				last = pos
			}
		})
	}
	wg.Wait()
	mustClose(t, l)
	for i, n := range order {
		if i != n {
			t.Fatalf("answer %d was for record %d", i, n)
		}
	}
}

func testReadWhileWriting(t *testing.T, open Open) {
	l := mustOpen(t, open)
	given := records(600)
	var wg sync.WaitGroup
	finished := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for working := true; working; {
				select {
				case <-finished:
					working = false
				default:
				}
				want := -1
				for e, err := range l.Read(0) {
					if err != nil {
						if holdfast.KindOf(err) != holdfast.NotFound {
							t.Errorf("read: %v", err)
						}
						break
					}
					i := number(t, e.Data)
					if want >= 0 && i != want || !bytes.Equal(e.Data, given[i]) {
						t.Errorf("record %d, want %d, or other bytes", i, want)
					}
					want = i + 1
				}
			}
		})
	}
	for i := 0; i < len(given); i += 10 {
		at := putAll(t, l, given[i:i+10])
		if i%50 == 40 {
			if err := l.Trim(at[9]); err != nil {
				t.Error(err)
			}
		}
	}
	close(finished)
	wg.Wait()
	mustClose(t, l)
}

func testCloseUnderLoad(t *testing.T, open Open) {
	l := mustOpen(t, open)
	given := records(4000)
	var next, refused atomic.Int64
	acked, answers := make([]atomic.Bool, len(given)), make([]atomic.Int64, len(given))
	var wg sync.WaitGroup
	under := make(chan struct{})
	var once sync.Once
	for range 16 {
		wg.Go(func() {
			for refused.Load() == 0 {
				i := int(next.Add(1)) - 1
				if i >= len(given) {
					break
				}
				l.Append(given[i], func(_ journal.Pos, err error) {
					answers[i].Add(1)
					acked[i].Store(err == nil)
					if err != nil {
						refused.Add(1)
						if holdfast.KindOf(err) != holdfast.Unavailable {
							t.Errorf("refused with %v", err)
						}
					}
				})
				if i > 300 {
					once.Do(func() { close(under) })
				}
			}
		})
	}
	<-under
	mustClose(t, l)
	wg.Wait()
	l = mustOpen(t, open)
	found := map[int]bool{}
	for _, e := range entries(t, l, 0) {
		found[number(t, e.Data)] = true
	}
	for i := range min(int(next.Load()), len(given)) {
		if answers[i].Load() != 1 {
			t.Fatalf("record %d was answered %d times", i, answers[i].Load())
		}
		if acked[i].Load() != found[i] {
			t.Fatalf("record %d: acknowledged %v, there %v", i, acked[i].Load(), found[i])
		}
	}
	mustClose(t, l)
}

func testAfterClose(t *testing.T, open Open) {
	l := mustOpen(t, open)
	mustPut(t, l, []byte("a"))
	mustClose(t, l)
	if _, err := put(l, []byte("b")); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("append after close: %v", err)
	}
	select {
	case <-l.Failed():
		t.Error("closing is no failure")
	default:
	}
}
