package query

import (
	"cmp"
	"context"
	"math"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// run is one read under way.
type run struct {
	q       *Query
	j       *judge          // of whoever ranges over the rows
	first   judge           // as it was before the rows
	ctx     context.Context // of the caller of Read, for as long as it reads
	req     Request
	plan    *plan // of windows
	bind    []byte
	at      place
	began   int64
	mark    uint64 // the last erasure before the read
	streams []candidate
	groups  []*group
	result  *Result
	release func() // gives back what the read took of the budget
	memory  int64  // of that, for the windows of a group
	cores   int    // that the read's chunks are decoded on
	read    uint64 // readings that windows were made of

	used    bool
	decided time.Time // when the decision was last made
	tick    uint
	given   int   // rows of this page
	last    place // behind the last row given
	open    []*opened
	openOf  map[under]*opened
	closed  bool
	failure error // of closing
}

// prepare makes ready what does not read yet, and takes what the read needs of the
// budget.
func (r *run) prepare() (err error) {
	if r.req.windows() {
		r.plan = r.req.plan()
		if r.req.crowd != nil {
			r.plan.needs |= sums // what is weighed and remembered
		}
	}
	if r.req.By != 0 {
		if r.groups, err = r.group(); err != nil {
			return err
		}
		for _, g := range r.groups {
			r.result.Sources = append(r.result.Sources, &g.source)
		}
	} else {
		for i := range r.streams {
			r.result.Sources = append(r.result.Sources, r.streams[i].face())
		}
	}
	if err := r.checkFill(); err != nil {
		return err
	}
	r.release, err = r.q.purse.take(r.needs())
	return err
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
	r.decided = time.Now()
	var how step
	var err error
	switch {
	case r.req.crowd != nil:
		how, err = r.ofCrowd(yield)
	case r.req.By != 0:
		how, err = r.ofGroups(yield)
	case r.req.windows():
		how, err = r.ofStreams(yield)
	default:
		how, err = r.raw(yield)
	}
	if (how != onward || err != nil) && r.req.crowd == nil {
		if r.result.cursor = r.req.Cursor; r.given > 0 {
			r.result.cursor = r.last.encode(r.bind)
		}
	}
	if ferr := r.finish(); err == nil {
		err = ferr
	}
	if err != nil && how != stopped {
		yield(Row{}, err)
	}
}

// wholeStream stands in a place behind a stream's last window.
const wholeStream = math.MaxUint64

// raw gives the readings of the streams, one stream after the other.
func (r *run) raw(yield func(Row, error) bool) (step, error) {
	var streams []task
	for i := range r.streams {
		t := task{c: &r.streams[i], span: r.streams[i].Span}
		if t.c.key() == r.at.stream {
			t.span.From = max(t.span.From, r.at.time)
		}
		if t.span.From <= t.span.To {
			streams = append(streams, t)
		}
	}
	mark := r.q.erasures.Begun()
	here, skip := place{span: r.at.span}, uint64(0)
	of, last, face := (*opened)(nil), -1, (*Source)(nil)
	for rows, err := range r.q.scan(r.ctx, r.cores, streams, nil) {
		if err != nil {
			return onward, err
		}
		c := streams[rows.task].c
		if rows.task != last {
			last, of, face = rows.task, r.of(c), c.face()
			here.stream, here.time, here.given, skip = c.key(), streams[last].span.From, 0, 0
			if c.key() == r.at.stream {
				here.given, skip = r.at.given, r.at.given
			}
		}
		for i := rows.from; i < rows.to; i++ {
			t := rows.columns.Times[i]
			switch {
			case r.q.hidden(mark, c, holdfast.Span{From: t, To: t}):
				continue
			case skip > 0 && t == r.at.time:
				skip--
				continue
			case r.req.Limit > 0 && r.given == r.req.Limit:
				return full, nil
			}
			if err := cmp.Or(rows.overtaken(), r.still(c)); err != nil {
				return onward, err
			}
			if t != here.time {
				here.time, here.given = t, 0
			}
			here.given++
			here.back = here.time
			r.given++
			r.last = here
			of.amount.add(1, t, t)
			if !yield(Row{Source: face, Reading: rows.columns.Reading(i)}, nil) {
				return stopped, nil
			}
		}
		if err := r.ctx.Err(); err != nil {
			return onward, err
		}
	}
	return onward, r.ctx.Err()
}

// lookRows is how many rows are given out without a look at the clock: few, since
// a reader may be as slow as he likes, and rows as long as a text can be.
const lookRows = 32

// still makes the decision again where the last one is old: a grant that ends
// ends the read.
func (r *run) still(c *candidate) error {
	if !r.old() {
		return nil
	}
	if err := r.j.refresh(r.ctx); err != nil {
		return err
	}
	return r.again(r.ctx, r.j, c)
}

// old reports whether the last decision is too old to give out rows on.
func (r *run) old() bool {
	if r.tick++; r.tick%lookRows != 0 || time.Since(r.decided) < r.q.recheck {
		return false
	}
	r.decided = time.Now()
	return true
}

// again makes the decision on one stream again.
func (r *run) again(ctx context.Context, j *judge, c *candidate) error {
	d, err := j.decide(ctx, c, r.at.span)
	if err != nil {
		return err
	}
	if !d.Allow || d.Grant != c.Grant || d.Permission != c.Permission || !d.Span.Covers(c.Span) || !sameObligations(&d.Obligations, &c.Obligations) {
		return holdfast.Errorf(holdfast.Denied, "the right to read ended while readings were given out")
	}
	return r.shortened(c)
}

// stands is Result.Still: with a judge of its own, since the rows' own is busy.
func (r *run) stands(ctx context.Context) error {
	j := r.first
	if err := j.refresh(ctx); err != nil {
		return err
	}
	for i := range r.streams {
		if err := r.again(ctx, &j, &r.streams[i]); err != nil {
			return err
		}
	}
	return nil
}

// unerased is Result.Unerased.
func (r *run) unerased() error {
	for i := range r.streams {
		if c := &r.streams[i]; r.q.hidden(r.mark, c, c.Span) {
			return erasedMeanwhile()
		}
	}
	return nil
}
