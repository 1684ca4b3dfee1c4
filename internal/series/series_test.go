package series

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

var (
	alice = holdfast.AssignmentID{0: 'a'}
	bob   = holdfast.AssignmentID{0: 'b'}
)

// send mixes what devices do: late, repeated, out of order, of the future, before
// 1970, without a time, and every value there is.
func (r *rig) sendMixed(rng *rand.Rand, records int) {
	r.t.Helper()
	values := everyValue()
	for i := range records {
		arrival := int64(testArrival) + int64(r.counter)*1e9 + r.month
		a := []holdfast.AssignmentID{alice, bob}[rng.IntN(2)]
		n := byte(rng.IntN(3))
		o := of{a, testStream(n)}
		switch rng.IntN(8) {
		case 0: // in order
			var rows []holdfast.Reading
			for j := range 1 + rng.IntN(40) {
				rows = append(rows, number(arrival-60e9+int64(j)*1e9, float64(rng.IntN(10))/10))
			}
			r.send(o.a, o.s, arrival, rows...)
		case 1: // a repeat of something
			if sent := r.sent[o]; len(sent) > 0 {
				r.send(o.a, o.s, arrival, sent[rng.IntN(len(sent))], sent[rng.IntN(len(sent))])
			}
		case 2: // another value at the same time
			if sent := r.sent[o]; len(sent) > 0 {
				r.send(o.a, o.s, arrival, number(sent[rng.IntN(len(sent))].Time, rng.Float64()))
			}
		case 3: // far away
			at := everyTime[rng.IntN(len(everyTime))]
			r.send(o.a, o.s, arrival, number(at, 1), number(at, 2), number(at, 1))
		case 4: // stamped: never a repeat
			stamped := holdfast.Reading{Time: arrival, Mark: holdfast.Stamped, Value: holdfast.NumberValue(1)}
			r.send(o.a, o.s, arrival, stamped, stamped)
		case 5: // every type, each in a stream of its own
			v := values[rng.IntN(len(values))]
			x := holdfast.Reading{Time: arrival - rng.Int64N(1e12), Seq: uint64(i % 3), Value: v, Mark: holdfast.TLS12}
			r.send(a, testStream(byte(10+v.Type())), arrival, x)
		case 6: // sequence numbers tell equal values apart
			x := number(arrival/1e10*1e10, 1)
			x.Seq = uint64(rng.IntN(3))
			r.send(o.a, o.s, arrival, x)
		case 7: // arrival never runs back, and comes to the next month
			if r.counter++; rng.IntN(10) == 0 {
				r.month += 31 * 86400e9
			}
			r.send(o.a, o.s, int64(testArrival)+int64(r.counter)*1e9+r.month, number(arrival, 0.25))
		}
	}
}

func newRNG(t testing.TB) *rand.Rand {
	seed := testseed.Of(t)
	return rand.New(rand.NewPCG(seed, 0))
}

func TestScanGivesWhatWasSent(t *testing.T) {
	rng := newRNG(t)
	r := newRig(t, Options{})
	for round := range 6 {
		r.sendMixed(rng, 60)
		r.check(fmt.Sprintf("round %d, tail", round))
		r.roll()
		r.check("rolled")
		r.sendMixed(rng, 10)
		r.check("rolled and tail")
		if round%2 == 1 {
			r.merge()
			r.check("merged")
			r.tidy("merged")
		}
		if round%3 == 2 {
			r.restart()
			r.check("restarted")
		}
	}
	r.roll()
	r.merge()
	chunks := r.count(`SELECT count(*) FROM chunk`)
	r.merge()
	if n := r.count(`SELECT count(*) FROM chunk`); n != chunks {
		t.Errorf("a second merge made %d chunks of %d", n, chunks)
	}
	if cells := r.count(`SELECT count(*) FROM (SELECT DISTINCT assignment, stream, bucket FROM chunk)`); cells != chunks {
		t.Errorf("%d chunks in %d cells after the merge", chunks, cells)
	}
	if r.log.Start() == 0 {
		t.Error("the journal was not trimmed")
	}
	r.tidy("the end")
}

