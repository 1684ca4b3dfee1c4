package recovery

import (
	"context"
	"database/sql"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// takeBack writes down that a deal is in force no more: after a restore no root key is
// wrapped to it again.
func takeBack(ctx context.Context, tx *sql.Tx, d Deal) error {
	return ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.DealEnded, ID: ledger.TakenID(d.ID), State: string(d.State)})
}

// Replay carries a take-back out again in a catalog that was put back to an earlier
// state. What that one does not know is passed over. It may run again.
func (s *Store) Replay(ctx context.Context, tx *sql.Tx, t ledger.TakeBack) error {
	state := State(t.State)
	switch {
	case t.Kind != ledger.DealEnded:
		return holdfast.Errorf(holdfast.Conflict, "a take-back of kind %s is of a newer holdfast: start that one", t.Kind)
	case state != Replaced && state != Ended:
		return holdfast.Errorf(holdfast.Invalid, "take-back %d can't be read", t.Number)
	}
	_, err := tx.ExecContext(ctx, `UPDATE recovery_deal SET state = $1 WHERE id = $2`, state, t.ID)
	return err
}
