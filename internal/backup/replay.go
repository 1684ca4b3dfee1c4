package backup

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// begun is what a take-back says of a backup.
type begun struct {
	Began   time.Time `json:"began"`
	Expires time.Time `json:"expires"`
}

// takeBack writes down that there is a backup: whoever restores an older one, or this
// one itself, knows until when somebody may have its ciphertext.
func takeBack(ctx context.Context, tx *sql.Tx, id [16]byte, began, expires time.Time) error {
	said, err := json.Marshal(begun{began, expires})
	if err != nil {
		return err
	}
	return ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.BackupBegun, ID: ledger.TakenID(id), Data: said})
}

// Replay remembers a backup in a catalog that was put back to before it. It may run
// again.
func (k *Keeper) Replay(ctx context.Context, tx *sql.Tx, t ledger.TakeBack) error {
	if t.Kind != ledger.BackupBegun {
		return holdfast.Errorf(holdfast.Conflict, "a take-back of kind %s is of a newer holdfast: start that one", t.Kind)
	}
	var b begun
	if err := json.Unmarshal(t.Data, &b); err != nil {
		return holdfast.Errorf(holdfast.Invalid, "take-back %d can't be read", t.Number)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO backup (id, began, expires, ended, bytes, written, keyring) VALUES ($1, $2, $3, 0, 0, 0, '')
		ON CONFLICT (id) DO NOTHING`, t.ID, b.Began.UnixNano(), b.Expires.UnixNano())
	return err
}
