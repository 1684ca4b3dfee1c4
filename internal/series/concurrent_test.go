package series

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// A counted stream holds the numbers from 0, each at its own time, ten to a record
// and backwards in it. They are stamped, so that none is dropped as a repeat: a scan
// that lost or doubled one shows.
const perRecord = 10

func (r *rig) sendCounted(a holdfast.AssignmentID, record int) error {
	content := &Content{}
	for i := range perRecord {
		n := int64(record+1)*perRecord - 1 - int64(i)
		x := number(n*1e9, float64(n))
		x.Mark = holdfast.Stamped
		content.Rows = append(content.Rows, Row{testStream(1), x})
	}
	return r.try(Header{Assignment: a, Bucket: seal.BucketOf(testArrival, false), Arrival: testArrival}, content)
}

// counted checks rows of a counted stream of which at least acked records were
// sent.
func counted(rows iter.Seq2[holdfast.Reading, error], acked int) error {
	n := 0
	for x, err := range rows {
		if err != nil {
			return err
		}
		if x.Time != int64(n)*1e9 || x.Value.Number() != float64(n) {
			return holdfast.Errorf(holdfast.Internal, "row %d is %v at %d", n, x.Value.Number(), x.Time)
		}
		n++
	}
	if n < acked*perRecord || n%perRecord != 0 {
		return holdfast.Errorf(holdfast.Internal, "%d rows, %d records were acknowledged", n, acked)
	}
	return nil
}

func TestScansWhileAllElseRuns(t *testing.T) {
	r := newSizedRig(t, Options{}, 16<<10)
	r.sliceBytes, r.segmentSize = 500*readingSize, 16<<10
	const records = 150
	owners := []holdfast.AssignmentID{alice, bob}
	acked := make([]atomic.Int64, len(owners))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers, rest sync.WaitGroup
	fail := func(err error) {
		if err != nil && ctx.Err() == nil {
			t.Error(err)
			stop()
		}
	}
	for i, a := range owners {
		writers.Go(func() {
			for n := range records {
				if err := r.sendCounted(a, n); err != nil || ctx.Err() != nil {
					fail(err)
					return
				}
				acked[i].Add(1)
			}
		})
		rest.Go(func() {
			for ctx.Err() == nil {
				before := int(acked[i].Load())
				fail(counted(r.Scan(ctx, a, testStream(1), holdfast.Always), before))
			}
		})
	}
	rest.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			fail(r.Roll(ctx))
			if n%5 == 4 {
				fail(r.Merge(ctx))
			}
		}
	})
	writers.Wait()
	stop()
	rest.Wait()
	for _, a := range owners {
		if err := counted(r.Scan(t.Context(), a, testStream(1), holdfast.Always), records); err != nil {
			t.Error(err)
		}
	}
	r.roll()
	r.merge()
	r.tidy("the end")
	for _, a := range owners {
		if err := counted(r.Scan(t.Context(), a, testStream(1), holdfast.Always), records); err != nil {
			t.Error(err)
		}
	}
	if r.log.Start() == 0 {
		t.Error("the journal was never trimmed")
	}
}

func TestASlowScanKeepsWhatItReads(t *testing.T) {
	r := newRig(t, Options{})
	for n := range 40 {
		r.must(r.sendCounted(alice, n))
		if n%4 == 3 && n < 36 {
			r.roll()
		}
	}
	next, stop := iter.Pull2(r.Scan(t.Context(), alice, testStream(1), holdfast.Always))
	defer stop()
	first, err, _ := next()
	r.must(err)
	r.crashAt("merged", 1) // a merge that fails and is done all the same
	if err := r.Merge(t.Context()); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	for n := range 20 {
		r.must(r.sendCounted(alice, 40+n))
		r.roll()
		r.merge()
	}
	if n := r.count(`SELECT count(*) FROM segment WHERE live = 0`); n == 0 {
		t.Error("nothing waits for the scan")
	}
	if r.count(`SELECT count(*) FROM chunk`) > 2 {
		t.Error("nothing was merged beside the scan")
	}
	rest := func(yield func(holdfast.Reading, error) bool) {
		if !yield(first, nil) {
			return
		}
		for {
			x, err, ok := next()
			if !ok || !yield(x, err) {
				return
			}
		}
	}
	if err := counted(rest, 40); err != nil {
		t.Error(err)
	}
	stop()
	r.merge()
	r.tidy("the scan ended")
}

