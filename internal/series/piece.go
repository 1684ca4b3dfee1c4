package series

import (
	"cmp"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// piece is a stretch of a stream's time that no other piece overlaps: one chunk, or
// chunks and rows of the tail that must be merged.
type piece struct {
	chunks        []openChunk
	rows          []holdfast.Reading
	edge          bool // a part of its only chunk has expired: it is passed over row by row
	before, after bool // the piece before, or after, has readings in a minute of this one
}

// alone reports that all of the piece is one chunk, whose rows are in order,
// without repeats and not expired as they stand.
func (p *piece) alone() bool { return len(p.chunks) == 1 && len(p.rows) == 0 && !p.edge }

// minutes reports that the chunk's summary says all of each of its minutes.
func (p *piece) minutes() bool { return p.chunks[0].row.summary > 0 && !p.before && !p.after }

// times returns the first and the last time of the piece.
func (p *piece) times() holdfast.Span {
	if len(p.chunks) == 0 {
		return holdfast.Span{From: p.rows[0].Time, To: p.rows[len(p.rows)-1].Time}
	}
	s := p.chunks[0].row.extent.times
	for _, o := range p.chunks[1:] {
		s.To = max(s.To, o.row.extent.times.To)
	}
	return s
}

// cost is how many rows may have to be looked at, roughly.
func (p *piece) cost(minutes bool) int {
	if p.alone() {
		return p.chunks[0].row.cost(minutes && p.minutes())
	}
	n := len(p.rows)
	for i := range p.chunks {
		n += int(p.chunks[i].row.extent.rows)
	}
	return 4 * n // merging takes longer than decoding
}

func (r *chunkRow) cost(minutes bool) int {
	if minutes && r.summary > 0 {
		return int(r.extent.rows) / 8
	}
	return int(r.extent.rows)
}

// cut takes chunks and rows of one stream apart into pieces in order of time. Rows
// are in order; chunks are put in order. What arrived before since is not seen.
func cut(chunks []openChunk, rows []holdfast.Reading, since int64) []piece {
	first := func(o openChunk) int64 { return o.row.extent.times.From }
	if !slices.IsSortedFunc(chunks, func(a, b openChunk) int { return cmp.Compare(first(a), first(b)) }) {
		slices.SortFunc(chunks, func(a, b openChunk) int { return cmp.Compare(first(a), first(b)) })
	}
	until := func(t int64) int {
		n, _ := slices.BinarySearchFunc(rows, t, func(r holdfast.Reading, t int64) int { return cmp.Compare(r.Time, t) })
		return n
	}
	out := make([]piece, 0, len(chunks)+1)
	for len(chunks) > 0 {
		if n := until(first(chunks[0])); n > 0 {
			out = append(out, piece{rows: rows[:n]})
			rows = rows[n:]
		}
		last := chunks[0].row.extent.times.To
		n := 1
		for n < len(chunks) && first(chunks[n]) <= last {
			last = max(last, chunks[n].row.extent.times.To)
			n++
		}
		p := piece{chunks: chunks[:n], edge: n == 1 && chunks[0].row.extent.straddles(since)}
		among := len(rows)
		if among > 0 && rows[among-1].Time > last {
			among = until(last + 1)
		}
		p.rows, rows = rows[:among], rows[among:]
		out = append(out, p)
		chunks = chunks[n:]
	}
	if len(rows) > 0 {
		out = append(out, piece{rows: rows})
	}
	for i := 1; i < len(out); i++ {
		if p, q := &out[i-1], &out[i]; chunk.MinuteOf(p.times().To) == chunk.MinuteOf(q.times().From) {
			p.after, q.before = true, true
		}
	}
	return out
}
