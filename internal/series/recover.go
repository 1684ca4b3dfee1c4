package series

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
)

// Recover comes before all else: it clears what a crash left, and reads the journal
// from the rolled position on, so that scans see it. Every record must open, but
// for those whose key is on the retired list; another that does not is damage, and
// the error names its position. each, if not nil, gets the content of every record
// that the journal still has, without its rows, valid during the call: ingest learns
// its QoS 2 exchanges from it, those of rolled records too, since a crash may have
// come before it wrote them elsewhere.
//
// Memory does not grow with the journal but for the tail: records are opened to see
// that they do, and let go. A replay that takes long tells the log how far it is.
func (s *Series) Recover(ctx context.Context, each func(Header, *Content) error) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	if err := s.clear(ctx); err != nil {
		return fmt.Errorf("recover series: %w", err)
	}
	var from journal.Pos
	err := s.db.Read(ctx, func(tx *sql.Tx) (err error) {
		from, _, err = rolled(ctx, tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("recover series: %w", err)
	}
	start, end := s.log.Start(), s.log.End()
	switch {
	case end < from:
		return holdfast.Errorf(holdfast.Conflict,
			"the journal ends at position %d, but readings up to %d were rolled from it: it is not the journal of this catalog, or it was cut", end, from)
	case start > from && from > 0:
		return holdfast.Errorf(holdfast.Conflict,
			"the journal begins at position %d, but readings from %d on are still to be rolled: records are missing", start, from)
	}
	s.positions.reset()
	if err := s.loadKept(ctx); err != nil {
		return err
	}
	s.tail.restart(from)
	if each != nil {
		return s.replay(ctx, start, end, each)
	}
	return s.replay(ctx, from, end, nil)
}

// replay puts what is not rolled yet into the tail and gives all to each.
func (s *Series) replay(ctx context.Context, from, end journal.Pos, each func(Header, *Content) error) error {
	began, n := time.Now(), 0
	told := began
	for r, err := range s.records(ctx, from, end, false) {
		if err != nil {
			return fmt.Errorf("replay journal: %w", err)
		}
		if r.retired {
			continue
		}
		s.Observe(r.header, nil, r.pos, r.next)
		if each != nil {
			if err := each(r.header, &r.content); err != nil {
				return fmt.Errorf("replay journal record at position %d: %w", r.pos, err)
			}
		}
		if n++; n%tellRecords != 0 {
			continue
		}
		if now := time.Now(); now.Sub(told) >= tellEvery {
			told = now
			s.opt.Logger.InfoContext(ctx, "replay journal", "done_bytes", r.next-from, "of_bytes", end-from, "seconds", int(now.Sub(began).Seconds()))
		}
	}
	if told != began {
		s.opt.Logger.InfoContext(ctx, "replayed journal", "bytes", end-from, "seconds", time.Since(began).Seconds())
	}
	return nil
}

// tellEvery is how often a replay says how far it is. It looks at the clock each
// tellRecords.
const (
	tellEvery   = 2 * time.Second
	tellRecords = 4096
)

// Rebase is for a restored catalog, whose journal is a new one: a backup begins
// with a roll and holds no journal. It makes the start of the journal the rolled
// position. Recover comes after it.
func (s *Series) Rebase(ctx context.Context) error {
	defer s.positions.reset()
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		_, roll, err := rolled(ctx, tx)
		if err != nil {
			return err
		}
		if err := beginEpoch(ctx, tx, roll, s.log.Start()); err != nil {
			return err
		}
		return setRolled(ctx, tx, s.log.Start(), roll)
	})
}
