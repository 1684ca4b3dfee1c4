package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// Erase removes what is sent for a party that is erased, and whatever tells of
// readings in the assignments that an erasure touches, be it of all or a part of
// them: a message is not taken apart. It needs no key, and may run again.
func (b *Outbox) Erase(ctx context.Context, s holdfast.Scope) error {
	about := append(slices.Clone(s.Assignments), Anybody)
	touched := func(j *job) bool {
		return s.Whole && j.party == s.Party || slices.ContainsFunc(j.about, func(a holdfast.AssignmentID) bool { return slices.Contains(about, a) })
	}
	b.forget(touched)
	err := b.db.Write(ctx, func(tx *sql.Tx) error {
		for _, a := range about {
			if _, err := tx.ExecContext(ctx, `DELETE FROM outbox_job WHERE id IN (SELECT job FROM outbox_about WHERE assignment = $1)`, a); err != nil {
				return err
			}
		}
		if !s.Whole {
			return nil
		}
		for _, q := range []string{`DELETE FROM outbox_job WHERE party = $1`, `DELETE FROM outbox_webhook WHERE party = $1`} {
			if _, err := tx.ExecContext(ctx, q, s.Party); err != nil {
				return err
			}
		}
		return nil
	})
	b.forget(touched) // what was queued meanwhile
	if err != nil {
		return fmt.Errorf("erase messages: %w", err)
	}
	return nil
}
