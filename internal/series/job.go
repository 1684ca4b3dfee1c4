package series

import (
	"context"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// part is pieces of one stream within a job.
type part struct {
	want   int
	snap   *snapshot
	cut    bool // pieces are there
	pieces []piece
	last   bool // of the stream
	cursor *cursor
}

// estimate is the cost of a stream that is not planned yet.
func (p *part) estimate(minutes bool) int {
	cost := 256 + int(p.snap.view.bytes/8)
	for i := range p.snap.chunks {
		cost += p.snap.chunks[i].row.cost(minutes)
	}
	return cost
}

// plan reads the tail and cuts the stream into pieces.
func (p *part) plan(ctx context.Context) error {
	if err := p.snap.readTail(ctx); err != nil {
		return err
	}
	p.pieces, p.cut = cut(p.snap.chunks, p.snap.tail, p.snap.since), true
	return nil
}

// job is what one goroutine decodes. Who waits for done owns it then.
type job struct {
	r     *reading
	parts []part // what is left to do
	ended []*snapshot
	out   []*Batch
	bytes int // of out
	err   error
	done  chan struct{} // nil: nobody runs it
}

func (j *job) take(p part) { j.parts = append(j.parts, p) }

// leave lets go of the snapshots. The job does not run.
func (j *job) leave() {
	for _, v := range j.ended {
		v.leave()
	}
	for i := range j.parts {
		j.parts[i].snap.leave()
	}
	for _, b := range j.out {
		if b != nil {
			j.r.recycle(b)
		}
	}
	j.ended, j.parts, j.out = nil, nil, nil
}

// run fills out. It is to be run again, when out was given away, while there are
// parts.
func (j *job) run(ctx context.Context) {
	clear(j.out)
	j.out, j.bytes = j.out[:0], 0
	u := j.r.tool()
	defer j.r.putTool(u)
	for len(j.parts) > 0 && j.bytes < jobBytes {
		p := &j.parts[0]
		if err := j.part(ctx, u, p); err != nil {
			j.err = j.r.failed(p.want, err)
			return
		}
		if p.cut && len(p.pieces) == 0 {
			if p.last {
				j.ended = append(j.ended, p.snap)
			}
			j.parts = j.parts[1:]
		}
	}
}

func (j *job) part(ctx context.Context, u *unsealer, p *part) error {
	if !p.cut {
		if err := p.plan(ctx); err != nil {
			return err
		}
	}
	for len(p.pieces) > 0 && j.bytes < jobBytes {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece := &p.pieces[0]
		if piece.alone() {
			if err := j.chunk(ctx, u, p, piece); err != nil {
				return err
			}
		} else if more, err := j.merge(ctx, u, p, piece); err != nil {
			return err
		} else if more {
			continue
		}
		p.pieces = p.pieces[1:]
	}
	return nil
}

// chunk gives a chunk that stands alone: by the minute, if that will do, else its
// rows as they are.
func (j *job) chunk(ctx context.Context, u *unsealer, p *part, piece *piece) error {
	o := piece.chunks[0]
	if j.r.wants[p.want].Minutes && piece.minutes() {
		b := &Batch{Want: p.want, snap: p.snap}
		if err := j.minutes(ctx, u, b, o); err != nil {
			return err
		}
		var whole bool
		if b.From, b.To, whole = wholeMinutes(b.Minutes, p.snap.span); whole && b.From < b.To {
			j.out = append(j.out, b)
			j.bytes += b.Minutes.Size()
			return nil
		}
		if j.r.recycle(b); whole {
			return nil
		}
	}
	b := &Batch{Want: p.want, snap: p.snap}
	if err := j.columns(ctx, u, b, o); err != nil {
		return err
	}
	j.give(b)
	return nil
}

func (j *job) minutes(ctx context.Context, u *unsealer, b *Batch, o openChunk) error {
	key := cacheKey{o.row.id, true}
	if b.kept = j.r.s.cache.get(key); b.kept != nil {
		b.Minutes = b.kept.minutes
		return nil
	}
	b.Minutes = last(j.r, &j.r.spare)
	if err := u.minutes(ctx, o, b.Minutes); err != nil {
		return err
	}
	if x := (&cached{key: key, name: o.row.stream(), minutes: b.Minutes}); j.r.s.cache.put(x, b.snap.cache) {
		b.kept = x
	}
	return nil
}

func (j *job) columns(ctx context.Context, u *unsealer, b *Batch, o openChunk) error {
	key := cacheKey{o.row.id, false}
	if b.kept = j.r.s.cache.get(key); b.kept != nil {
		b.Columns = b.kept.columns
		return nil
	}
	b.Columns = last(j.r, &j.r.idle)
	if err := u.columns(ctx, o, b.Columns); err != nil {
		return err
	}
	if x := (&cached{key: key, name: o.row.stream(), columns: b.Columns}); j.r.s.cache.put(x, b.snap.cache) {
		b.kept = x
	}
	return nil
}

// wholeMinutes returns the minutes that have readings in span; false if one has
// others too.
func wholeMinutes(m *chunk.Minutes, span holdfast.Span) (from, to int, whole bool) {
	to = m.Len()
	for from < to && m.Times(from).To < span.From {
		from++
	}
	for to > from && m.Times(to-1).From > span.To {
		to--
	}
	return from, to, from == to || m.Times(from).From >= span.From && m.Times(to-1).To <= span.To
}

// merge gives some of a piece that must be merged, and reports whether there is
// more.
func (j *job) merge(ctx context.Context, u *unsealer, p *part, piece *piece) (more bool, err error) {
	if p.cursor == nil {
		p.cursor = &cursor{span: p.snap.span, since: p.snap.since}
		for _, o := range piece.chunks {
			p.cursor.addChunk(o)
		}
		p.cursor.addRows(piece.rows)
	}
	cols := last(j.r, &j.r.idle)
	cols.Reset(0)
	content := 0
	var other *holdfast.Reading // of another type: it begins the next batch
	add := func(x holdfast.Reading) bool {
		if cols.Len() == 0 {
			cols.Reset(x.Value.Type())
		}
		if x.Value.Type() != cols.Type {
			other = &x
			return false
		}
		content += x.Value.Size()
		err = cols.Append(x)
		return err == nil && cols.Len() < chunk.MaxRows && content < chunk.MaxBytes
	}
	for {
		if failed := p.cursor.each(ctx, u, add); failed != nil {
			return false, failed
		}
		if err != nil {
			return false, err
		}
		j.give(&Batch{Want: p.want, Columns: cols, snap: p.snap})
		if other == nil {
			break
		}
		cols, content = last(j.r, &j.r.idle), 0
		cols.Reset(0)
		x := *other
		other = nil
		if !add(x) {
			j.give(&Batch{Want: p.want, Columns: cols, snap: p.snap})
			break
		}
	}
	if p.cursor.done() {
		p.cursor = nil
		return false, nil
	}
	return true, nil
}

// give appends what of b's columns is in the span.
func (j *job) give(b *Batch) {
	cols, span := b.Columns, b.snap.span
	b.From, _ = slices.BinarySearch(cols.Times, span.From)
	b.To = cols.Len()
	if b.To > 0 && cols.Times[b.To-1] > span.To {
		b.To, _ = slices.BinarySearch(cols.Times, span.To+1)
	}
	if b.From >= b.To {
		j.r.recycle(b)
		return
	}
	j.out = append(j.out, b)
	j.bytes += cols.Size()
}
