package series

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// Merge makes few full chunks of the many small ones that rolls leave in a cell,
// drops repeats among them, and lays an assignment's chunks together in new
// segments. Scans that began before go on reading the old ones.
//
// The full chunks that a cell begins with, in order of arrival, stay as they are:
// all after them are merged and take the place of the last. So equal times keep the
// order of arrival, and a day's merge writes a day, not the month. A repeat of a
// reading in a full chunk is left, for scans to drop.
//
// A cell that can't be read is left as it is, and the error names it; the others
// are merged.
func (s *Series) Merge(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	if err := s.clear(ctx); err != nil {
		return fmt.Errorf("merge chunks: %w", err)
	}
	began := time.Now()
	m := merge{s: s, out: output{s: s}}
	m.packer.out = &m.out
	if err := m.run(ctx); err != nil {
		return fmt.Errorf("merge chunks: %w", err)
	}
	if err := s.dropArrivals(ctx, time.Now().Add(-s.opt.Window)); err != nil {
		return fmt.Errorf("merge chunks: %w", err)
	}
	if err := s.reap(ctx); err != nil {
		return fmt.Errorf("merge chunks: %w", err)
	}
	s.stats.unmerged.Store(0)
	s.stats.merges.Inc()
	s.stats.mergeTime.Observe(time.Since(began).Seconds())
	if err := errors.Join(append(m.failed, s.db.Shrink(ctx))...); err != nil { // of the rows that it replaced
		return fmt.Errorf("merge chunks: %w", err)
	}
	return nil
}

type merge struct {
	s      *Series
	out    output
	packer packer
	old    []chunkRow // what the chunks in out replace
	failed []error
}

// cellPage is how many cells are looked up at once.
const cellPage = 1000

// mergeBatch is how many rows one transaction replaces.
const mergeBatch = 20_000

func (m *merge) run(ctx context.Context) error {
	var last Cell
	for {
		cells, err := m.s.crowded(ctx, last)
		if err != nil {
			return fmt.Errorf("find cells: %w", err)
		}
		for _, c := range cells {
			if err := m.cell(ctx, c); err != nil {
				return err
			}
			if len(m.old) >= mergeBatch || len(m.out.buf) >= m.s.segmentSize/2 || len(m.out.segments) > 1 {
				if err := m.commit(ctx); err != nil {
					return err
				}
			}
		}
		if len(cells) < cellPage {
			return m.commit(ctx)
		}
		last = cells[len(cells)-1]
	}
}

