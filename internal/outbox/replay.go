package outbox

import (
	"context"
	"database/sql"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// webhookEnded is what a take-back says of a webhook that is no more.
const webhookEnded = "ended"

// Replay carries a take-back out again in a catalog that was put back to an earlier
// state: a webhook that ended goes, one whose address or secrets changed gets those.
// What that catalog does not know is passed over. It may run again.
func (b *Outbox) Replay(ctx context.Context, tx *sql.Tx, t ledger.TakeBack) (err error) {
	switch {
	case t.Kind != ledger.WebhookChange:
		return holdfast.Errorf(holdfast.Conflict, "a take-back of kind %s is of a newer holdfast: start that one", t.Kind)
	case t.State != webhookEnded:
		_, err = tx.ExecContext(ctx, `UPDATE outbox_webhook SET state = $1, info_sealed = $2 WHERE id = $3`, t.State, t.Box, t.ID)
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM outbox_job WHERE webhook = $1`, t.ID); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM outbox_webhook WHERE id = $1`, t.ID)
	return err
}
