package series

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Arrivals returns what arrived of streams in positions [from, until), in order,
// without repeats of what was there before: what Watch gave, or would have given. It
// ends at next, which is less than until if there is more than about most rows; one
// record's are always all there. Streams of one assignment stand together in of; of
// a Want's span and minutes nothing is asked.
//
// It knows positions from Kept on.
func (s *Series) Arrivals(ctx context.Context, of []Want, from, until journal.Pos, most int) (out []*Arrived, next journal.Pos, err error) {
	g := gathering{s: s, from: from, until: until, most: max(1, most/2)}
	for len(of) > 0 && g.from < g.until {
		n := 1
		for n < len(of) && of[n].Assignment == of[0].Assignment {
			n++
		}
		if err := g.assignment(ctx, of[:n]); err != nil {
			return nil, 0, err
		}
		of = of[n:]
	}
	return g.records(), g.until, nil
}

// gathering is rows on their way into order of position.
type gathering struct {
	s           *Series
	from, until journal.Pos
	most        int
	rows        []gathered
}

type gathered struct {
	pos        journal.Pos
	at         int64
	assignment holdfast.AssignmentID
	row        Row
}

func (g *gathering) assignment(ctx context.Context, of []Want) (err error) {
	snaps := make([]*snapshot, 0, len(of))
	defer func() {
		for _, v := range snaps {
			v.leave()
		}
	}()
	for _, w := range of {
		v, err := g.s.snapshot(ctx, streamName{w.Assignment, w.Stream}, holdfast.Always, w.Since)
		if err != nil {
			return fmt.Errorf("read arrivals of stream %s: %w", w.Stream, err)
		}
		snaps = append(snaps, v)
	}
	// The first view has what all the others have up to until: that was observed
	// before the call.
	tails, err := snaps[0].tails(ctx, snaps)
	if err != nil {
		return fmt.Errorf("read arrivals: %w", err)
	}
	for i, v := range snaps {
		if err := g.stream(ctx, v, tails[i]); err != nil {
			return fmt.Errorf("read arrivals of stream %s: %w", v.name.stream, err)
		}
	}
	return nil
}

// tailRow is a reading of the tail and where it stands.
type tailRow struct {
	pos journal.Pos
	at  int64
	holdfast.Reading
}

// tails decodes the tail once for streams of one assignment, each in order of time.
func (v *snapshot) tails(ctx context.Context, of []*snapshot) ([][]tailRow, error) {
	out := make([][]tailRow, len(of))
	if v.view.bytes == 0 {
		return out, nil
	}
	index := make(map[holdfast.StreamID]int, len(of))
	for i, w := range of {
		index[w.name.stream] = i
	}
	o := newOpener(v.s, true)
	var r record
	for pos := range v.view.positions(v.from) {
		var err error
		if r.data, err = v.s.log.At(pos); err == nil {
			err = o.record(ctx, &r)
		}
		if errors.Is(err, vault.ErrRetired) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open journal record at position %d: %w", pos, err)
		}
		for i := range r.content.Rows {
			x := &r.content.Rows[i]
			if n, ok := index[x.Stream]; ok && pos >= of[n].from && of[n].shows(&r.header) {
				out[n] = append(out[n], tailRow{pos, r.header.Arrival, x.Reading})
			}
		}
	}
	for _, rows := range out {
		slices.SortStableFunc(rows, func(a, b tailRow) int { return cmp.Compare(a.Time, b.Time) })
	}
	return out, nil
}

