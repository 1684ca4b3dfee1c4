package erasure

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Accepted is what a take-back says of an erasure: ids and times alone, enough to
// carry it out again.
type Accepted struct {
	Party      holdfast.PartyID `json:"party"`
	Scope      Scope            `json:"scope"`
	By         string           `json:"by"`
	Asked      time.Time        `json:"asked"`
	Refused    time.Time        `json:"refused"`
	OwnerKeys  []seal.KeyID     `json:"owner_keys,omitempty"`
	RecordKeys []seal.KeyID     `json:"record_keys,omitempty"`
	Kept       []Kept           `json:"kept,omitempty"`

	Of [][]holdfast.StreamID `json:"of,omitempty"` // as in Plan
}

// takeBack writes an accepted erasure down for a restore, with its bars.
func takeBack(ctx context.Context, tx *sql.Tx, e Erasure) error {
	said, err := json.Marshal(Accepted{e.Party, e.Scope, e.By, e.AskedAt, e.RefusedAt, e.OwnerKeys, e.RecordKeys, e.Kept, e.Of})
	if err != nil {
		return err
	}
	return ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.ErasureAccepted, ID: ledger.TakenID(e.ID), Data: said})
}

// Replay asks again for an erasure in a catalog that was put back to before it: its
// bars stand, its party has left, and every place has let go of what it covers when
// Replay returns. The next Open destroys its keys if they live, and certifies it.
// It may run again.
func (g *Gate) Replay(ctx context.Context, t ledger.TakeBack) error {
	if t.Kind != ledger.ErasureAccepted {
		return holdfast.Errorf(holdfast.Conflict, "a take-back of kind %s is of a newer holdfast: start that one", t.Kind)
	}
	var a Accepted
	if err := json.Unmarshal(t.Data, &a); err != nil {
		return holdfast.Errorf(holdfast.Invalid, "take-back %d can't be read", t.Number)
	}
	e := Erasure{ID: holdfast.ErasureID(t.ID), Party: a.Party, State: Asked, Plan: Plan{Scope: a.Scope, By: a.By, AskedAt: a.Asked, RefusedAt: a.Refused,
		OwnerKeys: a.OwnerKeys, RecordKeys: a.RecordKeys, Kept: a.Kept, Of: a.Of}}
	box, err := g.sealPlan(ctx, e)
	if err != nil {
		return err
	}
	s := e.scope(e.Party)
	err = g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `INSERT INTO erasure (id, number, party, state, plan_sealed)
			VALUES ($1, (SELECT coalesce(max(number), 0) + 1 FROM erasure), $2, $3, $4)
			ON CONFLICT (id) DO UPDATE SET state = excluded.state, plan_sealed = excluded.plan_sealed WHERE erasure.state IN ('waiting', 'approval')`, e.ID, e.Party, Asked, box)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err // it was replayed before, as far as here
		}
		if err := g.Custody.ReplayErased(ctx, tx, s); err != nil {
			return err
		}
		barred := s
		if s.Month != 0 { // what arrived in it was taken before it was over
			barred.Span.To = seal.Bucket(s.Month).Ends() - 1
		}
		for _, bar := range bars(barred, e.Of...) {
			if err := g.Grants.ReplayBar(ctx, tx, bar, a.Asked); err != nil {
				return err
			}
		}
		if len(e.RecordKeys) == 0 {
			return nil
		}
		_, err = g.Ledger.Append(ctx, tx, vault.Hub, ledger.KindErasureBegun, beginning{Erasure: e.ID, Covers: ledger.Covers{RecordKeys: e.RecordKeys}})
		return err
	})
	if err != nil {
		return fmt.Errorf("replay erasure %s: %w", e.ID, err)
	}
	if err := g.purgePlaces(ctx, e); err != nil {
		return fmt.Errorf("replay erasure %s: %w", e.ID, err)
	}
	return nil
}

// Replayed ends a replay: what is dead leaves the files.
func (g *Gate) Replayed(ctx context.Context) error {
	for _, place := range g.Places.shared() {
		if err := place.of(ctx); err != nil {
			return fmt.Errorf("end replay: %s: %w", place.name, err)
		}
	}
	return nil
}
