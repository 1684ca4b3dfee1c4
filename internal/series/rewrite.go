package series

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// Rewrite holds the segments still while keys are destroyed, so that nothing is
// sealed under a key that is about to die.
//
// An erasure goes in this order:
//
//  1. new journal keys for the assignments, and no lease of an old one left
//  2. rw := series.Begin: rolls and merges wait from here on
//  3. rw.Roll: what the old journal keys sealed is in chunks
//  4. series.Cells: which stream keys must die
//  5. rw.Reseal for each cell of which readings survive: they are sealed again
//     under a key that is not in force yet, into chunks that no scan sees; rw.Drop
//     for the others
//  6. the vault destroys the old keys and puts the new ones in force
//  7. rw.End: of each cell, the chunks under the key in force stay, the others go
//
// After a crash Recover does as End does, by the same rule: if the keys came into
// force the resealed chunks take over, if not they are dropped. Between 6 and 7
// scans choose by that rule too.
type Rewrite struct {
	s     *Series
	cells []Cell
	ended bool
}

// Begin waits for a roll or merge under way and keeps others out until End, which
// must follow.
func (s *Series) Begin(ctx context.Context) (*Rewrite, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	if err := s.clear(ctx); err != nil {
		s.unlock()
		return nil, fmt.Errorf("begin rewrite: %w", err)
	}
	return &Rewrite{s: s}, nil
}

// Roll is Series.Roll for the holder of rw. It comes before Reseal: what it sealed
// after would be under the key that dies.
func (rw *Rewrite) Roll(ctx context.Context) error {
	if len(rw.cells) > 0 || rw.ended {
		return holdfast.Errorf(holdfast.Conflict, "a rewrite rolls before it reseals")
	}
	return rw.s.roll(ctx)
}

// Reseal seals the readings of a cell that keep holds on to under another key, and
// returns how many there are. With none, nothing is written and the cell's key
// needs no successor. The chunks are durable and invisible when it returns.
func (rw *Rewrite) Reseal(ctx context.Context, c Cell, keep func(holdfast.Reading) bool, to *seal.Cipher) (kept uint64, err error) {
	s := rw.s
	rows, err := s.cellRows(ctx, c)
	if err != nil {
		return 0, fmt.Errorf("reseal stream %s: %w", c.Stream, err)
	}
	open, err := s.openCells(ctx, rows, holdfast.Always)
	if err != nil {
		return 0, fmt.Errorf("reseal stream %s: %w", c.Stream, err)
	}
	rw.cells = append(rw.cells, c)
	if len(open) == 0 {
		return 0, nil
	}
	out := output{s: s}
	p := packer{out: &out, pending: true}
	p.begin(c, to, open[len(open)-1].row.roll(), arrivals(open))
	err = s.readChunks(ctx, open, func(r holdfast.Reading, pos journal.Pos) error {
		if !keep(r) {
			return nil
		}
		kept++
		return p.add(ctx, r, pos)
	})
	if err == nil {
		err = p.flush(ctx)
	}
	if err == nil {
		err = out.put(ctx)
	}
	if err == nil && kept > 0 {
		err = s.db.Write(ctx, func(tx *sql.Tx) error { return out.commit(ctx, tx) })
		s.positions.forget(rows)
	}
	if err != nil {
		return 0, fmt.Errorf("reseal stream %s in bucket %d: %w", c.Stream, c.Bucket, err)
	}
	return kept, s.step("resealed")
}

// Drop says that a cell's key dies without a successor.
func (rw *Rewrite) Drop(c Cell) { rw.cells = append(rw.cells, c) }

// End lets rolls and merges go on. Of each cell, the chunks under the key in force
// stay; the others are removed, zeroed without waiting for scans. Without a
// destruction since Begin, everything is as before. A failed End is made good by
// the next roll.
func (rw *Rewrite) End(ctx context.Context) error {
	if rw.ended {
		return nil
	}
	rw.ended = true
	defer rw.s.unlock()
	if err := rw.s.settle(ctx, rw.cells); err != nil {
		return fmt.Errorf("end rewrite: %w", err)
	}
	if err := rw.s.reap(ctx); err != nil {
		return fmt.Errorf("end rewrite: %w", err)
	}
	return nil
}

// settle decides cells with pending chunks, and those named, by the key in force.
// The caller holds the lock.
func (s *Series) settle(ctx context.Context, named []Cell) error {
	pending, err := s.pendingCells(ctx)
	if err != nil {
		return err
	}
	for _, c := range named {
		if !slices.Contains(pending, c) {
			pending = append(pending, c)
		}
	}
	for _, c := range pending {
		if err := s.settleCell(ctx, c); err != nil {
			return fmt.Errorf("stream %s, bucket %d: %w", c.Stream, c.Bucket, err)
		}
	}
	return nil
}

func (s *Series) settleCell(ctx context.Context, c Cell) error {
	cipher, err := s.cellCipher(ctx, c)
	if err != nil {
		return err
	}
	key := keyOf(cipher)
	rows, err := s.cellRows(ctx, c)
	if err != nil {
		return err
	}
	var gone []chunkRow
	for _, r := range rows {
		if r.key != key {
			gone = append(gone, r)
		}
	}
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		if err := deleteChunks(ctx, tx, gone); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE chunk SET pending = 0
			WHERE assignment = $1 AND stream = $2 AND bucket = $3 AND pending = 1`, c.Assignment, c.Stream, c.Bucket)
		return err
	})
	s.forget(rows)
	if err != nil {
		return err
	}
	s.readers.release(gone)
	return s.step("settled")
}

func (s *Series) pendingCells(ctx context.Context) (cells []Cell, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := collect(chunkRows(ctx, tx, `c.pending = 1`))
		for _, r := range rows {
			if n := len(cells); n == 0 || cells[n-1] != r.Cell {
				cells = append(cells, r.Cell)
			}
		}
		return err
	})
	return cells, err
}

// Cells returns the cells of streams that hold readings in span; all streams of a
// if streams is empty. What is in the journal's tail counts after a roll.
func (s *Series) Cells(ctx context.Context, a holdfast.AssignmentID, streams []holdfast.StreamID, span holdfast.Span) ([]Cell, error) {
	defer s.readers.enter()()
	var rows []chunkRow
	err := s.db.Read(ctx, func(tx *sql.Tx) (err error) {
		rows, err = scopeRows(ctx, tx, a, streams)
		return err
	})
	var open []openChunk
	if err == nil {
		open, err = s.openCells(ctx, rows, span)
	}
	if err != nil {
		return nil, fmt.Errorf("find cells of assignment %s: %w", a, err)
	}
	var cells []Cell
	for i := range open {
		if c := open[i].row.Cell; len(cells) == 0 || cells[len(cells)-1] != c {
			cells = append(cells, c)
		}
	}
	return cells, nil
}

// scopeRows reads the rows of streams of an assignment, of all if there are none
// named.
func scopeRows(ctx context.Context, tx *sql.Tx, a holdfast.AssignmentID, streams []holdfast.StreamID) (rows []chunkRow, err error) {
	if len(streams) == 0 {
		return collect(chunkRows(ctx, tx, `c.assignment = $1`, a))
	}
	for _, stream := range streams {
		of, err := collect(chunkRows(ctx, tx, ofStream, a, stream))
		if err != nil {
			return nil, err
		}
		rows = append(rows, of...)
	}
	return rows, nil
}

// keyOf returns the id of c's key, none for a destroyed one.
func keyOf(c *seal.Cipher) seal.KeyID {
	if c == nil {
		return seal.KeyID{}
	}
	return c.ID()
}
