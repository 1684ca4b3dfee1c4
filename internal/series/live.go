package series

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
)

// Arrived is what one durable record brought of one assignment. It is shared by all
// who follow: nobody changes it.
type Arrived struct {
	Assignment holdfast.AssignmentID
	Pos        journal.Pos
	At         int64 // ns since 1970; of what was read from chunks, no later than it was
	Rows       []Row // by stream and time, equal times as they came

	size    int64
	holders int // watches that have it in their queue; under live.mu

	mu      sync.Mutex
	suspect []holdfast.StreamID // of these, rows may be repeats
}

// live hands what becomes durable to those who watch. While nobody does, it costs
// one look at a flag.
type live struct {
	on atomic.Bool

	mu      sync.Mutex
	watches map[*Watch]struct{}
	of      map[holdfast.AssignmentID][]*Watch
	latest  map[streamName]latest // of watched streams
	fresh   []*Arrived            // not handed out yet
	bytes   int64                 // of what is fresh or in a queue
	end     journal.Pos           // behind the last record observed
	lost    bool                  // fresh ran over

	rouse   chan struct{} // there is something fresh
	stop    chan struct{} // closed with the last watch
	stopped chan struct{}
}

// latest is the latest time of what was handed out of a stream; of all that there is,
// if known.
type latest struct {
	time  int64
	known bool
}

// Limits of what is held in memory for those who watch.
const (
	liveBytes  = 32 << 20  // by all of them
	watchBytes = 512 << 10 // by one
	// livePause is how long records gather before they are handed on: a thousand
	// readers are not woken for each.
	livePause = 5 * time.Millisecond
	liveRound = 64 // records handed out without letting go of the lock
)

// Watch is what one follower has not taken yet of what became durable.
type Watch struct {
	s     *Series
	of    map[holdfast.AssignmentID]struct{}
	queue []*Arrived // in order
	bytes int64
	until journal.Pos // all before it is in the queue, was taken, or is lost
	from  journal.Pos // what stands before it is not wanted
	lost  bool        // the queue ran over: what it held is to be read from the store
	ready chan struct{}
}