func TestScanOfASpan(t *testing.T) {
	rng := newRNG(t)
	r := newRig(t, Options{})
	r.sendMixed(rng, 100)
	r.roll()
	r.sendMixed(rng, 100)
	r.roll()
	r.sendMixed(rng, 20)
	times := append([]int64{math.MinInt64, math.MaxInt64}, everyTime...)
	for o, rows := range r.sent {
		for range 30 {
			span := holdfast.Span{From: times[rng.IntN(len(times))], To: times[rng.IntN(len(times))]}
			if rng.IntN(2) == 0 {
				span.From, span.To = rows[rng.IntN(len(rows))].Time, rows[rng.IntN(len(rows))].Time
			}
			if d := differ(r.scan(o, span), r.want(o, span)); d != "" {
				t.Fatalf("%v: %s", span, d)
			}
		}
		want := r.want(o, holdfast.Always)
		x, err := r.Extent(t.Context(), o.a, o.s, 0)
		r.must(err)
		if x.First != want[0].Time || x.Last != want[len(want)-1].Time || x.Rows < uint64(len(want)) {
			t.Errorf("extent %+v of %d rows", x, len(want))
		}
		last, ok, err := r.Latest(t.Context(), o.a, o.s)
		if err != nil || !ok || last != want[len(want)-1] {
			t.Errorf("latest: %+v, %v, %v, want %+v", last, ok, err, want[len(want)-1])
		}
	}
	if _, ok, err := r.Latest(t.Context(), alice, testStream(99)); ok || err != nil {
		t.Errorf("latest of nothing: %v, %v", ok, err)
	}
	if rows := r.scan(of{alice, testStream(99)}, holdfast.Always); len(rows) > 0 {
		t.Errorf("%d rows of a stream that isn't", len(rows))
	}
	ctx, cancel := context.WithCancel(t.Context()) // or be told to
	defer cancel()
	var ended error
	for _, ended = range r.Scan(ctx, alice, testStream(0), holdfast.Always) {
		cancel()
	}
	if !errors.Is(ended, context.Canceled) {
		t.Errorf("a cancelled scan ended with %v", ended)
	}
	stop := 0 // a reader may leave
	for range r.Scan(t.Context(), alice, testStream(0), holdfast.Always) {
		if stop++; stop == 3 {
			break
		}
	}
	if len(r.readers.active) != 0 {
		t.Error("a scan did not leave")
	}
}

func TestLargeStreamIsMergedIntoFullChunks(t *testing.T) {
	r := newRig(t, Options{})
	r.sliceBytes = 3000 * readingSize // several slices per roll
	r.segmentSize = 20 << 10          // and segments
	at := int64(testArrival)
	for day := range 3 {
		for range 12 {
			var rows []holdfast.Reading
			for range 1000 {
				at += 1e9
				rows = append(rows, number(at, float64(at%977)/10))
			}
			r.send(alice, testStream(1), at, rows...)
			r.send(bob, testStream(2), at, rows[:3]...)
		}
		r.roll()
		r.merge()
		r.check(fmt.Sprintf("day %d", day))
		r.tidy(fmt.Sprintf("day %d", day))
	}
	// 36,000 rows, 7,200 in a chunk, which ends with a minute: the full chunks of each
	// day stay, the rest is merged again.
	if n := r.count(`SELECT count(*) FROM chunk WHERE assignment = x'61000000000000000000000000000000'`); n != 6 {
		t.Errorf("%d chunks", n)
	}
}

// A stream has one type. Should readings of another come all the same, they are
// kept.
func TestMixedTypesOfAStream(t *testing.T) {
	r := newRig(t, Options{})
	for range 3 {
		for i, v := range everyValue() {
			r.send(alice, testStream(1), testArrival, holdfast.Reading{Time: int64(i / 5), Value: v})
		}
		r.roll()
		r.check("rolled")
	}
	r.merge()
	r.check("merged")
	r.tidy("merged")
}

