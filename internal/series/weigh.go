package series

import (
	"context"
	"fmt"

	"github.com/holdfast-iot/holdfast"
)

// Weight is how much there is of a stream in a span or in a month of arrival.
type Weight struct {
	Rows        uint64
	Bytes       int64 // sealed, of what is in chunks
	First, Last int64 // times, if Rows > 0
	// Around is how many readings share a key with these and are not of them: as many
	// are sealed again if these go.
	Around uint64
	// About: of a chunk at an edge of the span it is estimated how much is in it.
	About bool
}

// Add adds another stream's.
func (w *Weight) Add(x Weight) {
	if x.Rows > 0 {
		if w.Rows == 0 {
			w.First, w.Last = x.First, x.Last
		}
		w.First, w.Last = min(w.First, x.First), max(w.Last, x.Last)
	}
	w.Rows, w.Bytes, w.Around, w.About = w.Rows+x.Rows, w.Bytes+x.Bytes, w.Around+x.Around, w.About || x.About
}

// Weigh measures a stream by what stands beside its chunks; no reading in one is
// opened. A month, YYYYMM, counts what is withheld; 0: any.
func (s *Series) Weigh(ctx context.Context, a holdfast.AssignmentID, stream holdfast.StreamID, span holdfast.Span, month int) (w Weight, err error) {
	if month != 0 {
		w, err = s.weighMonth(ctx, streamName{a, stream}, month)
	} else {
		w, err = s.weighSpan(ctx, streamName{a, stream}, span)
	}
	if err != nil {
		return Weight{}, fmt.Errorf("weigh stream %s: %w", stream, err)
	}
	return w, nil
}

func (s *Series) weighMonth(ctx context.Context, n streamName, month int) (w Weight, err error) {
	v, err := s.wholeSnapshot(ctx, n, holdfast.Always, 0)
	if err != nil {
		return w, err
	}
	defer v.leave()
	for _, o := range v.chunks {
		if o.row.Bucket.Month() == month {
			w.add(o.row, holdfast.Always)
		}
	}
	v.withheld = func(c Cell) bool { return c.Bucket.Month() != month }
	if err := v.readTail(ctx); err != nil {
		return w, err
	}
	for _, r := range v.tail {
		w.Add(Weight{Rows: 1, First: r.Time, Last: r.Time})
	}
	return w, nil
}

func (s *Series) weighSpan(ctx context.Context, n streamName, span holdfast.Span) (w Weight, err error) {
	v, err := s.snapshot(ctx, n, holdfast.Always, 0)
	if err != nil {
		return w, err
	}
	defer v.leave()
	if err := v.readTail(ctx); err != nil {
		return w, err
	}
	of := map[Cell]*Weight{}
	for _, o := range v.chunks {
		c := of[o.row.Cell]
		if c == nil {
			c = new(Weight)
			of[o.row.Cell] = c
		}
		c.add(o.row, span)
	}
	for _, c := range of {
		if c.Rows > 0 {
			w.Add(*c)
		}
	}
	for _, r := range v.tail {
		if span.Contains(r.Time) {
			w.Add(Weight{Rows: 1, First: r.Time, Last: r.Time})
		}
	}
	return w, nil
}

// add adds what of a chunk is in a span; the rest is around it.
func (w *Weight) add(r *chunkRow, span holdfast.Span) {
	e := r.extent
	switch {
	case span.Covers(e.times):
		w.Add(Weight{Rows: uint64(e.rows), Bytes: r.bytes(), First: e.times.From, Last: e.times.To})
	case !span.Overlaps(e.times):
		w.Around += uint64(e.rows)
	default:
		in := holdfast.Span{From: max(span.From, e.times.From), To: min(span.To, e.times.To)}
		share := (float64(in.To-in.From) + 1) / (float64(e.times.To-e.times.From) + 1)
		rows := max(1, uint64(share*float64(e.rows)))
		w.Add(Weight{Rows: rows, Bytes: int64(share * float64(r.bytes())), First: in.From, Last: in.To, Around: uint64(e.rows) - min(rows, uint64(e.rows)), About: true})
	}
}
