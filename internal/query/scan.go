package query

import (
	"context"
	"iter"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// task is one stream to read.
type task struct {
	c      *candidate
	span   holdfast.Span
	before *before // windows: the last reading before the span, and at the end the last in it; may be nil
}

// rowsOf is rows [from, to) of the columns, all of the stream of one task; or, if
// minutes is not nil, what is stored of the minutes [from, to) of it.
type rowsOf struct {
	task     int
	columns  *chunk.Columns
	minutes  *chunk.Minutes
	from, to int
	// overtaken fails once an erasure has taken what the rows hold.
	overtaken func() error
}

// scan gives the readings of streams by columns, without what is being erased and as
// coarse as they may be seen: the streams in their order, each in order of time. If p is not nil, minutes may come
// as they are stored, each whole in one window of p. What scan gives is valid until
// the next.
func (q *Query) scan(ctx context.Context, cores int, tasks []task, p *plan) iter.Seq2[rowsOf, error] {
	return func(yield func(rowsOf, error) bool) {
		wants := make([]series.Want, len(tasks))
		for i, t := range tasks {
			wants[i] = series.Want{Assignment: t.c.Assignment, Stream: t.c.StreamID, Span: t.span, Since: t.c.since, Minutes: p.wholeMinutes(t.span) && !t.c.coarse.values()}
		}
		var rest, seen chunk.Columns
		for b, err := range q.series.ReadOn(ctx, cores, wants) {
			if err != nil {
				yield(rowsOf{}, err)
				return
			}
			rows := rowsOf{b.Want, b.Columns, b.Minutes, b.From, b.To, b.Overtaken}
			c := tasks[b.Want].c
			touched := q.erasures.Touches(c.Assignment, c.StreamID, rows.times())
			if b.Minutes != nil && (touched || b.Minutes.Type != c.Type) {
				// The rows themselves, at a later moment: they were stored long ago.
				t := task{c: c, span: rows.times()}
				for again, err := range q.scan(ctx, cores, []task{t}, nil) {
					again.task = b.Want
					if !yield(again, err) || err != nil {
						return
					}
				}
				continue
			}
			if touched {
				if q.unhidden(c, rows, &rest); rest.Len() == 0 {
					continue
				}
				rows.columns, rows.from, rows.to = &rest, 0, rest.Len()
			}
			if c.coarse != nil && rows.minutes == nil {
				c.coarse.take(&seen, rows.columns, rows.from, rows.to)
				rows.columns, rows.from, rows.to = &seen, 0, seen.Len()
			}
			if !yield(rows, nil) {
				return
			}
		}
	}
}

// wholeMinutes reports whether what is stored of minutes says all that p asks of a
// span: every window begins and ends with a minute. Clocks have been whole minutes
// apart since 1972, when Liberia's were the last to be set so.
func (p *plan) wholeMinutes(s holdfast.Span) bool {
	const since = 3 * 365 * 86400e9
	return p != nil && p.stored() && (int64(p.ruler.every)%chunk.Minute == 0 && (p.ruler.every > 0 || s.From >= since))
}

func (r *rowsOf) times() holdfast.Span {
	if r.minutes != nil {
		return holdfast.Span{From: r.minutes.Times(r.from).From, To: r.minutes.Times(r.to - 1).To}
	}
	return holdfast.Span{From: r.columns.Times[r.from], To: r.columns.Times[r.to-1]}
}

// unhidden puts into rest what no erasure covers.
func (q *Query) unhidden(c *candidate, rows rowsOf, rest *chunk.Columns) {
	rest.Reset(rows.columns.Type)
	for i := rows.from; i < rows.to; i++ {
		if !q.erasures.Hides(c.Assignment, c.StreamID, rows.columns.Times[i]) {
			rest.Append(rows.columns.Reading(i)) // of its type
		}
	}
}

// hidden reports whether an erasure asked for since mark covers any of a span of
// what was read of a stream.
func (q *Query) hidden(mark uint64, c *candidate, span holdfast.Span) bool {
	return q.erasures.Begun() != mark && q.erasures.BegunSince(mark, c.Assignment, c.StreamID, span)
}

// erasedMeanwhile is for what was added up already.
func erasedMeanwhile() error {
	return holdfast.Errorf(holdfast.Unavailable, "readings were erased while they were read, ask again")
}
