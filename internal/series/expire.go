package series

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// AllCells yields the cells that have chunks, by assignment, stream and bucket. What
// is in the journal's tail counts after a roll.
func (s *Series) AllCells(ctx context.Context) iter.Seq2[Cell, error] {
	return func(yield func(Cell, error) bool) {
		var after Cell
		for {
			var page []Cell
			err := s.db.Read(ctx, func(tx *sql.Tx) error {
				rows, err := tx.QueryContext(ctx, `SELECT DISTINCT assignment, stream, bucket FROM chunk
					WHERE (assignment, stream, bucket) > ($1, $2, $3) ORDER BY assignment, stream, bucket LIMIT $4`,
					after.Assignment[:], after.Stream[:], after.Bucket, cellPage)
				if err != nil {
					return err
				}
				defer rows.Close()
				for rows.Next() {
					var c Cell
					if err := rows.Scan(&c.Assignment, &c.Stream, &c.Bucket); err != nil {
						return err
					}
					page = append(page, c)
				}
				return rows.Err()
			})
			if err != nil {
				yield(Cell{}, fmt.Errorf("list cells: %w", err))
				return
			}
			for _, c := range page {
				if !yield(c, nil) {
					return
				}
			}
			if len(page) < cellPage {
				return
			}
			after = page[len(page)-1]
		}
	}
}

// sweepBatch is how many cells are swept before rolls and merges get their turn.
const sweepBatch = 500

// Sweep removes and zeroes the chunks of those of the cells whose key was destroyed.
// It is hygiene, not destruction, and may be called again until it succeeds.
func (s *Series) Sweep(ctx context.Context, cells []Cell) (done Erased, err error) {
	for some := range slices.Chunk(cells, sweepBatch) {
		if err := s.sweep(ctx, some, &done); err != nil {
			return done, fmt.Errorf("sweep cells: %w", err)
		}
	}
	if err := s.lock(ctx); err != nil {
		return done, err
	}
	defer s.unlock()
	err = s.reap(ctx)
	if err == nil {
		var of []holdfast.AssignmentID
		for _, c := range cells {
			of = append(of, c.Assignment)
		}
		err = s.gone(ctx, of)
	}
	if err != nil {
		return done, fmt.Errorf("sweep cells: %w", err)
	}
	return done, nil
}

func (s *Series) sweep(ctx context.Context, cells []Cell, done *Erased) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	var gone []chunkRow
	for _, c := range cells {
		cipher, err := s.cellCipher(ctx, c)
		if err != nil {
			return err
		}
		if cipher != nil {
			continue
		}
		rows, err := s.cellRows(ctx, c)
		if err != nil {
			return err
		}
		gone = append(gone, rows...)
	}
	if len(gone) == 0 {
		return nil
	}
	err := s.db.Write(ctx, func(tx *sql.Tx) error { return deleteChunks(ctx, tx, gone) })
	s.forget(gone) // in any case: a commit that failed may be done
	if err != nil {
		return err
	}
	s.readers.release(gone)
	done.Chunks += len(gone)
	for i := range gone {
		done.Bytes += gone[i].bytes()
	}
	return s.step("swept")
}