// TestScanRollsALongTail keeps what a scan takes into memory small.
func TestScanRollsALongTail(t *testing.T) {
	r := newSizedRig(t, Options{}, 8<<20)
	b := make([]byte, holdfast.MaxValueBytes)
	for i := range tailLimit/len(b) + 1 {
		b[0] = byte(i)
		r.send(alice, testStream(1), testArrival, holdfast.Reading{Time: int64(i), Value: holdfast.BytesValue(b)})
	}
	rw, err := r.Begin(t.Context())
	r.must(err)
	r.check("beside a rewrite")
	if r.tail.size() == 0 {
		t.Error("rolled beside a rewrite")
	}
	r.must(rw.End(t.Context()))
	r.check("long")
	if n := r.tail.size(); n != 0 {
		t.Errorf("%d bytes in the tail", n)
	}
	r.check("rolled")
}

func TestLongTextsSplitChunks(t *testing.T) {
	r := newSizedRig(t, Options{}, 1<<20)
	rng := newRNG(t)
	for i := range 12 {
		b := make([]byte, 200<<10)
		for j := range b {
			b[j] = byte(rng.Uint32())
		}
		r.send(alice, testStream(1), testArrival, holdfast.Reading{Time: int64(i), Value: holdfast.BytesValue(b)})
	}
	r.check("tail")
	r.roll()
	r.check("rolled")
	r.merge()
	r.check("merged")
	r.tidy("merged")
}

// TestCrashes ends the run after each step, as often as the step comes, and
// expects the next process to find all and to leave nothing behind.
func TestCrashes(t *testing.T) {
	steps := []string{"announced", "put", "rolled", "trimmed", "merged", "deleted", "punched", "resealed", "settled", "erased"}
	for _, step := range steps {
		reached := 0
		for n := 1; n <= 2; n++ {
			r := newRig(t, Options{})
			rng := rand.New(rand.NewPCG(7, uint64(n)))
			r.sliceBytes, r.segmentSize = 200*readingSize, 4<<10
			r.crashAt(step, n)
			crashed := r.story(rng)
			if crashed {
				reached++
			}
			r.restart()
			r.check(step + ": restarted")
			r.sendMixed(rng, 20)
			r.check(step + ": tail")
			r.roll()
			r.merge()
			r.check(step + ": merged")
			r.tidy(fmt.Sprintf("%s %d", step, n))
			r.close()
			if t.Failed() {
				t.FailNow()
			}
			if !crashed {
				break
			}
		}
		if reached == 0 {
			t.Errorf("no run came to step %q", step)
		}
	}
}

// story is what a Series goes through, and reports whether it crashed. The oracle
// is told of an erasure at the moment its keys die.
func (r *rig) story(rng *rand.Rand) (crashed bool) {
	r.t.Helper()
	ctx := r.t.Context()
	do := func(err error) bool {
		if err != nil && !strings.Contains(err.Error(), errCrash.Error()) {
			r.t.Fatal(err)
		}
		crashed = crashed || err != nil
		return err == nil
	}
	for range 3 {
		r.sendMixed(rng, 40)
		if !do(r.Roll(ctx)) {
			return
		}
	}
	if !do(r.Merge(ctx)) {
		return
	}
	r.sendMixed(rng, 40)
	// Half a stream goes.
	rw, err := r.Begin(ctx)
	if !do(err) {
		return
	}
	if !do(rw.Roll(ctx)) {
		return
	}
	cells, err := r.Cells(ctx, alice, []holdfast.StreamID{testStream(1)}, holdfast.Always)
	r.must(err)
	keep := func(x holdfast.Reading) bool { return x.Time < testArrival }
	next := map[Cell]*seal.Cipher{}
	for _, c := range cells {
		to := seal.NewCipher(seal.NewKey())
		kept, err := rw.Reseal(ctx, c, keep, to)
		if !do(err) {
			return
		}
		if kept > 0 {
			next[c] = to
		} else {
			next[c] = nil
		}
	}
	r.check("resealed, keys as before")
	for c, to := range next {
		r.keys.replace(c, to)
	}
	r.forget(of{alice, testStream(1)}, keep)
	r.check("resealed, keys in force")
	if !do(rw.End(ctx)) {
		return
	}
	r.check("rewritten")
	// All of bob goes.
	r.keys.destroy(bob)
	for o := range r.sent {
		if o.a == bob {
			delete(r.sent, o)
		}
	}
	if _, err := r.Erase(ctx, holdfast.Scope{Assignments: []holdfast.AssignmentID{bob}, Span: holdfast.Always, Whole: true}); !do(err) {
		r.keys.revive(bob)
		return
	}
	r.keys.revive(bob)
	r.sendMixed(rng, 40)
	if !do(r.Roll(ctx)) {
		return
	}
	return !do(r.Merge(ctx)) || crashed
}

