package erasure

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// told is what a take-back says of a retraction beside its recipient and its sealed
// column.
type told struct {
	Number  int64              `json:"number"`
	Erasure holdfast.ErasureID `json:"erasure"`
}

func takeBackTold(ctx context.Context, tx *sql.Tx, r Retraction, box []byte) error {
	said, err := json.Marshal(told{r.Number, r.Erasure})
	if err != nil {
		return err
	}
	return ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.RecipientTold, ID: ledger.TakenID(r.ID), Of: ledger.TakenID(r.Recipient), Box: box, Data: said})
}

// acked is what a take-back says of a recipient's word: when, and by which credential.
type acked struct {
	At time.Time `json:"at"`
	By string    `json:"by"`
}

func takeBackAcked(ctx context.Context, tx *sql.Tx, r Retraction) error {
	said, err := json.Marshal(acked{r.Acked, r.By})
	if err != nil {
		return err
	}
	return ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.RecipientAcked, ID: ledger.TakenID(r.ID), Data: said})
}

// replayTold puts a retraction back into a catalog that was put back to before it,
// under its number: its recipient finds it where he reads on.
func (g *Gate) replayTold(ctx context.Context, t ledger.TakeBack) error {
	var x told
	if err := json.Unmarshal(t.Data, &x); err != nil {
		return errUnreadable(t)
	}
	state := RetractionOpen
	if !g.Vault.HasOwner(vault.OfParty(holdfast.PartyID(t.Of))) {
		state, t.Box = RetractionGone, nil
	}
	return g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO retraction (id, n, erasure, recipient, state, info_sealed)
			VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING`, t.ID, x.Number, x.Erasure, t.Of, state, t.Box)
		return err
	})
}

// replayAcked puts a recipient's word back that what was retracted is gone with him.
func (g *Gate) replayAcked(ctx context.Context, t ledger.TakeBack) error {
	var x acked
	if err := json.Unmarshal(t.Data, &x); err != nil {
		return errUnreadable(t)
	}
	all, err := g.retractions(ctx, `id = $1`, t.ID)
	if err != nil || len(all) == 0 || all[0].State != RetractionOpen {
		return err
	}
	r := all[0]
	r.State, r.Acked, r.By = RetractionAcked, x.At, x.By
	box, err := g.sealRetraction(ctx, r)
	if err != nil {
		return err
	}
	return g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE retraction SET state = $1, info_sealed = $2 WHERE id = $3`, r.State, box, r.ID)
		return err
	})
}

func errUnreadable(t ledger.TakeBack) error {
	return holdfast.Errorf(holdfast.Invalid, "take-back %d can't be read", t.Number)
}
