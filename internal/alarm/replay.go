package alarm

import (
	"context"
	"database/sql"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// Replay carries a take-back out again in a catalog that was put back to an earlier
// state: a rule that ended goes, one that was changed is what it became, so that nobody
// is told by it who was taken off it. What that catalog does not know is passed over. It
// may run again.
func (a *Alarms) Replay(ctx context.Context, tx *sql.Tx, t ledger.TakeBack) (err error) {
	switch t.Kind {
	case ledger.AlarmEnded:
		_, err = tx.ExecContext(ctx, `DELETE FROM alarm_rule WHERE id = $1`, t.ID)
	case ledger.AlarmChanged:
		if _, err = tx.ExecContext(ctx, `UPDATE alarm_rule SET info_sealed = $1 WHERE id = $2`, t.Box, t.ID); err == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM alarm_instance WHERE rule = $1`, t.ID)
		}
	default:
		return holdfast.Errorf(holdfast.Conflict, "a take-back of kind %s is of a newer holdfast: start that one", t.Kind)
	}
	return err
}