// TestFailuresAreMadeGood has each step fail once, after its work was done, and the
// same process go on.
func TestFailuresAreMadeGood(t *testing.T) {
	for _, step := range []string{"announced", "put", "rolled", "trimmed", "merged", "deleted", "punched"} {
		r := newRig(t, Options{})
		rng := rand.New(rand.NewPCG(3, 3))
		r.sliceBytes, r.segmentSize = 200*readingSize, 4<<10
		r.crashAt(step, 1)
		failed := false
		for n := range byte(6) {
			r.send(bob, testStream(100+n), testArrival, number(1, 1)) // keeps its segment alive
			r.sendMixed(rng, 20)
			for _, do := range []func(context.Context) error{r.Roll, r.Merge} {
				err := do(t.Context())
				if err != nil && !errors.Is(err, errCrash) {
					t.Fatalf("%s: %v", step, err)
				}
				failed = failed || err != nil
				r.check(step)
			}
		}
		if !failed {
			t.Errorf("%s did not come", step)
		}
		r.tidy(step)
	}
}

// forget tells the oracle what is erased.
func (r *rig) forget(o of, keep func(holdfast.Reading) bool) {
	var left []holdfast.Reading
	for _, x := range r.sent[o] {
		if keep(x) {
			left = append(left, x)
		}
	}
	r.sent[o] = left
}

func TestDamageIsNamedAndStaysWhereItIs(t *testing.T) {
	r := newRig(t, Options{})
	for range 2 {
		r.send(alice, testStream(1), testArrival, number(1, 1))
		r.send(alice, testStream(2), testArrival, number(2, 2))
		r.roll()
	}
	rows, err := r.cellRows(t.Context(), Cell{alice, testStream(1), 202611})
	r.must(err)
	at := rows[0].at + 20
	data, err := os.ReadFile(r.segmentPath(rows[0].blob))
	r.must(err)
	data[at] ^= 1
	r.must(os.WriteFile(r.segmentPath(rows[0].blob), data, 0o600))
	_, err = collect(r.Scan(t.Context(), alice, testStream(1), holdfast.Always))
	if err == nil || !strings.Contains(err.Error(), rows[0].blob.String()) || !strings.Contains(err.Error(), fmt.Sprintf("offset %d ", rows[0].at)) {
		t.Errorf("scan of a damaged chunk: %v", err)
	}
	if d := differ(r.scan(of{alice, testStream(2)}, holdfast.Always), []holdfast.Reading{number(2, 2)}); d != "" {
		t.Error(d)
	}
	err = r.Merge(t.Context())
	if err == nil || !strings.Contains(err.Error(), rows[0].blob.String()) {
		t.Errorf("merge of a damaged chunk: %v", err)
	}
	if n := r.count(`SELECT count(*) FROM chunk`); n != 3 { // two left, two merged into one
		t.Errorf("%d chunks", n)
	}
}

