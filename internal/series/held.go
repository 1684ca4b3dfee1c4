package series

import (
	"context"
	"database/sql"
	"fmt"
	"iter"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// Held is what a catalog names of one segment: the bytes of it that mean
// something. The rest has died and is zero, or will be.
type Held struct {
	Blob   holdfast.BlobID
	Bytes  int64   // of the segment
	Ranges []Range // in order, without overlap; the first is the segment's magic
}

// Range is bytes of a segment.
type Range struct{ At, Size int64 }

// Kept is how many bytes the ranges have.
func (h *Held) Kept() (n int64) {
	for _, r := range h.Ranges {
		n += r.Size
	}
	return n
}

// mostRanges bounds what a catalog that was tampered with can say of a segment, which
// has 64 MiB at most, and between two ranges a box that died.
const mostRanges = 1 << 20

// HeldIn yields the segments that a catalog names, in order of their ids: what a
// copy of the catalog needs to be whole. tx may be of a copy.
func HeldIn(ctx context.Context, tx *sql.Tx) iter.Seq2[*Held, error] {
	return func(yield func(*Held, error) bool) {
		rows, err := tx.QueryContext(ctx, `SELECT s.blob, s.bytes, c.at, c.size + c.summary + c.arrivals FROM chunk c JOIN segment s ON s.id = c.segment ORDER BY s.blob, c.at`)
		if err != nil {
			yield(nil, fmt.Errorf("read segments: %w", err))
			return
		}
		defer rows.Close()
		var now *Held
		for rows.Next() {
			var h Held
			var r Range
			if err := rows.Scan(&h.Blob, &h.Bytes, &r.At, &r.Size); err != nil {
				yield(nil, fmt.Errorf("read segments: %w", err))
				return
			}
			if now == nil || now.Blob != h.Blob {
				if now != nil && !yield(now, nil) {
					return
				}
				h.Ranges = []Range{{0, int64(len(segmentMagic))}}
				now = &h
			}
			last := &now.Ranges[len(now.Ranges)-1]
			if r.Size <= 0 || r.Size > now.Bytes || r.At < last.At+last.Size || r.At > now.Bytes-r.Size || len(now.Ranges) == mostRanges {
				yield(nil, holdfast.Errorf(holdfast.Internal, "the catalog's rows of segment %s overlap", h.Blob))
				return
			}
			if r.At == last.At+last.Size {
				last.Size += r.Size
			} else {
				now.Ranges = append(now.Ranges, r)
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, fmt.Errorf("read segments: %w", err))
			return
		}
		if now != nil {
			yield(now, nil)
		}
	}
}

// Pin keeps what a copy of the catalog that is made from now on names from being
// zeroed or deleted by rolls and merges, until it is released. An erasure does not
// wait for it.
func (s *Series) Pin() (release func()) { return s.readers.enter() }

// Named reports whether the catalog still has anything living in a segment: one of
// which it has nothing was erased, also if its row is there for a moment longer.
func (s *Series) Named(ctx context.Context, id holdfast.BlobID) (is bool, err error) {
	found, err := s.segments(ctx, `blob = $1 AND live > 0`, id)
	return len(found) > 0, err
}

// Tally is how much there is of a stream.
type Tally struct {
	Assignment holdfast.AssignmentID
	Stream     holdfast.StreamID
	Chunks     int
	Readings   int64 // repeats that lie in several chunks count twice
	Lost       int   // chunks under a key that is not in force
}

// TallyIn counts, stream by stream in the order of the table, what a catalog names,
// which may be a copy of this one's. With open each chunk is read and decoded, not
// only its extent; one that can't be ends it.
func (s *Series) TallyIn(ctx context.Context, tx *sql.Tx, open bool) iter.Seq2[Tally, error] {
	return func(yield func(Tally, error) bool) {
		var now Tally
		var cell []chunkRow
		u := &unsealer{s: s}
		flush := func() error {
			if len(cell) == 0 {
				return nil
			}
			err := s.tally(ctx, cell, open, u, &now)
			cell = cell[:0]
			return err
		}
		for r, err := range chunkRows(ctx, tx, `TRUE`) {
			if err == nil && len(cell) > 0 && cell[0].Cell != r.Cell {
				err = flush()
			}
			if err != nil {
				yield(now, fmt.Errorf("count readings: %w", err))
				return
			}
			if now.Assignment != r.Assignment || now.Stream != r.Stream {
				if now.Chunks > 0 && !yield(now, nil) {
					return
				}
				now = Tally{Assignment: r.Assignment, Stream: r.Stream}
			}
			cell = append(cell, r)
		}
		if err := flush(); err != nil {
			yield(now, fmt.Errorf("count readings: %w", err))
			return
		}
		if now.Chunks > 0 {
			yield(now, nil)
		}
	}
}

// tally adds a cell's chunks to t.
func (s *Series) tally(ctx context.Context, cell []chunkRow, open bool, u *unsealer, t *Tally) error {
	c, err := s.cellCipher(ctx, cell[0].Cell)
	if err != nil {
		return err
	}
	var columns chunk.Columns
	defer wipeColumns(&columns)
	for i := range cell {
		r := &cell[i]
		t.Chunks++
		if c == nil || r.key != c.ID() {
			t.Lost++
			continue
		}
		e, err := r.openExtent(c)
		if err != nil {
			return err
		}
		if open {
			r.extent, r.opened = e, true
			columns.Reset(0)
			if err := u.columns(ctx, openChunk{r, c}, &columns); err != nil {
				return err
			}
		}
		t.Readings += int64(e.rows)
	}
	return nil
}
