package series

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/holdfast-iot/holdfast"
)

// clear removes what earlier runs left: announced segments that nothing names,
// chunks sealed under a key that never came into force, dead ranges and segments.
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
	return s.deleteSegments(ctx, orphans)
}

// deleteSegments deletes blobs, then their rows: a crash between is done again.
func (s *Series) deleteSegments(ctx context.Context, segs []segmentName) error {
	if len(segs) == 0 {
		return nil
	}
	for _, seg := range segs {
		if err := s.blobs.Delete(ctx, seg.blob); err != nil {
			return fmt.Errorf("delete segment %s: %w", seg.blob, err)
		}
	}
	if err := s.step("deleted"); err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, seg := range segs {
			if _, err := tx.ExecContext(ctx, `DELETE FROM segment WHERE id = $1`, seg.id); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM dead_range WHERE segment = $1`, seg.id); err != nil {
				return err
			}
		}
		return nil
	})
}

// reap zeroes dead ranges and deletes dead segments, but for those that a scan may
// still read.
func (s *Series) reap(ctx context.Context) error {
	dead, err := s.segments(ctx, `state = $1 AND live = 0`, segmentInUse)
	if err != nil {
		return fmt.Errorf("find dead segments: %w", err)
	}
	free := dead[:0]
	for _, seg := range dead {
		if s.readers.free(seg.id) {
			free = append(free, seg)
		}
	}
	if err := s.deleteSegments(ctx, free); err != nil {
		return err
	}
	return s.punch(ctx)
}

// punchBatch is how many ranges are zeroed before their rows go.
const punchBatch = 1000

func (s *Series) punch(ctx context.Context) error {
	type place struct {
		segmentName
		deadRange
	}
	var ranges []place
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT d.segment, s.blob, d.at, d.size FROM dead_range d JOIN segment s ON s.id = d.segment
			WHERE s.live > 0 ORDER BY d.segment, d.at`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var p place
			if err := rows.Scan(&p.id, &p.blob, &p.at, &p.size); err != nil {
				return err
			}
			ranges = append(ranges, p)
		}
		return rows.Err()
	})
	if err != nil {
		return fmt.Errorf("find dead ranges: %w", err)
	}
	free := ranges[:0]
	for _, p := range ranges {
		if s.readers.free(p.id) {
			free = append(free, p)
		}
	}
	for len(free) > 0 {
		n := min(punchBatch, len(free))
		for i := 0; i < n; {
			p := free[i] // neighbours that died at different times are one hole
			for i++; i < n && free[i].id == p.id && free[i].at == p.at+p.size; i++ {
				p.size += free[i].size
			}
			if err := s.blobs.Punch(ctx, p.blob, p.at, p.size); err != nil {
				return fmt.Errorf("zero dead range of segment %s: %w", p.blob, err)
			}
		}
		if err := s.step("punched"); err != nil {
			return err
		}
		err := s.db.Write(ctx, func(tx *sql.Tx) error {
			for _, p := range free[:n] {
				if _, err := tx.ExecContext(ctx, `DELETE FROM dead_range WHERE segment = $1 AND at = $2`, p.id, p.at); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("forget dead ranges: %w", err)
		}
		free = free[n:]
	}
	return nil
}
