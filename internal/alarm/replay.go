package alarm

import (
	"context"
	"database/sql"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// Replay carries a take-back out again in a catalog that was put back to an earlier
// state. What that one does not know is passed over. It may run again.
func (a *Alarms) Replay(ctx context.Context, tx *sql.Tx, t ledger.TakeBack) error {
	if t.Kind != ledger.AlarmEnded {
		return holdfast.Errorf(holdfast.Conflict, "a take-back of kind %s is of a newer holdfast: start that one", t.Kind)
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM alarm_rule WHERE id = $1`, t.ID)
	return err
}
