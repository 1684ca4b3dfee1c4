package erasure

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
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

	Sources []custody.Source `json:"sources,omitempty"` // where its devices sent from

	Waits *Window `json:"waits,omitempty"` // it can be undone yet; another take-back follows when it begins
}

// Window is what is known of an erasure that can be undone yet, as in Plan.
type Window struct {
	Until   time.Time             `json:"until"`
	Undo    time.Duration         `json:"undo"`
	Asker   holdfast.CredentialID `json:"asker,omitzero"`
	OwnWord bool                  `json:"own_word,omitempty"`
	Rest    bool                  `json:"rest,omitempty"`
	Clipped bool                  `json:"clipped,omitempty"`
}

// takeBack writes an accepted erasure down for a restore, with its bars.
func takeBack(ctx context.Context, tx *sql.Tx, e Erasure, sources []custody.Source) error {
	a := Accepted{Party: e.Party, Scope: e.Scope, By: e.By, Asked: e.AskedAt, Refused: e.RefusedAt,
		OwnerKeys: e.OwnerKeys, RecordKeys: e.RecordKeys, Kept: e.Kept, Of: e.Of, Sources: sources}
	if e.State == Waiting {
		a.Waits = &Window{e.Until, e.Undo, e.Asker, e.OwnWord, e.Rest, e.Clipped}
	}
	said, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.ErasureAccepted, ID: ledger.TakenID(e.ID), Data: said})
}

// Replay asks again for an erasure in a catalog that was put back to before it: its
// bars stand, its party has left, and every place has let go of what it covers when
// Replay returns. The next Open destroys its keys if they live, and certifies it.
// One that waited waits on, and one that was undone is undone. It may run again.
func (g *Gate) Replay(ctx context.Context, t ledger.TakeBack) error {
	switch t.Kind {
	case ledger.ErasureAccepted:
	case ledger.ErasureUndone:
		return g.replayUndone(ctx, holdfast.ErasureID(t.ID), t.State)
	case ledger.RecipientTold:
		return g.replayTold(ctx, t)
	case ledger.RecipientAcked:
		return g.replayAcked(ctx, t)
	default:
		return holdfast.Errorf(holdfast.Conflict, "a take-back of kind %s is of a newer holdfast: start that one", t.Kind)
	}
	var a Accepted
	if err := json.Unmarshal(t.Data, &a); err != nil {
		return errUnreadable(t)
	}
	e := Erasure{ID: holdfast.ErasureID(t.ID), Party: a.Party, State: Asked, Plan: Plan{Scope: a.Scope, By: a.By, AskedAt: a.Asked, RefusedAt: a.Refused,
		OwnerKeys: a.OwnerKeys, RecordKeys: a.RecordKeys, Kept: a.Kept, Of: a.Of}}
	if a.Waits != nil {
		return g.replayWaiting(ctx, e, a.Waits)
	}
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
		if err := g.Custody.Remember(ctx, tx, a.Sources, rememberUntil(a.Asked)); err != nil {
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
		if s.Whole {
			if err := retractionsGone(ctx, tx, s.Party); err != nil {
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

// replayWaiting has an erasure wait again that could be undone yet: from the next
// Open on it is refused, until it is undone or its window is over.
func (g *Gate) replayWaiting(ctx context.Context, e Erasure, w *Window) error {
	e.State, e.Until, e.Undo, e.Asker, e.OwnWord, e.Rest, e.Clipped = Waiting, w.Until, w.Undo, w.Asker, w.OwnWord, w.Rest, w.Clipped
	box, err := g.sealPlan(ctx, e)
	if err != nil {
		return err
	}
	err = g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO erasure (id, number, party, state, plan_sealed)
			VALUES ($1, (SELECT coalesce(max(number), 0) + 1 FROM erasure), $2, $3, $4)
			ON CONFLICT (id) DO UPDATE SET state = excluded.state, plan_sealed = excluded.plan_sealed WHERE erasure.state = 'approval'`, e.ID, e.Party, Waiting, box)
		if err != nil {
			return err
		}
		return g.Custody.ReplayErased(ctx, tx, e.scope(e.Party))
	})
	if err != nil {
		return fmt.Errorf("replay erasure %s: %w", e.ID, err)
	}
	return nil
}

// replayUndone ends an erasure that waits in a catalog that was put back to before it
// was undone.
func (g *Gate) replayUndone(ctx context.Context, id holdfast.ErasureID, to string) error {
	g.deciding.Lock()
	defer g.deciding.Unlock()
	e, err := g.Erasure(ctx, id)
	if holdfast.KindOf(err) == holdfast.NotFound || err == nil && e.State != Waiting && e.State != Approval {
		return nil
	} else if err != nil {
		return err
	}
	_, err = g.dropAnd(ctx, e, to, "erasure "+to, func(*sql.Tx) error { return nil })
	return err
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
