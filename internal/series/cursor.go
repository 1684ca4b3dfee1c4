package series

import (
	"cmp"
	"container/heap"
	"context"
	"math"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// source gives readings of one stream in order of time: a chunk, opened when its
// first time is reached, or rows in memory.
type source struct {
	order arrivalOrder
	next  int64 // time of the next reading; of an unopened chunk, no later than its first

	chunk openChunk      // without a row: rows in memory
	cols  *chunk.Columns // nil: not opened

	rows []holdfast.Reading
	tail []tailRow     // in place of rows, with their positions
	at   []journal.Pos // of cols, where the cursor knows positions and the chunk has them
	i    int
}

func (c *source) reading() holdfast.Reading {
	switch {
	case c.cols != nil:
		return c.cols.Reading(c.i)
	case c.tail != nil:
		return c.tail[c.i].Reading
	}
	return c.rows[c.i]
}

// arrival returns the position of the next reading, 0 if it is from before all that
// are known, whether its chunk knows positions at all, and when it arrived.
func (c *source) arrival(r *holdfast.Reading) (pos journal.Pos, known bool, at int64) {
	switch {
	case c.tail != nil:
		return c.tail[c.i].pos, true, c.tail[c.i].at
	case c.i < len(c.at):
		pos, known = c.at[c.i], true
	}
	return pos, known, c.chunk.row.extent.arrived(r)
}

// step goes to the next reading; false at the end.
func (c *source) step() bool {
	c.i++
	switch {
	case c.cols != nil && c.i < c.cols.Len():
		c.next = c.cols.Times[c.i]
	case c.cols == nil && c.i < len(c.rows):
		c.next = c.rows[c.i].Time
	case c.cols == nil && c.i < len(c.tail):
		c.next = c.tail[c.i].Time
	default:
		return false
	}
	return true
}

// cursor merges sources: by time, then by arrival, without repeats.
type cursor struct {
	span    holdfast.Span
	since   int64 // what of a chunk arrived before is passed over
	begun   bool
	heap    sources
	seen    repeats
	columns []*chunk.Columns // of sources that ended

	positions bool        // wanted
	pos       journal.Pos // of the reading that is yielded, 0: before all that are known
	known     bool        // its chunk knows positions
	arrived   int64       // when it arrived
}

// arrivalOrder places sources of one stream by arrival: by roll; the buckets of one
// roll by time; the chunks of one cell as they were made.
type arrivalOrder struct {
	roll   int64
	bucket seal.Bucket
	part   int64
}

func (o arrivalOrder) before(q arrivalOrder) bool {
	return cmp.Or(cmp.Compare(o.roll, q.roll), cmp.Compare(o.bucket, q.bucket), cmp.Compare(o.part, q.part)) < 0
}

// The journal's tail comes after every chunk.
const tailRoll = math.MaxInt64

func (c *cursor) addChunk(o openChunk) {
	r := o.row
	if r.extent.times.Overlaps(c.span) {
		c.heap = append(c.heap, &source{order: arrivalOrder{r.roll(), r.Bucket, r.rolled}, next: max(r.extent.times.From, c.span.From), chunk: o})
	}
}

// addRows adds rows in order of time and arrival.
func (c *cursor) addRows(rows []holdfast.Reading) {
	i, _ := slices.BinarySearchFunc(rows, c.span.From, func(r holdfast.Reading, t int64) int { return cmp.Compare(r.Time, t) })
	if rows = rows[i:]; len(rows) > 0 {
		c.heap = append(c.heap, &source{order: arrivalOrder{roll: tailRoll}, next: rows[0].Time, rows: rows})
	}
}

// addTail is addRows for rows that have positions.
func (c *cursor) addTail(rows []tailRow) {
	i, _ := slices.BinarySearchFunc(rows, c.span.From, func(r tailRow, t int64) int { return cmp.Compare(r.Time, t) })
	if rows = rows[i:]; len(rows) > 0 {
		c.heap = append(c.heap, &source{order: arrivalOrder{roll: tailRoll}, next: rows[0].Time, tail: rows})
	}
}

// each calls yield for every reading in the span, until it returns false. Then each
// may be called again, for the rest.
func (c *cursor) each(ctx context.Context, u *unsealer, yield func(holdfast.Reading) bool) error {
	if !c.begun {
		heap.Init(&c.heap)
		c.begun = true
	}
	for len(c.heap) > 0 {
		top := c.heap[0]
		if top.chunk.row != nil && top.cols == nil { // not opened yet
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := c.open(ctx, u, top); err != nil {
				return err
			}
			if top.i == top.cols.Len() { // none of it is in the span
				c.pop()
			} else {
				heap.Fix(&c.heap, 0)
			}
			continue
		}
		if top.next > c.span.To {
			c.heap = c.heap[:0]
			return nil
		}
		if more := c.run(top, yield); !more {
			return nil
		}
	}
	return nil
}

// done reports that each has no more to give.
func (c *cursor) done() bool { return c.begun && len(c.heap) == 0 }

// run yields readings of the first source, as long as it is the first, and brings
// the heap in order again. Where no other source has the same time, a chunk's
// readings are compared with nothing: its own repeats were dropped when it was
// made.
func (c *cursor) run(top *source, yield func(holdfast.Reading) bool) bool {
	alone, until := c.others()
	edge := top.cols != nil && top.chunk.row.extent.straddles(c.since)
	for {
		r := top.reading()
		if c.positions {
			c.pos, c.known, c.arrived = top.arrival(&r)
		}
		ended := !top.step()
		repeat := edge && top.chunk.row.extent.arrived(&r) < c.since // expired: as good as not there
		if !repeat && (top.cols == nil || !alone && r.Time >= until || c.seen.at(r.Time)) {
			repeat = c.seen.is(r)
		}
		more := repeat || yield(r)
		switch {
		case ended:
			c.pop()
			return more
		case !more, top.next > c.span.To, !alone && top.next >= until:
			heap.Fix(&c.heap, 0)
			return more
		}
	}
}

// others returns the next time of the sources behind the first.
func (c *cursor) others() (alone bool, next int64) {
	switch len(c.heap) {
	case 1:
		return true, 0
	case 2:
		return false, c.heap[1].next
	}
	return false, min(c.heap[1].next, c.heap[2].next)
}

func (c *cursor) pop() {
	if top := heap.Pop(&c.heap).(*source); top.cols != nil {
		c.columns = append(c.columns, top.cols)
		top.cols = nil
	}
}

// open opens a source's chunk and goes to its first row in the span.
func (c *cursor) open(ctx context.Context, u *unsealer, src *source) error {
	cols := new(chunk.Columns)
	if n := len(c.columns); n > 0 {
		cols, c.columns = c.columns[n-1], c.columns[:n-1]
	}
	if err := u.columns(ctx, src.chunk, cols); err != nil {
		return err
	}
	if c.positions {
		var err error
		if src.at, err = u.arrivals(ctx, src.chunk); err != nil {
			return err
		}
	}
	src.cols = cols
	src.i, _ = slices.BinarySearch(cols.Times, c.span.From)
	if src.i < cols.Len() {
		src.next = cols.Times[src.i]
	}
	return nil
}

// sources is a heap by time, then by arrival. An unopened chunk stands at its first
// time or before, so it is opened in time.
type sources []*source

func (h sources) Len() int { return len(h) }

func (h sources) Less(i, j int) bool {
	a, b := h[i], h[j]
	if a.next != b.next {
		return a.next < b.next
	}
	return a.order.before(b.order)
}

func (h sources) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *sources) Push(x any)   { *h = append(*h, x.(*source)) }

func (h *sources) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return x
}
