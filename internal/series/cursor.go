package series

import (
	"cmp"
	"container/heap"
	"context"
	"math"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// source gives readings of one stream in order of time: a chunk, opened when its
// first time is reached, or rows in memory.
type source struct {
	order arrivalOrder
	next  int64 // time of the next reading; of an unopened chunk, no later than its first

	row    *chunkRow // nil: rows in memory
	cipher *seal.Cipher
	extent extent
	cols   *chunk.Columns // nil: not opened

	rows []holdfast.Reading
	i    int
}

func (c *source) reading() holdfast.Reading {
	if c.cols != nil {
		return c.cols.Reading(c.i)
	}
	return c.rows[c.i]
}

// step goes to the next reading; false at the end.
func (c *source) step() bool {
	c.i++
	switch {
	case c.cols != nil && c.i < c.cols.Len():
		c.next = c.cols.Times[c.i]
	case c.cols == nil && c.i < len(c.rows):
		c.next = c.rows[c.i].Time
	default:
		return false
	}
	return true
}

// cursor merges sources: by time, then by arrival, without repeats.
type cursor struct {
	s       *Series
	span    holdfast.Span
	heap    sources
	seen    repeats
	box     []byte
	plain   []byte
	columns []*chunk.Columns // of sources that ended
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

func (c *cursor) addChunk(r *chunkRow, cipher *seal.Cipher, e extent) {
	if !e.times.Overlaps(c.span) {
		return
	}
	c.heap = append(c.heap, &source{order: arrivalOrder{r.roll(), r.Bucket, r.rolled}, next: max(e.times.From, c.span.From), row: r, cipher: cipher, extent: e})
}

// addRows adds rows in order of time and arrival.
func (c *cursor) addRows(rows []holdfast.Reading) {
	i, _ := slices.BinarySearchFunc(rows, c.span.From, func(r holdfast.Reading, t int64) int { return cmp.Compare(r.Time, t) })
	if rows = rows[i:]; len(rows) > 0 {
		c.heap = append(c.heap, &source{order: arrivalOrder{roll: tailRoll}, next: rows[0].Time, rows: rows})
	}
}

// each calls yield for every reading in the span, until it returns false.
func (c *cursor) each(ctx context.Context, yield func(holdfast.Reading) bool) error {
	heap.Init(&c.heap)
	for len(c.heap) > 0 {
		top := c.heap[0]
		if top.row != nil && top.cols == nil { // not opened yet
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := c.open(ctx, top); err != nil {
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
			return nil
		}
		if more := c.run(top, yield); !more {
			return nil
		}
	}
	return nil
}

// run yields readings of the first source and brings the heap in order again. While
// no other source comes up to its times, a chunk is read straight on: its own
// repeats were dropped when it was made.
func (c *cursor) run(top *source, yield func(holdfast.Reading) bool) bool {
	alone, until := c.others()
	moved := false
	for top.cols != nil && (alone || top.next < until) {
		if top.next > c.span.To {
			return false
		}
		r := top.cols.Reading(top.i)
		if !(c.seen.at(r.Time) && c.seen.is(r)) && !yield(r) {
			return false
		}
		if !top.step() {
			c.pop()
			return true
		}
		moved = true
	}
	if moved {
		heap.Fix(&c.heap, 0)
		return true
	}
	r := top.reading()
	if top.step() {
		heap.Fix(&c.heap, 0)
	} else {
		c.pop()
	}
	return c.seen.is(r) || yield(r)
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

// open reads, opens and decodes a chunk and goes to its first row in the span.
func (c *cursor) open(ctx context.Context, src *source) error {
	r := src.row
	if cap(c.box) < r.size {
		c.box = make([]byte, r.size)
	}
	c.box = c.box[:r.size]
	if err := c.s.blobs.ReadAt(ctx, r.blob, c.box, r.at); err != nil {
		return c.s.unreadable(ctx, r, err)
	}
	plain, err := src.cipher.Open(c.plain[:0], c.box, r.chunkPlace(src.extent.rows))
	if err != nil {
		return c.s.unreadable(ctx, r, err)
	}
	c.plain = plain
	cols := new(chunk.Columns)
	if n := len(c.columns); n > 0 {
		cols, c.columns = c.columns[n-1], c.columns[:n-1]
	}
	if err := chunk.Decode(plain, cols); err != nil {
		return r.damaged(err)
	}
	if cols.Len() != int(src.extent.rows) {
		return r.damaged(holdfast.Errorf(holdfast.Invalid, "it has another number of rows than its extent says"))
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
