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

// rowsOf is rows [from, to) of the columns, all of the stream of one task.
type rowsOf struct {
	task     int
	columns  *chunk.Columns
	from, to int
	// overtaken fails once an erasure has taken what the rows hold.
	overtaken func() error
}

// scan gives the readings of streams by columns, without what is being erased: the
// streams in their order, each in order of time. What it gives is valid until the
// next.
func (q *Query) scan(ctx context.Context, tasks []task) iter.Seq2[rowsOf, error] {
	return func(yield func(rowsOf, error) bool) {
		wants := make([]series.Want, len(tasks))
		for i, t := range tasks {
			wants[i] = series.Want{Assignment: t.c.Assignment, Stream: t.c.StreamID, Span: t.span}
		}
		var rest chunk.Columns
		for b, err := range q.series.Read(ctx, wants) {
			if err != nil {
				yield(rowsOf{}, err)
				return
			}
			rows := rowsOf{b.Want, b.Columns, b.From, b.To, b.Overtaken}
			if c := tasks[b.Want].c; q.erasures.Touches(c.Assignment, c.StreamID, rows.times()) {
				if q.unhidden(c, rows, &rest); rest.Len() == 0 {
					continue
				}
				rows.columns, rows.from, rows.to = &rest, 0, rest.Len()
			}
			if !yield(rows, nil) {
				return
			}
		}
	}
}

func (r *rowsOf) times() holdfast.Span {
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
