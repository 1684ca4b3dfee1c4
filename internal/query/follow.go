package query

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// Follow is a question without an end: what a selection has from now on, or on from
// a cursor, or from a time on. docs/feed.md says what comes of it.
type Follow struct {
	Who     access.Principal
	Purpose holdfast.Purpose // "": the only one that Who holds
	Selection
	// After is the cursor of an Item of the same question: what was given up to it is
	// not given again.
	After string
	// From asks, where there is no After, first for what is stored with times from
	// here on, ns since 1970; 0: from now on.
	From  int64
	Grant holdfast.GrantID // the one to read under; zero: whichever fits
	// Idle is how often an Item comes at least, so that cursors move on and a reader
	// that has gone is found; default 15 s.
	Idle time.Duration
}

// Item is a reading, or the word that there is none.
type Item struct {
	Row     *Row   // nil: nothing new, only the cursor
	Arrived int64  // when it became durable, ns since 1970; of what is stored long, no later than it did
	Cursor  string // behind the Item
	// Reset is not empty where the cursor could not be gone on from exactly: it says
	// why, and from where it goes on.
	Reset string
}

// Feed is the answer to a Follow that was allowed at least in part. Range over Items,
// or call Close, or both.
type Feed struct {
	// Items gives, once, what there is and what comes, until the caller wants no more,
	// the context of Follow ends, or the right to read does. An error is the last thing
	// it gives; the cursor of the last Item is good after every one of them.
	Items iter.Seq2[Item, error]

	Purpose  holdfast.Purpose
	Withheld int // streams of the selection that may not be read, of devices of the reader's party

	r *following
}

// Sources returns the streams that may be read at this moment.
func (f *Feed) Sources() []*Source {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	return slices.Clone(f.r.sources)
}

// Disclosures returns those under which readings leave at this moment. There are none
// before the first reading.
func (f *Feed) Disclosures() (ids []holdfast.DisclosureID) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	for _, o := range f.r.open {
		ids = append(ids, o.id)
	}
	return ids
}

// Close ends a feed over whose Items nobody ranges at the moment, and closes its
// disclosures with the amounts. It may be called again.
func (f *Feed) Close() error { return f.r.close() }

// Cut counts a feed that its caller ends because its reader takes nothing.
func (f *Feed) Cut() { f.r.q.feeds.cut.Inc() }

const (
	defaultIdle = 15 * time.Second
	// recordEvery is how often the amounts of a feed are brought to its disclosures.
	recordEvery = 30 * time.Second
)

// Follow answers a question without an end. Refusals are those of Read for the same
// selection; what only windows may show is refused, saying so. ctx must live as long
// as the feed.
func (q *Query) Follow(ctx context.Context, f Follow) (*Feed, error) {
	if !f.Group.IsZero() {
		return nil, holdfast.Errorf(holdfast.Invalid, "a declared group is answered in windows, by a read: a feed follows a party or a device")
	}
	req := Request{Who: f.Who, Purpose: f.Purpose, Selection: f.Selection, Grant: f.Grant, Span: holdfast.Always}
	p, err := req.check()
	if err != nil {
		return nil, err
	}
	if f.Idle <= 0 {
		f.Idle = defaultIdle
	}
	r := &following{q: q, ctx: ctx, f: f, req: req, openOf: map[under]*disclosed{}}
	if r.marks, err = q.newMarks(ctx, &req, p); err != nil {
		return nil, err
	}
	if f.After != "" {
		if r.at, err = r.marks.open(ctx, f.After); err != nil {
			return nil, err
		}
	}
	if r.j, err = q.judge(ctx, req, p); err != nil {
		return nil, err
	}
	r.erased = q.erasures.Begun()
	r.watch = q.series.Watch()
	withheld, err := r.begin()
	if err != nil {
		r.watch.Close()
		return nil, err
	}
	q.feeds.followers.Inc()
	return &Feed{Items: r.items, Purpose: p, Withheld: withheld, r: r}, nil
}

// following is one feed under way.
type following struct {
	q     *Query
	ctx   context.Context // of the caller of Follow, for as long as he follows
	f     Follow
	req   Request
	j     *judge
	marks *marks
	watch *series.Watch

	at       mark
	reset    string                  // to be told with the next item
	have     series.Pos              // the watch has, or gave, all from here on
	streams  map[streamOf]*candidate // that may be read
	order    []*candidate            // the same, in order
	of       map[holdfast.AssignmentID]struct{}
	seen     uint64    // what version was before the decision
	decided  time.Time // when it was made
	now      int64     // the instant that it was made for
	erased   uint64    // erasures begun before what is given was read
	told     time.Time // when the last item was given
	tick     uint
	failures int // of reading the store, in a row
	used     bool

	mu      sync.Mutex // guards what others may ask for, and close
	sources []*Source
	open    []*disclosed
	openOf  map[under]*disclosed
	opened  time.Time
	closed  bool
	failure error
}

