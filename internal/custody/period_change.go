package custody

import (
	"context"
	"database/sql"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// ChangePeriod puts other terms in the place of a period's. Those before are kept,
// with the time until which they were known. What lies in the new time and comes from
// now on is told apart by it; what came before stays where it is.
func (c *Custody) ChangePeriod(ctx context.Context, by holdfast.CredentialID, id holdfast.AssignmentID, t Terms) (Assignment, error) {
	return c.amend(ctx, by, id, "period changed", nil, func(Assignment) (Terms, error) { return t, nil })
}

// EndPeriod ends a period at a time, the zero one being now: what lies behind it and
// comes from now on is the device's own assignment's again. One that has not begun
// and is ended now never begins.
func (c *Custody) EndPeriod(ctx context.Context, by holdfast.CredentialID, id holdfast.AssignmentID, at time.Time) (Assignment, error) {
	return c.amend(ctx, by, id, "period ended", nil, func(a Assignment) (Terms, error) { return c.ended(a, at) })
}

// Amend is ChangePeriod, or with ends EndPeriod, for a change after which something
// is to become of readings that are sealed already: that is Pending until Settle.
func (c *Custody) Amend(ctx context.Context, by holdfast.CredentialID, id holdfast.AssignmentID, t Terms, ends bool, p *Pending) (Assignment, error) {
	if ends {
		return c.amend(ctx, by, id, "period ended", p, func(a Assignment) (Terms, error) { return c.ended(a, t.To) })
	}
	return c.amend(ctx, by, id, "period changed", p, func(Assignment) (Terms, error) { return t, nil })
}

func (c *Custody) amend(ctx context.Context, by holdfast.CredentialID, id holdfast.AssignmentID, kind string, p *Pending,
	terms func(Assignment) (Terms, error)) (Assignment, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	old, d, err := c.openPeriod(ctx, id)
	if err != nil {
		return Assignment{}, err
	}
	t, err := terms(old)
	if err != nil {
		return Assignment{}, err
	}
	a := old
	if kind == "period ended" { // its end may be its beginning
		a.To = t.To
	} else if err := c.checkPeriod(ctx, d, &a, t); err != nil {
		return Assignment{}, err
	}
	a.Pending = p
	return a, c.supersede(ctx, by, kind, old, &a, d)
}

// Settle writes down that what was pending of a period is done.
func (c *Custody) Settle(ctx context.Context, id holdfast.AssignmentID) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	a, err := c.Assignment(ctx, id)
	if err != nil || a.State == Erased || a.Pending == nil {
		return err
	}
	a.Pending = nil
	box, err := c.seal(ctx, vault.OfAssignment(id), "assignment", id[:], a.info())
	if err != nil {
		return err
	}
	return c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE assignment SET info_sealed = $1 WHERE id = $2 AND state <> 'erased'`, box, id)
		return err
	})
}

// CheckChange refuses what ChangePeriod would refuse, and returns the period as it is
// and as it would be.
func (c *Custody) CheckChange(ctx context.Context, id holdfast.AssignmentID, t Terms) (old, a Assignment, err error) {
	old, d, err := c.openPeriod(ctx, id)
	if err != nil {
		return old, a, err
	}
	a = old
	return old, a, c.checkPeriod(ctx, d, &a, t)
}

// CheckEnd refuses what EndPeriod would refuse, and returns the period as it is and
// as it would be.
func (c *Custody) CheckEnd(ctx context.Context, id holdfast.AssignmentID, at time.Time) (old, a Assignment, err error) {
	if old, _, err = c.openPeriod(ctx, id); err != nil {
		return old, a, err
	}
	a = old
	t, err := c.ended(old, at)
	a.To = t.To
	return old, a, err
}

func (c *Custody) ended(a Assignment, at time.Time) (Terms, error) {
	t := a.Terms()
	if at.IsZero() {
		at = c.now()
		if at.Before(a.From) {
			at = a.From
		}
	}
	switch at = at.UTC(); {
	case at.Before(a.From):
		return t, holdfast.Errorf(holdfast.Invalid, "the period begins at %s: it can't end before", a.From.Format(time.RFC3339))
	case !a.To.IsZero() && !at.Before(a.To):
		return t, holdfast.Errorf(holdfast.Conflict, "the period ends at %s already: change it to have it end later", a.To.Format(time.RFC3339))
	}
	t.To = at
	return t, nil
}

// openPeriod returns a period that may change, and its device.
func (c *Custody) openPeriod(ctx context.Context, id holdfast.AssignmentID) (Assignment, Device, error) {
	a, err := c.Assignment(ctx, id)
	if err != nil {
		return a, Device{}, err
	}
	switch {
	case a.State == Erased:
		return a, Device{}, holdfast.Errorf(holdfast.NotFound, "there is no such assignment")
	case !a.Period:
		return a, Device{}, holdfast.Errorf(holdfast.Conflict, "this is the device's own assignment: it ends with the device")
	case a.State != Active:
		return a, Device{}, holdfast.Errorf(holdfast.Conflict, "assignment %s is closed", id)
	case a.Pending != nil:
		return a, Device{}, holdfast.Errorf(holdfast.Conflict, "readings are still being moved or erased after the last change of this period: try again in a moment")
	}
	d, err := c.readDevice(ctx, a.Device)
	return a, d, err
}

// supersede writes a new version of an assignment; under c.changing.
func (c *Custody) supersede(ctx context.Context, by holdfast.CredentialID, kind string, old Assignment, a *Assignment, d Device) error {
	write, err := c.newVersion(ctx, old, a, d)
	if err != nil {
		return err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		if err := write(tx); err != nil {
			return err
		}
		return c.recordPeriod(ctx, tx, kind, *a, d, by)
	})
	if err == nil {
		c.retime(d.ID)
	}
	return err
}

// newVersion seals what is known from now on of an assignment and what was before,
// and returns what writes both.
func (c *Custody) newVersion(ctx context.Context, old Assignment, a *Assignment, d Device) (func(*sql.Tx) error, error) {
	// A version is in force for some time, however small: the clock may be set back.
	a.Recorded = c.now().UTC()
	if !a.Recorded.After(old.Recorded) {
		a.Recorded = old.Recorded.Add(1)
	}
	old.Superseded = a.Recorded
	var number int64
	err := c.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT coalesce(max(number), 0) + 1 FROM assignment_version WHERE assignment = $1`, a.ID).Scan(&number)
	})
	if err != nil {
		return nil, err
	}
	o := vault.OfAssignment(a.ID)
	before, err := c.seal(ctx, o, versionTable, versionRow(a.ID, number), old.info())
	if err != nil {
		return nil, err
	}
	after, err := c.seal(ctx, o, "assignment", a.ID[:], a.info())
	if err != nil {
		return nil, err
	}
	var row holdfast.BlobID
	var shows []byte
	back := ledger.TakeBack{Kind: ledger.AssignmentChange, ID: ledger.TakenID(a.ID), State: a.State, Box: after}
	if a.Period && d.State != Erased {
		err := c.db.Read(ctx, func(tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, `SELECT id FROM period WHERE assignment = $1`, a.ID).Scan(&row)
		})
		if err != nil {
			return nil, err
		}
		if shows, err = c.sealPeriod(ctx, d.Assignment, row, *a); err != nil {
			return nil, err
		}
		if back, err = c.periodBack(ctx, d.Assignment, row, *a, shows); err != nil {
			return nil, err
		}
	}
	return func(tx *sql.Tx) error {
		if err := one(ctx, tx, holdfast.Errorf(holdfast.Conflict, "assignment %s has changed", a.ID),
			`UPDATE assignment SET state = $1, info_sealed = $2 WHERE id = $3 AND state = $4`, a.State, after, a.ID, old.State); err != nil {
			return err
		}
		if shows != nil {
			if _, err := tx.ExecContext(ctx, `UPDATE period SET info_sealed = $1 WHERE id = $2`, shows, row); err != nil {
				return err
			}
		}
		if err := ledger.AddTakeBacks(ctx, tx, back); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO assignment_version (assignment, number, info_sealed) VALUES ($1, $2, $3)`, a.ID, number, before)
		return err
	}, nil
}