func TestRecoverRefusesWhatDoesNotOpen(t *testing.T) {
	r := newRig(t, Options{})
	r.send(alice, testStream(1), testArrival, number(1, 1))
	r.send(bob, testStream(1), testArrival, number(1, 1))
	r.keys.retire(bob, 202611)
	delete(r.sent, of{bob, testStream(1)})
	r.restart() // bob's record is skipped
	r.check("restarted")
	var seen int
	r.must(r.Recover(t.Context(), func(h Header, c *Content) error {
		seen++
		return nil
	}))
	if seen != 1 {
		t.Errorf("recovered %d records", seen)
	}
	r.roll()
	r.check("rolled")

	pos := r.log.End()
	r.send(alice, testStream(1), testArrival, number(2, 2))
	delete(r.keys.byID, r.keys.journalCipher(alice, 202611).ID())
	err := r.Recover(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("position %d", pos)) {
		t.Errorf("recover: %v", err)
	}
	if err := r.Roll(t.Context()); err == nil {
		t.Error("rolled what does not open")
	}
}

func TestRecoverGivesEveryRecordInOrder(t *testing.T) {
	r := newSizedRig(t, Options{}, 1<<20)
	text := holdfast.TextValue(strings.Repeat("x", 5000))
	const n = 120 // more than one stretch
	for i := range n {
		r.append(Header{Assignment: alice, Bucket: 202611, Arrival: testArrival + int64(i)}, &Content{
			Session: fmt.Appendf(nil, "session %d", i), Received: []uint16{uint16(i)},
			Rows: []Row{{testStream(1), holdfast.Reading{Time: int64(i), Value: text}}},
		})
	}
	r.close()
	r.open()
	i := 0
	r.must(r.Recover(t.Context(), func(h Header, c *Content) error {
		if h.Arrival != testArrival+int64(i) || string(c.Session) != fmt.Sprintf("session %d", i) || c.Received[0] != uint16(i) {
			t.Errorf("record %d: %+v, session %s", i, h, c.Session)
		}
		i++
		return nil
	}))
	if i != n {
		t.Errorf("%d records", i)
	}
	boom := errors.New("boom")
	if err := r.Recover(t.Context(), func(Header, *Content) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("recover: %v", err)
	}
}

// A crash between a roll's transaction and the trim, which is when ingest writes
// down its packet ids, leaves them in records that are rolled already.
func TestRecoverGivesRolledRecordsThatTheJournalHas(t *testing.T) {
	r := newRig(t, Options{})
	for i := range 3 {
		r.send(alice, testStream(1), testArrival+int64(i), number(int64(i), 1))
	}
	r.crashAt("rolled", 1)
	if err := r.Roll(t.Context()); !errors.Is(err, errCrash) {
		t.Fatalf("roll: %v", err)
	}
	r.send(alice, testStream(1), testArrival+3, number(3, 1))
	r.close()
	r.open()
	var got []int64
	r.must(r.Recover(t.Context(), func(h Header, _ *Content) error {
		got = append(got, h.Arrival-testArrival)
		return nil
	}))
	if !slices.Equal(got, []int64{0, 1, 2, 3}) {
		t.Errorf("records %v", got)
	}
	r.check("recovered")
	if n := r.tail.size(); n == 0 || n > 200 {
		t.Errorf("%d bytes in the tail: rolled records are in it", n)
	}
	r.roll()
	r.check("rolled")
}

func TestRecoverRefusesAnotherJournal(t *testing.T) {
	r := newRig(t, Options{})
	r.send(alice, testStream(1), testArrival, number(1, 1))
	r.roll()
	r.close()
	r.must(os.RemoveAll(r.dir + "/journal"))
	r.open()
	if err := r.Recover(t.Context(), nil); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("recover with an empty journal: %v", err)
	}
	r.must(r.Rebase(t.Context()))
	r.must(r.Recover(t.Context(), nil))
	r.send(alice, testStream(1), testArrival, number(2, 2))
	r.check("rebased")
	r.roll()
	r.check("rolled")
}
