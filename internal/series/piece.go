package series

import (
	"cmp"
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// piece is a stretch of a stream's time that no other piece overlaps: one chunk, or
// chunks and rows of the tail that must be merged.
type piece struct {
	chunks []openChunk
	rows   []holdfast.Reading
}

// alone reports that all of the piece is one chunk, whose rows are in order and
// without repeats as they stand.
func (p *piece) alone() bool { return len(p.chunks) == 1 && len(p.rows) == 0 }

// cost is how many rows may have to be looked at, roughly.
func (p *piece) cost() int {
	n := len(p.rows)
	for i := range p.chunks {
		n += int(p.chunks[i].row.extent.rows)
	}
	if !p.alone() {
		n *= 4 // merging takes longer than decoding
	}
	return n
}

// cut takes chunks and rows of one stream apart into pieces in order of time. Rows
// are in order; chunks are put in order.
func cut(chunks []openChunk, rows []holdfast.Reading) []piece {
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
		p := piece{chunks: chunks[:n]}
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
	return out
}