// streamOf is a stream as records name it.
type streamOf struct {
	assignment holdfast.AssignmentID
	stream     holdfast.StreamID
}

// disclosed is a disclosure of a feed.
type disclosed struct {
	opened
	streams map[holdfast.StreamID]struct{}
}

// begin makes the first decision and finds where to begin.
func (r *following) begin() (withheld int, err error) {
	if withheld, err = r.decide(); err != nil {
		return 0, err
	}
	until := r.watch.Skip()
	r.have = until
	epoch, floor := r.q.series.Kept()
	switch {
	case r.f.After == "":
		r.at = mark{epoch: epoch, pos: until, now: r.now, arrived: r.now}
		if r.f.From != 0 {
			r.at.phase, r.at.from, r.at.since = snapshotPhase, r.f.From, math.MinInt64
		}
	case r.at.epoch != epoch || r.at.pos < floor:
		r.restart(epoch, until)
	case r.at.pos > until: // of records that a crash has taken back: none of them was acknowledged
		r.at.pos, r.at.stream = until, holdfast.StreamID{}
	}
	return withheld, nil
}

// restart goes on after a cursor that is too old: with all that arrived since it was
// made.
func (r *following) restart(epoch uint64, until series.Pos) {
	since := r.at.arrived - int64(time.Minute) // records become durable in another order than they arrive in
	r.reset = fmt.Sprintf("the cursor is older than the feed remembers: what has arrived since %s is given, some of it again",
		time.Unix(0, since).UTC().Format(time.RFC3339))
	r.at = mark{epoch: epoch, pos: until, now: r.now, arrived: r.now, phase: snapshotPhase, from: math.MinInt64, since: since}
}

// version is of all that decisions rest on, but for time.
func (q *Query) version() uint64 {
	return q.custody.Changes() + q.grants.Changes() + q.erasures.Begun()
}

// decide finds the streams and makes the decision on each.
func (r *following) decide() (withheld int, err error) {
	r.seen = r.q.version() // before: what changes meanwhile is looked at again
	r.decided, r.now = time.Now(), r.q.now().UnixNano()
	if err := r.j.refresh(r.ctx); err != nil {
		return 0, err
	}
	all, withheld, err := r.q.allowed(r.ctx, r.j, &r.req, place{span: r.req.Span})
	if err != nil {
		return 0, err
	}
	r.streams = make(map[streamOf]*candidate, len(all))
	r.order = make([]*candidate, 0, len(all))
	sources := make([]*Source, 0, len(all))
	of := make(map[holdfast.AssignmentID]struct{}, len(r.of))
	var ids []holdfast.AssignmentID
	fresh := false
	for i := range all {
		c := &all[i]
		if c.Delay > 0 {
			c.Span.To = min(c.Span.To, r.now-int64(c.Delay))
		}
		r.streams[streamOf{c.Assignment, c.StreamID}] = c
		r.order = append(r.order, c)
		sources = append(sources, c.face())
		if _, have := of[c.Assignment]; !have {
			of[c.Assignment] = struct{}{}
			ids = append(ids, c.Assignment)
			_, had := r.of[c.Assignment]
			fresh = fresh || !had
		}
	}
	slices.SortFunc(r.order, func(a, b *candidate) int {
		return cmp.Or(slices.Compare(a.Assignment[:], b.Assignment[:]), slices.Compare(a.StreamID[:], b.StreamID[:]))
	})
	if fresh || len(of) != len(r.of) {
		r.watch.Follow(ids)
	}
	if fresh { // what they have between is in the store
		r.have = r.watch.Skip()
	}
	r.of = of
	r.mu.Lock()
	r.sources = sources
	r.mu.Unlock()
	return withheld, nil
}

// settle makes the decision again where something it rests on has changed, or it is
// old.
func (r *following) settle() error {
	if r.q.version() == r.seen && time.Since(r.decided) < r.q.recheck {
		return nil
	}
	_, err := r.decide()
	switch holdfast.KindOf(err) {
	case holdfast.Denied, holdfast.NotFound:
		return holdfast.Errorf(holdfast.Denied, "the right to read ended while readings were given out: %w", err)
	}
	return err
}

// close ends the feed.
func (r *following) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return r.failure
	}
	r.closed = true
	r.watch.Close()
	r.q.feeds.followers.Dec()
	r.failure = r.closeAll()
	return r.failure
}
