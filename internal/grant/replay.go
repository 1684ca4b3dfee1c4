package grant

import (
	"context"
	"database/sql"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// takeHold writes down that a hold stands, or no longer does: a restore forgets
// neither.
func takeHold(ctx context.Context, tx *sql.Tx, h Hold, state string, box []byte) error {
	return ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.HoldChange, ID: ledger.TakenID(h.ID), Of: ledger.TakenID(h.Whose), State: state, Box: box})
}

// Replay carries a take-back out again in a catalog that was put back to an earlier
// state. What that one does not know is passed over, but for holds and rules of
// retention: one that was set since is set again. It may run again.
func (r *Register) Replay(ctx context.Context, tx *sql.Tx, t ledger.TakeBack) error {
	var err error
	switch t.Kind {
	case ledger.GrantEnded:
		_, err = tx.ExecContext(ctx, `UPDATE data_grant SET state = 'ended', info_sealed = $1 WHERE id = $2 AND state = 'active'`, t.Box, t.ID)
	case ledger.PurposeChange:
		_, err = tx.ExecContext(ctx, `UPDATE purpose SET state = $1, info_sealed = $2 WHERE name_hash = $3`, t.State, t.Box, t.Hash)
	case ledger.HoldChange:
		_, err = tx.ExecContext(ctx, `INSERT INTO hold (id, party, state, info_sealed) VALUES ($1, $2, $3, $4)
			ON CONFLICT (id) DO UPDATE SET state = excluded.state, info_sealed = excluded.info_sealed`, t.ID, t.Of, t.State, t.Box)
	case ledger.RetentionChange:
		if t.State == ruleSet {
			return putRule(ctx, tx, t.Hash, t.Box)
		}
		return dropRule(ctx, tx, t.Hash)
	default:
		return holdfast.Errorf(holdfast.Conflict, "a take-back of kind %s is of a newer holdfast: start that one", t.Kind)
	}
	return err
}

// ReplayBar sets a bar again that an erasure has left, in the transaction of a
// replay: it says on no record what stands there already.
func (r *Register) ReplayBar(ctx context.Context, tx *sql.Tx, b Bar, asked time.Time) error {
	if b.Expires.IsZero() {
		b.Expires = asked.AddDate(0, 0, BarDays).UTC()
	}
	return insertBar(ctx, tx, b)
}
