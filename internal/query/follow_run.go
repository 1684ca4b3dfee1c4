package query

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// errStop ends a feed whose reader wants no more.
var errStop = errors.New("the reader wants no more")

// items is Feed.Items.
func (r *following) items(yield func(Item, error) bool) {
	r.mu.Lock()
	again := r.used || r.closed
	r.used = true
	r.mu.Unlock()
	if again {
		yield(Item{}, holdfast.Errorf(holdfast.Conflict, "the items of this feed were given out already"))
		return
	}
	err := r.run(yield)
	cerr := r.close()
	if !errors.Is(err, errStop) { // else Close tells what closing came to
		yield(Item{}, errors.Join(err, cerr))
	}
}

func (r *following) run(yield func(Item, error) bool) error {
	r.told = time.Now()
	if r.reset != "" {
		if err := r.give(yield, nil, 0); err != nil {
			return err
		}
	}
	for {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := r.settle(); err != nil {
			return err
		}
		if err := r.advance(); err != nil {
			return err
		}
		var err error
		switch {
		case r.at.phase != tailPhase:
			err = r.stored(yield)
		case r.at.pos < r.have:
			err = r.catchUp(yield)
		default:
			err = r.live(yield)
		}
		if err != nil {
			return err
		}
		if err := r.quiet(yield); err != nil {
			return err
		}
	}
}

// advance lets delayed streams come up to the instant of the decision.
func (r *following) advance() error {
	if r.at.phase != tailPhase || !r.at.stream.IsZero() || r.now <= r.at.now {
		return nil
	}
	if slices.ContainsFunc(r.order, func(c *candidate) bool { return c.Delay > 0 }) {
		r.at.phase, r.at.until = delayedPhase, r.now
		return nil
	}
	r.at.now = r.now
	return nil
}