func TestErase(t *testing.T) {
	rng := newRNG(t)
	r := newRig(t, Options{})
	for range 3 {
		r.sendMixed(rng, 60)
		r.roll()
	}
	r.sendMixed(rng, 20)
	before := r.count(`SELECT count(*) FROM chunk WHERE assignment = x'62000000000000000000000000000000'`)
	next, stop := iter.Pull2(r.Scan(t.Context(), bob, testStream(1), holdfast.Always))
	defer stop()
	_, err, _ := next()
	r.must(err)

	r.keys.destroy(bob)
	done, err := r.Erase(t.Context(), holdfast.Scope{Assignments: []holdfast.AssignmentID{bob}, Span: holdfast.Always, Whole: true})
	r.must(err)
	if done.Chunks != before || done.Bytes == 0 {
		t.Errorf("%+v, there were %d chunks", done, before)
	}
	for o := range r.sent {
		if o.a == bob {
			r.sent[o] = nil
		}
	}
	r.check("erased")
	r.tidy("erased")
	for {
		_, err, ok := next()
		if !ok {
			t.Error("a scan read on to the end")
			break
		}
		if err != nil {
			if holdfast.KindOf(err) != holdfast.Unavailable {
				t.Errorf("a scan that was overtaken: %v", err)
			}
			break
		}
	}
	for range 2 {
		again, err := r.Erase(t.Context(), holdfast.Scope{Assignments: []holdfast.AssignmentID{bob}, Span: holdfast.Always, Whole: true})
		if r.must(err); again.Chunks != 0 {
			t.Errorf("erased again: %+v", again)
		}
	}
	r.roll()
	r.check("rolled")
	r.restart()
	r.check("restarted")
}

func TestEraseAStreamThatGoesOn(t *testing.T) {
	r := newRig(t, Options{})
	o, other := of{alice, testStream(1)}, of{alice, testStream(2)}
	r.send(o.a, o.s, testArrival, number(1, 1))
	r.send(other.a, other.s, testArrival, number(1, 1))
	r.roll()
	cells, err := r.Cells(t.Context(), alice, []holdfast.StreamID{o.s}, holdfast.Span{From: 1, To: 1})
	r.must(err)
	if len(cells) != 1 || cells[0] != (Cell{alice, o.s, 202611}) {
		t.Fatalf("cells: %v", cells)
	}
	if none, err := r.Cells(t.Context(), alice, nil, holdfast.Span{From: 2, To: 9}); err != nil || len(none) != 0 {
		t.Errorf("cells of a span without readings: %v, %v", none, err)
	}
	scope := holdfast.Scope{Assignments: []holdfast.AssignmentID{alice}, Streams: []holdfast.StreamID{o.s}, Span: holdfast.Always, Before: testArrival + 1}
	r.keys.replace(cells[0], nil)
	r.sent[o] = nil
	r.check("key destroyed, chunks left")
	// A reading comes before the purge: under a new key, and it stays.
	r.send(o.a, o.s, testArrival+2, number(5, 5))
	r.roll()
	if _, err := collect(r.Scan(t.Context(), o.a, o.s, holdfast.Always)); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("scan of chunks under two keys: %v", err)
	}
	r.merge() // leaves such a cell alone
	_, err = r.Erase(t.Context(), scope)
	r.must(err)
	r.check("erased")
	r.tidy("erased")
	// Asked once more, it takes nothing that came later; a later one does.
	_, err = r.Erase(t.Context(), scope)
	r.must(err)
	r.check("erased again")
	scope.Before = testArrival + 3
	_, err = r.Erase(t.Context(), scope)
	r.must(err)
	r.sent[o] = nil
	r.check("erased later")
}

