package series

import (
	"context"
	"fmt"
)

// Restored settles a catalog that was put back to an earlier state, under the key
// lists of now: chunks whose keys an erasure has destroyed since, or that it sealed
// again under others, can't be opened any more and go. It returns how many cells
// lost some.
func (s *Series) Restored(ctx context.Context) (lost int, err error) {
	var stale []Cell
	for c, err := range s.AllCells(ctx) {
		if err != nil {
			return 0, err
		}
		cipher, err := s.cellCipher(ctx, c)
		if err != nil {
			return 0, err
		}
		rows, err := s.cellRows(ctx, c)
		if err != nil {
			return 0, err
		}
		for i := range rows {
			if rows[i].key != keyOf(cipher) {
				stale = append(stale, c)
				break
			}
		}
	}
	if err := s.lock(ctx); err != nil {
		return 0, err
	}
	defer s.unlock()
	if err := s.settle(ctx, stale); err != nil {
		return 0, fmt.Errorf("settle what was restored: %w", err)
	}
	return len(stale), s.reap(ctx)
}
