package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// Replayed says what a replay of take-backs did.
type Replayed struct {
	Replayed uint64    `json:"replayed"` // take-backs that were carried out again
	Last     uint64    `json:"last"`     // number of the last that is known now
	Dropped  int       `json:"dropped"`  // cells of readings that lost what is under destroyed keys
	At       time.Time `json:"at"`       // when the newest batch was signed: up to then nothing is missing
	// Short says why more may have been taken back than is known; empty: nothing does.
	Short string `json:"short,omitempty"`
}

// ReplayTakeBacks carries out again, on a stopped hub whose catalog was put back to
// an earlier state, what was taken back since. files are those of the newest copy of
// the keyring: the batches of take-backs among them are read, checked against the
// catalog's ledger keys and held against what the catalog knows; the keyring itself
// must be in the data folder already.
//
// A restore calls it before RenewLedger and before anything listens. All of the copy's
// take-backs are in the catalog before the first is carried out, since carrying one out
// may take back more, which gets the numbers behind. So a restore that is cut short
// here must begin with the backup's catalog again. What Short says is for the caller
// to act on.
func ReplayTakeBacks(ctx context.Context, c Config, files map[string][]byte) (r Replayed, err error) {
	c.restored = true
	s, err := openKept(ctx, c)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stores.close()) }()
	t, err := s.ledger.ReadTakeBacks(ctx, files, s.stores.vault.Generation())
	if err != nil {
		return r, err
	}
	if err := s.ledger.KeepTakeBacks(ctx, t); err != nil {
		return r, err
	}
	if r.Dropped, err = s.replay(ctx, t.Fresh); err != nil {
		return r, err
	}
	r.Replayed, r.Last, r.Short = uint64(len(t.Fresh)), t.Last, t.Short
	r.At = t.At
	return r, nil
}

// replayTogether is how many take-backs share a transaction.
const replayTogether = 1000

func again(t ledger.TakeBack, err error) error {
	return fmt.Errorf("carry take-back %d out again: %w", t.Number, err)
}

// replay has each keeper carry out again what it once took back, in order, and then
// settles what no take-back names: readings under keys that are gone, and commands
// that may have been carried out since.
func (s *Server) replay(ctx context.Context, all []ledger.TakeBack) (dropped int, err error) {
	undone := map[ledger.TakenID]bool{}
	for _, t := range all {
		undone[t.ID] = undone[t.ID] || t.Kind == ledger.ErasureUndone
	}
	if dropped, err = s.series.Restored(ctx); err != nil {
		return 0, err
	}
	keepers := map[string]func(context.Context, *sql.Tx, ledger.TakeBack) error{
		"grant": s.grants.Replay, "access": s.access.Replay, "identity": s.identity.Replay,
		"custody": s.custody.Replay, "outbox": s.outbox.Replay, "alarm": s.alarms.Replay,
		"backup": s.backups.Replay, "recovery": s.recovery.Replay,
	}
	var some []ledger.TakeBack // that share a transaction
	write := func() error {
		err := s.stores.catalog.Write(ctx, func(tx *sql.Tx) error {
			for _, t := range some {
				if err := keepers[t.Kind.Keeper()](ctx, tx, t); err != nil {
					return again(t, err)
				}
			}
			return nil
		})
		some = some[:0]
		return err
	}
	for _, t := range all {
		var alone func(context.Context, ledger.TakeBack) error
		switch keeper := t.Kind.Keeper(); {
		case keeper == "ledger", undone[t.ID] && t.Kind == ledger.ErasureAccepted:
			continue // it was kept with the others
		case keeper == "erasure":
			alone = s.erasure.Replay
		case t.Kind == ledger.PeriodTerms:
			alone = s.custody.ReplayPeriod
		case keepers[keeper] == nil:
			return dropped, again(t, holdfast.Errorf(holdfast.Conflict, "a take-back of kind %s is of a newer holdfast: start that one", t.Kind))
		default:
			some = append(some, t)
		}
		if alone != nil || len(some) == replayTogether {
			if err := write(); err != nil {
				return dropped, err
			}
		}
		if alone != nil {
			if err := alone(ctx, t); err != nil {
				return dropped, again(t, err)
			}
		}
	}
	if err := write(); err != nil {
		return dropped, err
	}
	return dropped, errors.Join(s.twin.Restored(ctx), s.erasure.Replayed(ctx))
}