// Watch begins to collect what becomes durable from now on, of no assignment yet.
// It must be closed.
func (s *Series) Watch() *Watch {
	l := &s.live
	w := &Watch{s: s, of: map[holdfast.AssignmentID]struct{}{}, ready: make(chan struct{}, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.watches) == 0 {
		l.watches, l.of, l.latest = map[*Watch]struct{}{}, map[holdfast.AssignmentID][]*Watch{}, map[streamName]latest{}
		l.rouse, l.stop, l.stopped = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
		l.on.Store(true) // first: what is in the tail later comes through observe
		l.end = s.tail.observed()
		go l.run(l.rouse, l.stop, l.stopped)
	}
	l.watches[w] = struct{}{}
	w.from, w.until = l.end, l.end
	return w
}

// Close ends the watch.
func (w *Watch) Close() {
	l := &w.s.live
	l.mu.Lock()
	if _, open := l.watches[w]; !open {
		l.mu.Unlock()
		return
	}
	delete(l.watches, w)
	l.unfollow(w, nil)
	l.drop(w)
	var last chan struct{}
	if len(l.watches) == 0 {
		l.on.Store(false)
		close(l.stop)
		l.fresh, l.bytes, last = nil, 0, l.stopped
	}
	l.mu.Unlock()
	if last != nil {
		<-last
	}
}

// Follow makes these the assignments that are watched. Skip comes after it where some
// were not before: what they have is in the store.
func (w *Watch) Follow(of []holdfast.AssignmentID) {
	l := &w.s.live
	l.mu.Lock()
	defer l.mu.Unlock()
	next := make(map[holdfast.AssignmentID]struct{}, len(of))
	for _, a := range of {
		next[a] = struct{}{}
		if _, had := w.of[a]; !had {
			l.of[a] = append(l.of[a], w)
		}
	}
	l.unfollow(w, next)
	w.of = next
}

// Skip drops what came and was not taken. It returns the position from which on the
// watch has everything again; what stands before it is in the store.
func (w *Watch) Skip() journal.Pos {
	l := &w.s.live
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(w)
	w.from, w.until, w.lost = l.end, l.end, false
	return l.end
}

// unfollow takes w from the assignments that it does not follow any more.
func (l *live) unfollow(w *Watch, next map[holdfast.AssignmentID]struct{}) {
	for a := range w.of {
		if _, still := next[a]; still {
			continue
		}
		all := slices.DeleteFunc(l.of[a], func(v *Watch) bool { return v == w })
		if l.of[a] = all; len(all) == 0 {
			delete(l.of, a)
			maps.DeleteFunc(l.latest, func(n streamName, _ latest) bool { return n.assignment == a })
		}
	}
}

// Take returns what came since the last call, in order of position. All that is
// watched and stands before until was given by now, unless lost: then what was not
// given is to be read from the store.
func (w *Watch) Take() (batch []*Arrived, until journal.Pos, lost bool) {
	l := &w.s.live
	l.mu.Lock()
	defer l.mu.Unlock()
	batch, until, lost = w.queue, w.until, w.lost
	if len(l.fresh) == 0 { // there is nothing between
		until = max(until, l.end)
		w.until = until
	}
	w.queue = nil
	for _, a := range batch {
		l.let(a)
	}
	w.bytes, w.lost = 0, false
	return batch, until, lost
}

// Ready has a token when there is something to take.
func (w *Watch) Ready() <-chan struct{} { return w.ready }

// observe takes in a record that is in the tail by now. It does not wait for those
// who follow.
func (l *live) observe(h *Header, rows []Row, pos, next journal.Pos) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end = max(l.end, next)
	if len(rows) == 0 || len(l.of[h.Assignment]) == 0 {
		return
	}
	if l.bytes >= liveBytes {
		l.fresh, l.lost = l.forgetFresh(), true
	}
	a := arrived(h, rows, pos)
	l.fresh = append(l.fresh, a)
	l.bytes += a.size
	select {
	case l.rouse <- struct{}{}:
	default:
	}
}

func (l *live) forgetFresh() []*Arrived {
	for _, a := range l.fresh {
		l.bytes -= a.size
	}
	return nil
}

// arrived copies what a record brought.
func arrived(h *Header, rows []Row, pos journal.Pos) *Arrived {
	a := &Arrived{Assignment: h.Assignment, Pos: pos, At: h.Arrival, Rows: slices.Clone(rows)}
	a.size = int64(unsafe.Sizeof(*a)) + int64(len(rows))*int64(unsafe.Sizeof(Row{}))
	for i := range rows {
		if n := rows[i].Value.Size(); n > 8 {
			a.size += int64(n)
		}
	}
	inRecordOrder(a.Rows)
	return a
}

// inRecordOrder puts the rows of one record in the order in which they are given.
func inRecordOrder(rows []Row) {
	order := func(a, b Row) int {
		return cmp.Or(bytes.Compare(a.Stream[:], b.Stream[:]), cmp.Compare(a.Time, b.Time))
	}
	if !slices.IsSortedFunc(rows, order) {
		slices.SortStableFunc(rows, order)
	}
}

// run hands on what is fresh until stop.
func (l *live) run(rouse <-chan struct{}, stop <-chan struct{}, stopped chan<- struct{}) {
	defer close(stopped)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-stop:
			return
		case <-rouse:
		}
		for l.hand() {
		}
		pause.Reset(livePause)
		select {
		case <-stop:
			return
		case <-pause.C:
		}
	}
}

