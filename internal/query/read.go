package query

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// Options tunes a Query; the zero value works.
type Options struct {
	Now func() time.Time // default time.Now
	// Recheck is how long rows are given out on one decision before it is made
	// again; default 1 s.
	Recheck time.Duration
	// Hides says that a reading is being erased; default: none is.
	Hides func(a holdfast.AssignmentID, s holdfast.StreamID, at int64) bool
}

// Query is the way out. It is safe for concurrent use.
type Query struct {
	custody *custody.Custody
	grants  *grant.Register
	series  *series.Series
	now     func() time.Time
	recheck time.Duration
	hides   func(a holdfast.AssignmentID, s holdfast.StreamID, at int64) bool
}

// New makes a Query over its keepers.
func New(c *custody.Custody, g *grant.Register, s *series.Series, o Options) *Query {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Recheck <= 0 {
		o.Recheck = time.Second
	}
	if o.Hides == nil {
		o.Hides = func(holdfast.AssignmentID, holdfast.StreamID, int64) bool { return false }
	}
	return &Query{custody: c, grants: g, series: s, now: o.Now, recheck: o.Recheck, hides: o.Hides}
}

// scan is the series' without what is being erased.
func (q *Query) scan(ctx context.Context, a holdfast.AssignmentID, s holdfast.StreamID, span holdfast.Span) iter.Seq2[holdfast.Reading, error] {
	return func(yield func(holdfast.Reading, error) bool) {
		for r, err := range q.series.Scan(ctx, a, s, span) {
			if err == nil && q.hides(a, s, r.Time) {
				continue
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// Read answers a request. When it returns without an error, disclosures are open
// and durable, and the caller ranges over the result's Rows or closes it; ctx
// must live as long. Nothing of the selection being allowed is Denied, with the
// reason and what would help; a stream that its reader could read is NotFound if
// it does not exist.
func (q *Query) Read(ctx context.Context, req Request) (*Result, error) {
	p, err := req.check()
	if err != nil {
		return nil, err
	}
	at := place{span: req.Span}
	if req.Cursor != "" {
		if at, err = decodeCursor(req.Cursor, req.bind(p)); err != nil {
			return nil, err
		}
	}
	if err := checkWindows(at.span, req.Every); err != nil {
		return nil, err
	}
	j, err := q.judge(ctx, req, p)
	if err != nil {
		return nil, err
	}
	allowed, withheld, err := q.allowed(ctx, j, req.Selection, at)
	if err != nil {
		return nil, err
	}
	if err := req.checkTypes(allowed); err != nil {
		return nil, err
	}
	r := &run{q: q, j: j, ctx: ctx, req: req, bind: req.bind(p), at: at, streams: allowed}
	r.result = &Result{
		Rows: r.rows, Purpose: p, Aggregates: slices.Clone(req.Aggregates), Withheld: withheld, Span: at.span, finish: r.finish,
	}
	for i := range allowed {
		r.result.Sources = append(r.result.Sources, &allowed[i].Source)
	}
	if err := r.disclose(); err != nil {
		return nil, errors.Join(err, r.finish())
	}
	return r.result, nil
}

// check refuses what is wrong with a request itself.
func (req Request) check() (holdfast.Purpose, error) {
	if !req.Who.Can(access.ScopeRead) {
		return "", holdfast.Errorf(holdfast.Denied, "the credential may not read: its scopes lack %s", access.ScopeRead)
	}
	if err := req.Selection.check(); err != nil {
		return "", err
	}
	switch {
	case req.Cursor == "" && req.Span.From > req.Span.To:
		return "", holdfast.Errorf(holdfast.Invalid, "the time asked for ends before it begins")
	case req.Limit < 0:
		return "", holdfast.Errorf(holdfast.Invalid, "a limit is not negative")
	case req.Every < 0, (req.Every > 0) != (len(req.Aggregates) > 0):
		return "", holdfast.Errorf(holdfast.Invalid, "windows need a length and at least one aggregate")
	}
	for _, a := range req.Aggregates {
		if !a.valid() {
			return "", holdfast.Errorf(holdfast.Invalid, "an aggregate is not known")
		}
	}
	return purpose(req.Who, req.Purpose)
}

func checkWindows(s holdfast.Span, every time.Duration) error {
	if every > 0 && (uint64(s.To)-uint64(s.From))/uint64(every) >= MaxWindows {
		return holdfast.Errorf(holdfast.TooLarge, "the time asked for has more than %d windows: ask for longer windows or a shorter time", MaxWindows)
	}
	return nil
}

// checkTypes refuses the sum of a text where one stream is asked for. In a wider
// selection a stream has the aggregates that its type has.
func (req Request) checkTypes(streams []candidate) error {
	for i := range streams {
		switch t := streams[i].Type; t {
		case holdfast.Number, holdfast.Integer, holdfast.Boolean:
		default:
			if req.Stream != "" && slices.ContainsFunc(req.Aggregates, Aggregate.ofNumbers) {
				return holdfast.Errorf(holdfast.Invalid, "the stream's values are of type %s: they have count, first and last only", t)
			}
		}
	}
	return nil
}

// allowed returns the streams of a selection that may be read, from the cursor's
// on, and counts the others of devices that are the reader's party's.
func (q *Query) allowed(ctx context.Context, j *judge, s Selection, at place) (out []candidate, withheld int, err error) {
	all, exists, err := q.resolve(ctx, j, s)
	if err != nil {
		return nil, 0, fmt.Errorf("find streams: %w", err)
	}
	for i := range all {
		if all[i].Decision, err = j.decide(ctx, &all[i], at.span); err != nil {
			return nil, 0, err
		}
	}
	may := slices.ContainsFunc(all, func(c candidate) bool { return c.Allow })
	switch {
	case !exists && j.who.Role == access.Administrator:
		return nil, 0, holdfast.Errorf(holdfast.NotFound, "there is no such party or device")
	case !may:
		return nil, 0, j.refusal(&all[0], s, at.span)
	case s.Stream != "" && all[0].StreamID.IsZero():
		return nil, 0, holdfast.Errorf(holdfast.NotFound, "the device has no stream of this name")
	}
	begun := at.stream.IsZero()
	for _, c := range all {
		begun = begun || c.StreamID == at.stream
		switch {
		case c.StreamID.IsZero():
		case !c.Allow:
			if c.Owner == j.who.Party { // how many another owner has is not the reader's to know
				withheld++
			}
		case begun:
			out = append(out, c)
		}
	}
	if !begun {
		return nil, 0, holdfast.Errorf(holdfast.Conflict, "the stream at which the cursor stands is gone: ask again from the start")
	}
	return out, withheld, nil
}

// run is one read under way.
type run struct {
	q       *Query
	j       *judge
	ctx     context.Context // of the caller of Read, for as long as it reads
	req     Request
	bind    []byte
	at      place
	streams []candidate
	result  *Result

	used    bool
	decided time.Time // when the decision was last made
	tick    uint
	given   int   // rows of this page
	last    place // behind the last row given
	open    []*opened
	closed  bool
	failure error // of closing
}

// step says how a stream ended.
type step int

const (
	onward  step = iota // its end
	full                // the page is full and there is more
	stopped             // the caller wants no more
)

// rows is Result.Rows.
func (r *run) rows(yield func(Row, error) bool) {
	if r.used || r.closed {
		yield(Row{}, holdfast.Errorf(holdfast.Conflict, "the rows of this read were given out already"))
		return
	}
	r.used = true
	defer r.finish()
	more, err := r.each(yield)
	if ferr := r.finish(); err == nil {
		err = ferr
	}
	if err != nil && more != stopped {
		yield(Row{}, err)
	}
}

func (r *run) each(yield func(Row, error) bool) (step, error) {
	scan := r.raw
	if r.req.Every > 0 {
		scan = r.windows
	}
	r.decided = time.Now()
	for i := range r.streams {
		c := &r.streams[i]
		span, skip := c.Span, uint64(0)
		if c.StreamID == r.at.stream {
			span.From, skip = max(span.From, r.at.time), r.at.given
		}
		if span.From > span.To {
			continue
		}
		how, err := scan(c, span, skip, yield)
		if err == nil && how == onward {
			continue
		}
		if r.result.cursor = r.req.Cursor; r.given > 0 {
			r.result.cursor = r.last.encode(r.bind)
		}
		return how, err
	}
	return onward, nil
}

// wholeStream stands in a place behind a stream's last window.
const wholeStream = math.MaxUint64

func (r *run) raw(c *candidate, span holdfast.Span, skip uint64, yield func(Row, error) bool) (step, error) {
	o, here := r.of(c), place{stream: c.StreamID, span: r.at.span, time: span.From, given: skip}
	for reading, err := range r.q.scan(r.ctx, c.Assignment, c.StreamID, span) {
		switch {
		case err != nil:
			return onward, err
		case skip > 0 && reading.Time == r.at.time:
			skip--
			continue
		case r.req.Limit > 0 && r.given == r.req.Limit:
			return full, nil
		}
		if err := r.still(c); err != nil {
			return onward, err
		}
		if reading.Time != here.time {
			here.time, here.given = reading.Time, 0
		}
		here.given++
		r.given++
		r.last = here
		o.amount.add(1, reading.Time, reading.Time)
		if !yield(Row{Source: &c.Source, Reading: reading}, nil) {
			return stopped, nil
		}
	}
	return onward, r.ctx.Err()
}

func (r *run) windows(c *candidate, span holdfast.Span, skip uint64, yield func(Row, error) bool) (step, error) {
	if skip == wholeStream {
		return onward, nil
	}
	var w Window
	o := r.of(c)
	emit := func() bool {
		r.given++
		r.last = place{stream: c.StreamID, span: r.at.span, time: w.last}
		if w.last < r.at.span.To {
			r.last.time++
		} else {
			r.last.time, r.last.given = r.at.span.To, wholeStream
		}
		o.amount.add(w.Count, w.firstAt, w.lastAt)
		return yield(Row{Source: &c.Source, Window: &w}, nil)
	}
	for reading, err := range r.q.scan(r.ctx, c.Assignment, c.StreamID, span) {
		if err != nil {
			return onward, err
		}
		if err := r.still(c); err != nil {
			return onward, err
		}
		if w.Count == 0 || reading.Time > w.last {
			if w.Count > 0 && !emit() {
				return stopped, nil
			}
			if r.req.Limit > 0 && r.given == r.req.Limit {
				return full, nil
			}
			w.start(c.Type, reading.Time, r.req.Every)
		}
		w.add(reading)
	}
	if err := r.ctx.Err(); err != nil {
		return onward, err
	}
	if w.Count > 0 && !emit() {
		return stopped, nil
	}
	return onward, nil
}

// lookRows is how many rows are given out without a look at the clock: few, since
// a reader may be as slow as he likes, and rows as long as a text can be.
const lookRows = 32

// still makes the decision again where the last one is old: a grant that ends
// ends the read.
func (r *run) still(c *candidate) error {
	if r.tick++; r.tick%lookRows != 0 || time.Since(r.decided) < r.q.recheck {
		return nil
	}
	r.decided = time.Now()
	r.j.refresh(r.ctx)
	d, err := r.j.decide(r.ctx, c, r.at.span)
	if err != nil {
		return err
	}
	if !d.Allow || d.Grant != c.Grant || !d.Span.Covers(c.Span) {
		return holdfast.Errorf(holdfast.Denied, "the right to read ended while readings were given out")
	}
	return nil
}