// stream gathers what arrived of one stream in the window. What lies at other times
// than that is not opened.
func (g *gathering) stream(ctx context.Context, v *snapshot, tail []tailRow) error {
	span := holdfast.Span{From: math.MaxInt64, To: math.MinInt64}
	last := int64(math.MinInt64)
	for _, o := range v.chunks {
		times := o.row.extent.times
		last = max(last, times.To)
		if v.s.ordered(o.row, g.from) {
			span.From, span.To = min(span.From, times.From), max(span.To, times.To)
		}
	}
	for i := range tail {
		last = max(last, tail[i].Time)
		if pos := tail[i].pos; pos >= g.from && pos < g.until {
			span.From, span.To = min(span.From, tail[i].Time), max(span.To, tail[i].Time)
		}
	}
	defer v.s.live.knows(v.name, last)
	if span.From > span.To {
		return nil
	}
	c := v.ordered(span, tail)
	err := c.each(ctx, &unsealer{s: v.s}, func(r holdfast.Reading) bool {
		if c.pos >= g.from && c.pos < g.until {
			g.add(gathered{c.pos, c.arrived, v.name.assignment, Row{v.name.stream, r}})
		}
		return true
	})
	return cmp.Or(err, v.check())
}

// ordered is a cursor over all of the snapshot that knows positions.
func (v *snapshot) ordered(span holdfast.Span, tail []tailRow) *cursor {
	c := &cursor{span: span, since: v.since, positions: true}
	for _, o := range v.chunks {
		c.addChunk(o)
	}
	c.addTail(tail)
	return c
}

// add takes a row in. When there are many, those of the highest positions go: they
// come with the next call.
func (g *gathering) add(row gathered) {
	g.rows = append(g.rows, row)
	if len(g.rows) < 2*g.most {
		return
	}
	g.sort()
	limit := g.rows[g.most].pos
	if limit == g.rows[0].pos { // one record with more than that
		limit++
	}
	g.until = min(limit, g.until)
	n, _ := slices.BinarySearchFunc(g.rows, limit, func(a gathered, p journal.Pos) int { return cmp.Compare(a.pos, p) })
	clear(g.rows[n:])
	g.rows = g.rows[:n]
}

// sort is by position; one record's rows stay by stream and time.
func (g *gathering) sort() {
	slices.SortStableFunc(g.rows, func(a, b gathered) int {
		return cmp.Or(cmp.Compare(a.pos, b.pos), slices.Compare(a.row.Stream[:], b.row.Stream[:]), cmp.Compare(a.row.Time, b.row.Time))
	})
}

// Stored is a reading of what is stored, and when it arrived: no later than that.
type Stored struct {
	holdfast.Reading
	At int64
}

// Stored returns the first most readings of a stream in the span of w, in order of
// time and without repeats, that stand before a position; but for chunks of which all
// arrived before since.
func (s *Series) Stored(ctx context.Context, w Want, before journal.Pos, since int64, most int) (out []Stored, err error) {
	v, err := s.snapshot(ctx, streamName{w.Assignment, w.Stream}, w.Span, w.Since)
	if err == nil {
		defer v.leave()
		out, err = v.stored(ctx, before, since, most)
	}
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", w.Stream, err)
	}
	return out, nil
}

func (v *snapshot) stored(ctx context.Context, before journal.Pos, since int64, most int) (out []Stored, err error) {
	tails, err := v.tails(ctx, []*snapshot{v})
	if err != nil {
		return nil, err
	}
	v.chunks = slices.DeleteFunc(v.chunks, func(o openChunk) bool { return o.row.extent.arrival.To < since })
	c := v.ordered(v.span, slices.DeleteFunc(tails[0], func(r tailRow) bool { return r.at < since }))
	err = c.each(ctx, &unsealer{s: v.s}, func(r holdfast.Reading) bool {
		if c.pos < before || !c.known { // of a restored hub, whose journal is empty, nothing is before 0
			out = append(out, Stored{r, c.arrived})
		}
		return len(out) < most
	})
	return out, cmp.Or(err, v.check())
}

func (g *gathering) records() (out []*Arrived) {
	g.sort()
	for _, r := range g.rows {
		n := len(out)
		if n == 0 || out[n-1].Pos != r.pos {
			out = append(out, &Arrived{Assignment: r.assignment, Pos: r.pos, At: r.at})
			n++
		}
		out[n-1].Rows = append(out[n-1].Rows, r.row)
	}
	return out
}