// hand hands on some of what is fresh, and reports whether there is more.
func (l *live) hand() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost {
		for w := range l.watches {
			l.overrun(w)
			w.wake()
		}
		l.lost = false
	}
	n := min(len(l.fresh), liveRound)
	for _, a := range l.fresh[:n] {
		l.look(a)
		for _, w := range l.of[a.Assignment] {
			if a.Pos < w.from {
				continue
			}
			if share := liveBytes / 2 / int64(len(l.watches)); w.bytes+a.size > watchBytes || l.bytes > liveBytes/2 && w.bytes > share {
				l.overrun(w)
			}
			w.queue = append(w.queue, a)
			w.bytes += a.size
			a.holders++
			w.wake()
		}
		if a.holders == 0 {
			l.bytes -= a.size
		}
	}
	clear(l.fresh[:n])
	l.fresh = l.fresh[n:]
	if len(l.fresh) > 0 {
		return true
	}
	l.fresh = nil
	for w := range l.watches {
		w.until = max(w.until, l.end)
	}
	return false
}

func (w *Watch) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// overrun drops a queue; its follower reads the store instead.
func (l *live) overrun(w *Watch) {
	l.drop(w)
	w.lost = true
}

func (l *live) drop(w *Watch) {
	for _, a := range w.queue {
		l.let(a)
	}
	w.queue, w.bytes = nil, 0
}

func (l *live) let(a *Arrived) {
	if a.holders--; a.holders == 0 {
		l.bytes -= a.size
	}
}

// look finds which streams of a record may have repeats in it: a reading later than
// all before repeats nothing.
func (l *live) look(a *Arrived) {
	for i := 0; i < len(a.Rows); {
		n := streamName{a.Assignment, a.Rows[i].Stream}
		had, any := l.latest[n]
		suspect := !had.known
		if !any {
			had.time = math.MinInt64
		}
		for ; i < len(a.Rows) && a.Rows[i].Stream == n.stream; i++ {
			r := &a.Rows[i]
			suspect = suspect || r.Time <= had.time && r.Mark&holdfast.Stamped == 0
			had.time = max(had.time, r.Time)
		}
		l.latest[n] = had
		if suspect {
			a.suspect = append(a.suspect, n.stream)
		}
	}
}

// knows says that of a stream nothing later was stored at a moment since it is
// watched. What came after that was looked at.
func (l *live) knows(n streamName, time int64) {
	if !l.on.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.of[n.assignment]) == 0 {
		return
	}
	if had, any := l.latest[n]; any {
		time = max(time, had.time)
	}
	l.latest[n] = latest{time, true}
}

// forget drops what is held of an assignment of which something is erased. Who
// follows it reads from the store what is left.
func (l *live) forget(of holdfast.AssignmentID) {
	if !l.on.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fresh = slices.DeleteFunc(l.fresh, func(a *Arrived) bool {
		if a.Assignment == of {
			l.bytes -= a.size
		}
		return a.Assignment == of
	})
	for _, w := range l.of[of] {
		l.overrun(w)
		w.wake()
	}
}

func (l *live) held() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// WithoutRepeats returns the rows of a but for those that say again what was there
// before. It looks into the store where it must, once for all who follow.
func (s *Series) WithoutRepeats(ctx context.Context, a *Arrived) ([]Row, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.suspect) == 0 {
		return a.Rows, nil
	}
	wants := make([]Want, len(a.suspect))
	for i, stream := range a.suspect {
		wants[i] = Want{Assignment: a.Assignment, Stream: stream}
	}
	first, _, err := s.Arrivals(ctx, wants, a.Pos, a.Pos+1, 2*MaxRows)
	if err != nil {
		return nil, err
	}
	rows := make([]Row, 0, len(a.Rows))
	for i := range a.Rows {
		if !slices.Contains(a.suspect, a.Rows[i].Stream) {
			rows = append(rows, a.Rows[i])
		}
	}
	for _, f := range first {
		rows = append(rows, f.Rows...)
	}
	inRecordOrder(rows)
	a.Rows, a.suspect = rows, nil
	return rows, nil
}

// Pos is a position in the journal, for those who don't read the journal.
type Pos = journal.Pos