// quiet gives an item without a row where none was given for long, and brings
// amounts to their disclosures.
func (r *following) quiet(yield func(Item, error) bool) error {
	r.mu.Lock()
	var err error
	if len(r.open) > 0 && time.Since(r.opened) >= recordEvery {
		err = r.closeAll()
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	if time.Since(r.told) >= r.f.Idle {
		return r.give(yield, nil, 0)
	}
	return nil
}

// live gives what the watch has, or waits for it.
func (r *following) live(yield func(Item, error) bool) error {
	// What was erased before this is not in the queue any more, or is hidden.
	r.erased = r.q.erasures.Begun()
	batch, until, lost := r.watch.Take()
	if lost || r.q.version() != r.seen { // there may be streams that were not there
		r.have = r.watch.Skip() // decided again first, then read from the store
		return nil
	}
	for _, a := range batch {
		if a.Pos < r.at.pos {
			continue
		}
		rows, err := r.q.series.WithoutRepeats(r.ctx, a)
		if err != nil {
			r.have = r.watch.Skip()
			return r.later(err)
		}
		if err := r.record(yield, a.Pos, a.At, a.Assignment, rows); err != nil {
			return err
		}
	}
	r.pass(until)
	if len(batch) > 0 {
		return nil
	}
	wait := r.f.Idle - time.Since(r.told)
	if len(r.open) > 0 {
		wait = min(wait, recordEvery-time.Since(r.opened))
	}
	if slices.ContainsFunc(r.order, func(c *candidate) bool { return c.Delay > 0 }) {
		wait = min(wait, r.q.recheck-time.Since(r.decided))
	}
	// What a decision rests on is looked at meanwhile: a right that has ended ends the
	// feed within a second, also where nothing arrives.
	for over := time.Now().Add(wait); r.q.version() == r.seen; {
		left := time.Until(over)
		if left <= 0 {
			return nil
		}
		t := time.NewTimer(min(left, max(r.q.recheck, shortestPause)))
		select {
		case <-r.ctx.Done():
			t.Stop()
			return r.ctx.Err()
		case <-r.watch.Ready():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
	return nil
}

// shortestPause keeps a follower who waits from being busy with it.
const shortestPause = time.Millisecond

// Reading the store can fail for a moment: an erasure was faster, or much is still in
// the journal.
const (
	storePause    = 50 * time.Millisecond
	storeFailures = 200
)

// later waits before the store is read again, unless err won't heal or has not for
// long.
func (r *following) later(err error) error {
	if r.failures++; holdfast.KindOf(err) != holdfast.Unavailable || r.failures > storeFailures {
		return err
	}
	t := time.NewTimer(storePause)
	defer t.Stop()
	select {
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-t.C:
		return nil
	}
}

// pass moves on to a position before which all was given.
func (r *following) pass(until series.Pos) {
	if until > r.at.pos {
		r.at.pos, r.at.arrived = until, max(r.at.arrived, r.now)
		r.leave()
	}
}

// leave stands at the beginning of whatever comes next.
func (r *following) leave() {
	r.at.assignment, r.at.stream, r.at.time, r.at.given = holdfast.AssignmentID{}, holdfast.StreamID{}, 0, 0
}

// Rows that are read from the store at a time: many where the budget of reads has
// room for them, else few.
const (
	manyRows  = 8192
	fewRows   = 512
	bytesARow = 160
)

// room returns how many rows may be read, and gives the memory back when it is
// called.
func (r *following) room() (rows int, release func()) {
	if release, err := r.q.purse.take(manyRows * bytesARow); err == nil {
		return manyRows, release
	}
	return fewRows, func() {}
}

// catchUp gives, from the store, some of what lies between the feed and its watch.
func (r *following) catchUp(yield func(Item, error) bool) error {
	if r.q.version() != r.seen { // there may be streams that were not there
		return nil
	}
	r.q.feeds.catchUps.Inc()
	if epoch, floor := r.q.series.Kept(); r.at.pos < floor {
		r.restart(epoch, r.have)
		return r.give(yield, nil, 0)
	}
	wants := make([]series.Want, len(r.order))
	for i, c := range r.order {
		wants[i] = series.Want{Assignment: c.Assignment, Stream: c.StreamID, Since: c.since}
	}
	n, release := r.room()
	defer release()
	r.erased = r.q.erasures.Begun()
	batch, next, err := r.q.series.Arrivals(r.ctx, wants, r.at.pos, r.have, n)
	if err != nil {
		return r.later(err)
	}
	r.failures = 0
	if epoch, floor := r.q.series.Kept(); r.at.pos < floor { // it may be that some were not there any more
		r.restart(epoch, r.have)
		return r.give(yield, nil, 0)
	}
	for _, a := range batch {
		if err := r.record(yield, a.Pos, a.At, a.Assignment, a.Rows); err != nil {
			return err
		}
	}
	arrived := r.at.arrived
	if r.pass(next); next < r.have {
		r.at.arrived = arrived
	}
	return nil
}

// record gives the rows of one record, which are in order and without repeats.
func (r *following) record(yield func(Item, error) bool, pos series.Pos, at int64, a holdfast.AssignmentID, rows []series.Row) error {
	inside := pos == r.at.pos && !r.at.stream.IsZero()
	begin := r.at
	if !inside {
		r.at.pos = pos
		r.leave()
	}
	passed := uint64(0) // of begin's stream and time
	r.at.arrived = max(r.at.arrived, at)
	for i := range rows {
		x := &rows[i]
		if inside {
			switch order := slices.Compare(x.Stream[:], begin.stream[:]); {
			case order < 0, order == 0 && x.Time < begin.time:
				continue
			case order == 0 && x.Time == begin.time:
				if passed++; passed <= begin.given {
					continue
				}
			}
		}
		if r.at.stream != x.Stream || r.at.time != x.Time {
			r.at.assignment, r.at.stream, r.at.time, r.at.given = a, x.Stream, x.Time, 0
		}
		r.at.given++
		if err := r.row(yield, streamOf{a, x.Stream}, &x.Reading, at); err != nil {
			return err
		}
	}
	r.at.pos = pos + 1
	r.leave()
	return nil
}

// row gives one reading, if it may be given.
func (r *following) row(yield func(Item, error) bool, s streamOf, x *holdfast.Reading, arrived int64) error {
	if err := r.still(); err != nil {
		return err
	}
	c := r.streams[s]
	if c == nil || !r.seenOf(c).Contains(x.Time) || arrived < c.since {
		return nil
	}
	if q := r.q; q.erasures.Hides(c.Assignment, c.StreamID, x.Time) || q.hidden(r.erased, c, holdfast.Span{From: x.Time, To: x.Time}) {
		return nil
	}
	o, err := r.disclosed(c)
	if err != nil {
		return err
	}
	row := &Row{Source: c.face(), Reading: c.coarse.reading(*x)}
	r.mu.Lock()
	o.amount.add(1, x.Time, x.Time)
	r.mu.Unlock()
	r.q.feeds.rows.Inc()
	return r.give(yield, row, arrived)
}

// seenOf is what may be given of a stream: of a delayed one as much as at says, so
// that the rest comes when it is old enough.
func (r *following) seenOf(c *candidate) holdfast.Span {
	span, now := c.Span, r.at.now
	if r.at.phase == delayedPhase {
		now = r.at.until
	}
	if c.Delay > 0 {
		span.To = min(span.To, now-int64(c.Delay))
	}
	return span
}

// still makes the decision again where it is due while rows are given out. Streams
// that join come with what is read next.
func (r *following) still() error {
	if r.q.version() == r.seen {
		// That a reader was slow is seen without a look at the clock.
		r.tick++
		late := r.told.Sub(r.decided) >= r.q.recheck
		if !late && (r.tick%lookRows != 0 || time.Since(r.decided) < r.q.recheck) {
			return nil
		}
	}
	return r.settle()
}

// give hands an item out, and finds a reader that is too slow.
func (r *following) give(yield func(Item, error) bool, row *Row, arrived int64) error {
	cursor, err := r.marks.cursor(r.ctx, &r.at)
	if err != nil {
		return err
	}
	item := Item{Row: row, Arrived: arrived, Cursor: cursor, Reset: r.reset}
	r.reset = ""
	began := time.Now()
	if !yield(item, nil) {
		return errStop
	}
	r.told = time.Now()
	if r.told.Sub(began) > r.q.slow {
		r.q.feeds.cut.Inc()
		return holdfast.Errorf(holdfast.Unavailable, "the feed was not read for %s: connect again with the last cursor", r.q.slow)
	}
	return nil
}

// stored gives some of a snapshot, or of what has become old enough.
func (r *following) stored(yield func(Item, error) bool) error {
	if epoch, floor := r.q.series.Kept(); r.at.pos < floor {
		r.have = r.watch.Skip()
		r.restart(epoch, r.have)
		return r.give(yield, nil, 0)
	}
	n, release := r.room()
	defer release()
	for _, c := range r.order {
		if slices.Compare(c.Assignment[:], r.at.assignment[:]) < 0 || c.Assignment == r.at.assignment && slices.Compare(c.StreamID[:], r.at.stream[:]) < 0 {
			continue
		}
		span, ok := r.due(c)
		if !ok {
			continue
		}
		skip := uint64(0)
		if c.StreamID == r.at.stream && c.Assignment == r.at.assignment {
			if r.at.time == math.MaxInt64 && r.at.given == 0 {
				continue // its end
			}
			if span.From <= r.at.time {
				span.From, skip = r.at.time, r.at.given
			}
		} else {
			r.at.assignment, r.at.stream, r.at.time, r.at.given = c.Assignment, c.StreamID, span.From, 0
		}
		return r.page(yield, c, span, skip, n)
	}
	if r.at.phase == delayedPhase {
		r.at.now = r.at.until
	}
	r.at.phase, r.at.from, r.at.since, r.at.until = tailPhase, 0, 0, 0
	r.leave()
	return nil
}

// due is what of a stream's time the phase gives.
func (r *following) due(c *candidate) (span holdfast.Span, ok bool) {
	span = r.seenOf(c)
	switch {
	case r.at.phase == snapshotPhase:
		span.From = max(span.From, r.at.from)
	case c.Delay == 0:
		return span, false
	default:
		span.From = max(span.From, r.at.now-int64(c.Delay)+1)
	}
	return span, span.From <= span.To
}

// page gives rows of one stream of a phase.
func (r *following) page(yield func(Item, error) bool, c *candidate, span holdfast.Span, skip uint64, n int) error {
	first := span.From
	want := series.Want{Assignment: c.Assignment, Stream: c.StreamID, Span: span, Since: c.since}
	r.erased = r.q.erasures.Begun()
	rows, err := r.q.series.Stored(r.ctx, want, r.at.pos, r.sinceOf(), int(skip)+n)
	if err != nil {
		return r.later(err)
	}
	r.failures = 0
	more := len(rows) == int(skip)+n
	s := streamOf{c.Assignment, c.StreamID}
	for i := range rows {
		x := &rows[i]
		if skip > 0 && x.Time == first {
			skip--
			continue
		}
		if r.at.time != x.Time {
			r.at.time, r.at.given = x.Time, 0
		}
		r.at.given++
		if err := r.row(yield, s, &x.Reading, x.At); err != nil {
			return err
		}
	}
	if !more {
		r.at.time, r.at.given = math.MaxInt64, 0
	}
	return nil
}

func (r *following) sinceOf() int64 {
	if r.at.phase == snapshotPhase {
		return r.at.since
	}
	return math.MinInt64
}