func TestRewriteIsDecidedByTheKeys(t *testing.T) {
	for _, destroyed := range []bool{true, false} {
		for _, crash := range []bool{true, false} {
			r := newRig(t, Options{})
			o := of{alice, testStream(1)}
			cell := Cell{alice, o.s, 202611}
			for n := range 30 {
				r.send(o.a, o.s, testArrival, number(int64(n), float64(n)))
				if n%10 == 0 {
					r.roll()
				}
			}
			rw, err := r.Begin(t.Context())
			r.must(err)
			r.must(rw.Roll(t.Context()))
			keep := func(x holdfast.Reading) bool { return x.Time%2 == 0 }
			to := seal.NewCipher(seal.NewKey())
			kept, err := rw.Reseal(t.Context(), cell, keep, to)
			if r.must(err); kept != 15 {
				t.Errorf("kept %d", kept)
			}
			if err := rw.Roll(t.Context()); holdfast.KindOf(err) != holdfast.Conflict {
				t.Errorf("rolled after resealing: %v", err)
			}
			held, cancel := context.WithCancel(t.Context())
			cancel()
			if err := r.Roll(held); !errors.Is(err, context.Canceled) {
				t.Errorf("another roll came in: %v", err)
			}
			r.check("before the keys")
			if destroyed {
				r.keys.replace(cell, to)
				r.forget(o, keep)
			}
			r.check("after the keys")
			if crash {
				r.restart()
			} else {
				r.must(rw.End(t.Context()))
				r.must(rw.End(t.Context()))
			}
			r.check("ended")
			r.tidy("ended")
			r.send(o.a, o.s, testArrival, number(100, 100))
			r.roll()
			r.merge()
			r.check("merged")
			r.tidy("merged")
			var keys []seal.KeyID
			rows, err := r.cellRows(t.Context(), cell)
			r.must(err)
			for _, row := range rows {
				keys = append(keys, row.key)
			}
			if slices.Contains(keys, to.ID()) != destroyed {
				t.Error("chunks under the wrong key")
			}
			r.close()
		}
	}
}

func TestDroppedCellsGoWithTheirKeys(t *testing.T) {
	r := newRig(t, Options{})
	dies, stays := of{alice, testStream(1)}, of{alice, testStream(2)}
	for _, o := range []of{dies, stays} {
		r.send(o.a, o.s, testArrival, number(1, 1))
	}
	rw, err := r.Begin(t.Context())
	r.must(err)
	r.must(rw.Roll(t.Context()))
	for _, o := range []of{dies, stays} {
		rw.Drop(Cell{o.a, o.s, 202611})
	}
	r.keys.replace(Cell{dies.a, dies.s, 202611}, nil)
	r.sent[dies] = nil
	r.must(rw.End(t.Context()))
	r.check("ended")
	r.tidy("ended")
	if n := r.count(`SELECT count(*) FROM chunk`); n != 1 {
		t.Errorf("%d chunks", n)
	}
}

// TestScanBetweenCommitAndTrim looks when catalog and tail both have the rows.
func TestScanBetweenCommitAndTrim(t *testing.T) {
	r := newRig(t, Options{})
	r.sliceBytes = 100 * readingSize
	for n := range 30 {
		r.must(r.sendCounted(alice, n))
	}
	looks := 0
	r.fault = func(step string) error {
		looks++
		return counted(r.Scan(t.Context(), alice, testStream(1), holdfast.Always), 30)
	}
	r.roll()
	r.merge()
	if looks < 9 {
		t.Errorf("looked %d times", looks)
	}
}

// TestObserveAfterRoll has the roll overtake the callback.
func TestObserveAfterRoll(t *testing.T) {
	r := newRig(t, Options{})
	r.send(alice, testStream(1), testArrival, number(1, 1))
	pos := r.tail.of[alice].blocks[0].first
	r.roll()
	r.Observe(Header{Assignment: alice}, nil, pos, pos+1)
	if n := r.tail.size(); n != 0 {
		t.Errorf("%d bytes in the tail", n)
	}
	r.check("rolled")
}

func TestRunRollsWhenTheTailIsLong(t *testing.T) {
	r := newSizedRig(t, Options{Bytes: 1000, MergeAfter: 1}, 16<<10)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	for n := range 300 {
		r.must(r.sendCounted(alice, n))
	}
	for r.log.Start() == 0 { // until a roll has trimmed
		r.must(r.sendCounted(bob, 0))
	}
	stop()
	r.must(<-done)
	r.must(counted(r.Scan(t.Context(), alice, testStream(1), holdfast.Always), 300))
}