// crowded returns the next cells that have several chunks.
func (s *Series) crowded(ctx context.Context, after Cell) (cells []Cell, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT assignment, stream, bucket FROM chunk
			WHERE pending = 0 AND (assignment, stream, bucket) > ($1, $2, $3)
			GROUP BY assignment, stream, bucket HAVING count(*) > 1
			ORDER BY assignment, stream, bucket LIMIT $4`, after.Assignment[:], after.Stream[:], after.Bucket, cellPage)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c Cell
			if err := rows.Scan(&c.Assignment, &c.Stream, &c.Bucket); err != nil {
				return err
			}
			cells = append(cells, c)
		}
		return rows.Err()
	})
	return cells, err
}

// cell packs what is to merge of one cell. A cell that fails on its own account is
// noted and left.
func (m *merge) cell(ctx context.Context, c Cell) error {
	rows, err := m.s.cellRows(ctx, c)
	if err != nil {
		return err
	}
	open, err := m.s.openCells(ctx, rows, holdfast.Always)
	if err != nil {
		return m.leave(ctx, c, err)
	}
	open = slices.DeleteFunc(open, func(o openChunk) bool { return o.row.pending })
	var before int64 // where the chunk stands that the merged ones come after
	for len(open) > 0 && full(open) {
		before, open = open[0].row.rolled, open[1:]
	}
	if settled(open) {
		return nil
	}
	// One pass to see that all of it can be read, so that a damaged chunk leaves
	// nothing half merged in out.
	if err := m.s.readChunks(ctx, open, func(holdfast.Reading, journal.Pos) error { return nil }); err != nil {
		return m.leave(ctx, c, err)
	}
	m.packer.begin(c, open[0].cipher, open[len(open)-1].row.roll(), arrivals(open))
	if before>>partBits == m.packer.roll { // one roll made it and those that are merged
		m.packer.part = before&(1<<partBits-1) + 1
	}
	err = m.s.readChunks(ctx, open, func(r holdfast.Reading, pos journal.Pos) error { return m.packer.add(ctx, r, pos) })
	if err == nil {
		err = m.packer.flush(ctx)
	}
	if gone(err) { // what is in m.out already goes with the rest of the assignment
		return nil
	}
	if err != nil {
		return err
	}
	for i := range open {
		m.old = append(m.old, *open[i].row)
	}
	return nil
}

func (m *merge) leave(ctx context.Context, c Cell, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errKeysChanged) || gone(err) { // an erasure that has not come to Erase yet
		return nil
	}
	m.failed = append(m.failed, fmt.Errorf("stream %s, bucket %d: %w", c.Stream, c.Bucket, err))
	return nil
}

// gone reports that a cell's key was destroyed while it was in use.
func gone(err error) bool { return errors.Is(err, errOvertaken) || errors.Is(err, seal.ErrWiped) }

// readChunks gives the readings of a cell's chunks in order, without repeats, and
// where each stood in the journal; 0 if that was before all that are known.
func (s *Series) readChunks(ctx context.Context, open []openChunk, f func(holdfast.Reading, journal.Pos) error) error {
	v := snapshot{chunks: open, span: holdfast.Always}
	var failed error
	_, from := s.Kept()
	c := v.ordered(v.span, nil)
	err := c.each(ctx, &unsealer{s: s}, func(r holdfast.Reading) bool {
		if c.pos < from {
			c.pos = 0
		}
		failed = f(r, c.pos)
		return failed == nil
	})
	return errors.Join(failed, err)
}

// full reports whether the first chunk is left as it is: it has rows enough, or a
// part of the same roll follows it, for which it had no room. So a chunk is full
// whatever its content comes to when it is compressed.
func full(open []openChunk) bool {
	o := open[0].row
	return o.extent.rows >= chunk.MaxRows/2 || len(open) > 1 && open[1].row.Cell == o.Cell && open[1].row.rolled == o.rolled+1
}

// settled reports that chunks would merge into the same ones again: one roll, or
// its merge, made them one after the other.
func settled(open []openChunk) bool {
	for i := range len(open) - 1 {
		if o, next := &open[i], &open[i+1]; o.row.roll() != next.row.roll() || o.row.extent.times.To >= next.row.extent.times.From {
			return false
		}
	}
	return true
}

func arrivals(open []openChunk) holdfast.Span {
	span := open[0].row.extent.arrival
	for i := range open {
		span.From = min(span.From, open[i].row.extent.arrival.From)
		span.To = max(span.To, open[i].row.extent.arrival.To)
	}
	return span
}

// commit swaps the merged rows for those they replace.
func (m *merge) commit(ctx context.Context) error {
	if len(m.old) == 0 {
		return nil
	}
	s := m.s
	if err := m.out.put(ctx); err != nil {
		return err
	}
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		if err := deleteChunks(ctx, tx, m.old); err != nil {
			return err
		}
		return m.out.commit(ctx, tx)
	})
	if err == nil {
		err = s.step("merged")
	}
	s.positions.forget(m.old) // in any case: a commit that failed may be done
	s.readers.retire(m.old)
	s.cache.replaced(m.old)
	if err != nil {
		return err
	}
	s.stats.merged.Add(float64(len(m.old)))
	s.stats.bytes.Add(float64(m.out.bytes))
	m.old = m.old[:0]
	m.out.reset()
	return nil
}
