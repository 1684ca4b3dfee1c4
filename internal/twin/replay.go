package twin

import (
	"context"
	"database/sql"
	"fmt"
)

// Restored ends the commands that wait in a catalog that was put back to an earlier
// state: whether a device has had one since is not known there, and a door must not
// open twice.
func (s *Store) Restored(ctx context.Context) error {
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE command SET state = $1 WHERE state IN ('queued', 'delivered', 'accepted')`, Expired)
		return err
	})
	if err != nil {
		return fmt.Errorf("end waiting commands: %w", err)
	}
	return nil
}
