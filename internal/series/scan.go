package series

import (
	"context"
	"fmt"
	"iter"
	"math"

	"github.com/holdfast-iot/holdfast"
)

// Scan yields the readings of a stream in span: by time, equal times in order of
// arrival, repeats once. It sees one moment: all that was observed before the
// call, and nothing later. It ends after the first error; a damaged chunk's
// names segment and offset.
func (s *Series) Scan(ctx context.Context, a holdfast.AssignmentID, stream holdfast.StreamID, span holdfast.Span) iter.Seq2[holdfast.Reading, error] {
	return func(yield func(holdfast.Reading, error) bool) {
		for b, err := range s.Read(ctx, []Want{{Assignment: a, Stream: stream, Span: span}}) {
			if err != nil {
				yield(holdfast.Reading{}, err)
				return
			}
			for i := b.From; i < b.To; i++ {
				if err := b.Overtaken(); err != nil {
					yield(holdfast.Reading{}, fmt.Errorf("scan stream %s: %w", stream, err))
					return
				}
				if !yield(b.Columns.Reading(i), nil) {
					return
				}
			}
		}
	}
}

// Extent is what a stream holds, without opening its chunks. Rows counts repeats
// across chunks as often as they were kept.
type Extent struct {
	Rows        uint64
	First, Last int64 // times, if Rows > 0
	Arrived     int64 // none arrived later, ns since 1970; math.MaxInt64: some are not rolled yet
}

// Extent returns how much there is of a stream that arrived since then; 0: all. A
// chunk of which only a part did is opened.
func (s *Series) Extent(ctx context.Context, a holdfast.AssignmentID, stream holdfast.StreamID, since int64) (x Extent, err error) {
	snap, err := s.snapshot(ctx, streamName{a, stream}, holdfast.Always, since)
	if err == nil {
		defer snap.leave()
		if err = snap.readTail(ctx); err == nil {
			x, err = snap.measure(ctx)
		}
	}
	if err != nil {
		return Extent{}, fmt.Errorf("measure stream %s: %w", stream, err)
	}
	return x, nil
}

// measure is extent without what has expired.
func (v *snapshot) measure(ctx context.Context) (x Extent, err error) {
	whole := snapshot{tail: v.tail}
	c := cursor{span: holdfast.Always, since: v.since}
	for _, o := range v.chunks {
		if o.row.extent.straddles(v.since) {
			c.addChunk(o)
		} else {
			whole.chunks = append(whole.chunks, o)
		}
	}
	x = whole.extent()
	err = c.each(ctx, &unsealer{s: v.s}, func(r holdfast.Reading) bool {
		x.add(1, holdfast.Span{From: r.Time, To: r.Time})
		return true
	})
	for _, o := range v.chunks {
		x.Arrived = max(x.Arrived, o.row.extent.arrival.To)
	}
	if len(v.tail) > 0 {
		x.Arrived = math.MaxInt64
	}
	return x, err
}

func (v *snapshot) extent() (x Extent) {
	for _, o := range v.chunks {
		x.add(uint64(o.row.extent.rows), o.row.extent.times)
	}
	if n := len(v.tail); n > 0 {
		x.add(uint64(n), holdfast.Span{From: v.tail[0].Time, To: v.tail[n-1].Time})
	}
	return x
}

func (x *Extent) add(rows uint64, times holdfast.Span) {
	if x.Rows == 0 {
		x.First, x.Last = times.From, times.To
	}
	x.Rows += rows
	x.First, x.Last = min(x.First, times.From), max(x.Last, times.To)
}

// Latest returns the reading with the latest time, of equal times the last to
// arrive; false if there is none.
func (s *Series) Latest(ctx context.Context, a holdfast.AssignmentID, stream holdfast.StreamID) (latest holdfast.Reading, ok bool, err error) {
	fail := func(err error) (holdfast.Reading, bool, error) {
		return holdfast.Reading{}, false, fmt.Errorf("find latest reading of stream %s: %w", stream, err)
	}
	snap, err := s.snapshot(ctx, streamName{a, stream}, holdfast.Always, 0)
	if err != nil {
		return fail(err)
	}
	defer snap.leave()
	if err := snap.readTail(ctx); err != nil {
		return fail(err)
	}
	x := snap.extent()
	if x.Rows == 0 {
		return latest, false, nil
	}
	snap.span = holdfast.Span{From: x.Last, To: x.Last}
	err = snap.cursor().each(ctx, &unsealer{s: s}, func(r holdfast.Reading) bool {
		latest, ok = r, true
		return true
	})
	if err != nil {
		return fail(err)
	}
	return latest, ok, nil
}
