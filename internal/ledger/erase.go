package ledger

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// eraseBatch is how many payloads one transaction empties: others write in between.
const eraseBatch = 500

// Erase empties the payloads on the records of those whose keys a scope destroyed:
// no key opens them any more. Their leaves stay, and with them every proof. Of who
// still has a key nothing is touched. It may run again.
func (l *Ledger) Erase(ctx context.Context, s holdfast.Scope) error {
	if s.InPart() {
		return nil
	}
	var gone []vault.Owner
	for _, a := range s.Assignments {
		gone = append(gone, vault.OfAssignment(a))
	}
	if s.Whole {
		gone = append(gone, vault.OfParty(s.Party))
	}
	for _, o := range gone {
		_, err := l.keys.RecordKeyID(ctx, o)
		if err == nil {
			continue
		}
		if holdfast.KindOf(err) == holdfast.NotFound {
			err = l.empty(ctx, o)
		}
		if err != nil {
			return fmt.Errorf("erase ledger payloads: %w", err)
		}
	}
	return nil
}

func (l *Ledger) empty(ctx context.Context, o vault.Owner) error {
	for {
		var n int64
		err := l.db.Write(ctx, func(tx *sql.Tx) error {
			done, err := tx.ExecContext(ctx, `UPDATE ledger_entry SET payload_sealed = x'' WHERE idx IN
				(SELECT idx FROM ledger_entry WHERE owner = $1 AND length(payload_sealed) > 0 LIMIT $2)`, o[:], eraseBatch)
			if err != nil {
				return err
			}
			n, err = done.RowsAffected()
			return err
		})
		if err != nil || n < eraseBatch {
			return err
		}
	}
}
