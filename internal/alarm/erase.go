package alarm

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// Erase removes the rules of a party that is erased, and what any rule knows of the
// assignments that an erasure touches, be it of all or a part of them: a rule looks
// at what is left of them anew. Of expressions nobody can say whose readings they
// had, so what memory has of those is forgotten; the catalog has no values of them.
// It needs no key, and may run again.
func (a *Alarms) Erase(ctx context.Context, s holdfast.Scope) error {
	for _, r := range a.all() {
		r.mu.Lock()
		if s.Whole && r.party == s.Party {
			r.ended = true
			a.mu.Lock()
			delete(a.rules, r.id)
			a.mu.Unlock()
		}
		for id, i := range r.instances {
			if i.assignment.IsZero() {
				i.labels, i.Value = nil, 0
			} else if slices.Contains(s.Assignments, i.assignment) {
				delete(r.instances, id)
			}
		}
		r.mu.Unlock()
	}
	err := a.Catalog.Write(ctx, func(tx *sql.Tx) error {
		for _, id := range s.Assignments {
			if _, err := tx.ExecContext(ctx, `DELETE FROM alarm_instance WHERE assignment = $1`, id); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM alarm_event WHERE assignment = $1`, id); err != nil {
				return err
			}
		}
		if !s.Whole {
			return nil
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM alarm_rule WHERE party = $1`, s.Party)
		return err
	})
	if err != nil {
		return fmt.Errorf("erase alarms: %w", err)
	}
	return nil
}
