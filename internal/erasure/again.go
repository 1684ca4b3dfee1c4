package erasure

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Again gives each erasure that waits its whole window again, from now on, and returns
// all that wait. A hub that was restored was away while the windows ran, and what was
// undone in the last moments before may not be known: nothing begins before its owner
// could undo it once more. The one who asked may have lost his credential with the hub's
// folder: what an administrator asked for, heir may undo too. What it covers is refused
// meanwhile, as before.
func (g *Gate) Again(ctx context.Context, heir holdfast.CredentialID) ([]Erasure, error) {
	g.deciding.Lock()
	defer g.deciding.Unlock()
	all, err := g.list(ctx, `state = $1`, Waiting)
	if err != nil {
		return nil, err
	}
	for i := range all {
		e := &all[i]
		until := time.Unix(0, g.Arrival()).Add(e.Undo).UTC()
		inherits := !e.OwnWord && !heir.IsZero()
		if !until.After(e.Until) && !inherits {
			continue
		}
		if until.After(e.Until) {
			e.Until = until
		}
		if inherits {
			e.Heir = heir
		}
		box, err := g.sealPlan(ctx, *e)
		if err != nil {
			return nil, err
		}
		err = g.Catalog.Write(ctx, func(tx *sql.Tx) error {
			res, err := tx.ExecContext(ctx, `UPDATE erasure SET plan_sealed = $1 WHERE id = $2 AND state = $3`, box, e.ID, Waiting)
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil || n == 0 {
				return holdfast.Errorf(holdfast.Conflict, "erasure %s does not wait any more", e.ID)
			}
			return g.record(ctx, tx, "erasure waits again", *e)
		})
		if err != nil {
			return nil, fmt.Errorf("give an erasure its window again: %w", err)
		}
	}
	return all, nil
}
