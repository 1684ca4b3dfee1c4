package identity

import (
	"context"
	"database/sql"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// endCode writes down that the code of a device which there is, if there is one, is
// used or replaced.
func endCode(ctx context.Context, tx *sql.Tx, d holdfast.DeviceID) error {
	var have int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM enrolment_code WHERE device = $1`, d).Scan(&have); err != nil || have == 0 {
		return err
	}
	return ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.CodeEnded, ID: ledger.TakenID(d)})
}

// Replay carries a take-back out again in a catalog that was put back to an earlier
// state. What that one does not know is passed over. It may run again.
func (i *Identity) Replay(ctx context.Context, tx *sql.Tx, t ledger.TakeBack) (err error) {
	switch t.Kind {
	case ledger.DeviceRevoked: // certificates that it got since are not here
		if _, err := tx.ExecContext(ctx, `UPDATE device_certificate SET state = $1 WHERE device = $2`, stateRevoked, t.ID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE identity_device SET revoked = $1 WHERE device = $2 AND revoked < $1`, t.At.UnixNano(), t.ID); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM enrolment_code WHERE device = $1`, t.ID)
	case ledger.CodeEnded:
		_, err = tx.ExecContext(ctx, `DELETE FROM enrolment_code WHERE device = $1`, t.ID)
	default:
		return holdfast.Errorf(holdfast.Conflict, "a take-back of kind %s is of a newer holdfast: start that one", t.Kind)
	}
	return err
}
