package twin

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// Erase drops the commands and documents of what s covers; an erasure of streams or
// of a span of time leaves them. It needs no key and may run again.
func (s *Store) Erase(ctx context.Context, scope holdfast.Scope) error {
	if scope.InPart() {
		return nil
	}
	s.erasing.Lock()
	defer s.erasing.Unlock()
	for batch := range slices.Chunk(scope.Assignments, 500) {
		err := s.db.Write(ctx, func(tx *sql.Tx) error {
			for _, a := range batch {
				for _, q := range []string{`DELETE FROM command WHERE assignment = $1`, `DELETE FROM twin WHERE assignment = $1`} {
					if _, err := tx.ExecContext(ctx, q, a); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("erase commands: %w", err)
		}
	}
	return nil
}
