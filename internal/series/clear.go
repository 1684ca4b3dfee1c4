package series

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/holdfast-iot/holdfast"
)

// clear removes what earlier runs left: announced segments that nothing names,
// chunks sealed under a key that never came into force, dead ranges and segments. What
// the disk fails to remove stays until the next run; nobody else waits for that.
// Run and recovery share it. The caller holds the lock.
func (s *Series) clear(ctx context.Context) error {
	if err := s.clearAnnounced(ctx); err != nil {
		return fmt.Errorf("clear unfinished segments: %w", err)
	}
	if err := s.settle(ctx, nil); err != nil {
		return fmt.Errorf("settle resealed chunks: %w", err)
	}
	return s.reap(ctx)
}

type segmentName struct {
	id   int64
	blob holdfast.BlobID
}

func (s *Series) segments(ctx context.Context, where string, args ...any) (out []segmentName, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT id, blob FROM segment WHERE `+where, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var seg segmentName
			if err := rows.Scan(&seg.id, &seg.blob); err != nil {
				return err
			}
			out = append(out, seg)
		}
		return rows.Err()
	})
	return out, err
}

func (s *Series) clearAnnounced(ctx context.Context) error {
	orphans, err := s.segments(ctx, `state = $1`, segmentAnnounced)
	if err != nil {
		return err
	}
	return s.deleteSegments(ctx, orphans) // one that stays has nothing that counts
}
