package series

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Remaining is a segment with bytes of dead chunks that could not be removed when
// that was last tried.
type Remaining struct {
	Segment holdfast.BlobID
	Since   time.Time
	Err     error // of the last time

	id int64
}

// remains are the segments that keep what is dead. A disk that fails in one place is
// no reason to keep the dead of others: rolls, merges and the erasures of whoever has
// nothing there go on.
type remains struct {
	mu  sync.Mutex
	all map[int64]Remaining
}

// Remains returns the segments that keep bytes of dead chunks, the longest first.
func (s *Series) Remains() (out []Remaining) {
	s.remains.mu.Lock()
	defer s.remains.mu.Unlock()
	for _, r := range s.remains.all {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Remaining) int {
		return cmp.Or(a.Since.Compare(b.Since), slices.Compare(a.Segment[:], b.Segment[:]))
	})
	return out
}

// removed says how it went with a segment. The next reap tries again what failed.
func (s *Series) removed(ctx context.Context, seg segmentName, err error) {
	s.remains.mu.Lock()
	defer s.remains.mu.Unlock()
	was, known := s.remains.all[seg.id]
	if err == nil {
		delete(s.remains.all, seg.id)
		return
	}
	if !known {
		was.Since = time.Now()
		s.opt.Logger.ErrorContext(ctx, "remove what is dead", "segment", seg.blob, "error", err)
	}
	s.remains.all[seg.id] = Remaining{seg.blob, was.Since, err, seg.id}
}

// reap zeroes dead ranges and deletes dead segments, but for those that a scan may
// still read, and those of which the disk fails: Remains has them. Its error is the
// catalog's or the context's.
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

// gone fails if anything dead of the assignments is in a segment of which the disk
// fails. It comes after reap.
func (s *Series) gone(ctx context.Context, of []holdfast.AssignmentID) error {
	asked := map[string]bool{"": true} // from before it was written down: anybody's
	for _, a := range of {
		asked[string(a[:])] = true
	}
	for _, r := range s.Remains() {
		var found bool
		err := s.db.Read(ctx, func(tx *sql.Tx) error {
			rows, err := tx.QueryContext(ctx, `SELECT assignment FROM dead_owner WHERE segment = $1`, r.id)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var a []byte
				if err := rows.Scan(&a); err != nil {
					return err
				}
				found = found || asked[string(a)]
			}
			return rows.Err()
		})
		if err != nil {
			return fmt.Errorf("find whose dead chunks remain: %w", err)
		}
		if found {
			return fmt.Errorf("remove dead chunks from segment %s: %w", r.Segment, r.Err)
		}
	}
	return nil
}

// deleteSegments deletes blobs, then their rows: a crash between is done again.
func (s *Series) deleteSegments(ctx context.Context, segs []segmentName) error {
	done := segs[:0:0]
	for _, seg := range segs {
		err := s.blobs.Delete(ctx, seg.blob)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s.removed(ctx, seg, err); err == nil {
			done = append(done, seg)
		}
	}
	if len(done) == 0 {
		return nil
	}
	if err := s.step("deleted"); err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, seg := range done {
			for _, forget := range []string{`DELETE FROM segment WHERE id = $1`, `DELETE FROM dead_range WHERE segment = $1`, `DELETE FROM dead_owner WHERE segment = $1`} {
				if _, err := tx.ExecContext(ctx, forget, seg.id); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// punchBatch is how many ranges are zeroed before their rows go.
const punchBatch = 1000

// deadPlace is a dead range and where it is.
type deadPlace struct {
	segmentName
	deadRange
}

func (s *Series) punch(ctx context.Context) error {
	ranges, err := s.deadRanges(ctx)
	if err != nil {
		return fmt.Errorf("find dead ranges: %w", err)
	}
	free := ranges[:0]
	for _, p := range ranges {
		if s.readers.free(p.id) {
			free = append(free, p)
		}
	}
	fails := map[int64]bool{}
	for some := range slices.Chunk(free, punchBatch) {
		done, err := s.zero(ctx, some, fails)
		if err != nil {
			return err
		}
		if len(done) == 0 {
			continue
		}
		if err := s.step("punched"); err != nil {
			return err
		}
		if err := s.db.Write(ctx, func(tx *sql.Tx) error { return forgetDead(ctx, tx, done) }); err != nil {
			return fmt.Errorf("forget dead ranges: %w", err)
		}
	}
	return nil
}

func (s *Series) deadRanges(ctx context.Context) (ranges []deadPlace, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT d.segment, s.blob, d.at, d.size FROM dead_range d JOIN segment s ON s.id = d.segment
			WHERE s.live > 0 ORDER BY d.segment, d.at`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var p deadPlace
			if err := rows.Scan(&p.id, &p.blob, &p.at, &p.size); err != nil {
				return err
			}
			ranges = append(ranges, p)
		}
		return rows.Err()
	})
	return ranges, err
}

// zero overwrites ranges and returns those that it did; fails gets the segments of
// which the disk fails, which are passed over from there on.
func (s *Series) zero(ctx context.Context, ranges []deadPlace, fails map[int64]bool) (done []deadPlace, err error) {
	for i := 0; i < len(ranges); {
		p, from := ranges[i], i // neighbours that died at different times are one hole
		for i++; i < len(ranges) && ranges[i].id == p.id && ranges[i].at == p.at+p.size; i++ {
			p.size += ranges[i].size
		}
		if fails[p.id] {
			continue
		}
		err := s.blobs.Punch(ctx, p.blob, p.at, p.size)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		s.removed(ctx, p.segmentName, err)
		if fails[p.id] = err != nil; err == nil {
			done = append(done, ranges[from:i]...)
		}
	}
	return done, nil
}

func forgetDead(ctx context.Context, tx *sql.Tx, done []deadPlace) error {
	for i, p := range done {
		if _, err := tx.ExecContext(ctx, `DELETE FROM dead_range WHERE segment = $1 AND at = $2`, p.id, p.at); err != nil {
			return err
		}
		if i+1 < len(done) && done[i+1].id == p.id {
			continue
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM dead_owner WHERE segment = $1 AND NOT EXISTS (SELECT 1 FROM dead_range WHERE segment = $1)`, p.id); err != nil {
			return err
		}
	}
	return nil
}
