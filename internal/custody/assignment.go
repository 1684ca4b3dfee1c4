package custody

import (
	"context"
	"database/sql"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Assignment says that a device's readings between two times are an owner's. Its
// id is the owner of their keys.
type Assignment struct {
	ID      holdfast.AssignmentID
	Device  holdfast.DeviceID
	Owner   holdfast.PartyID // zero: unclaimed or erased
	Subject holdfast.PartyID // whom the readings are about, if another than the owner
	State   string           // Unclaimed, Active, Closed or Erased
	From    time.Time        // zero: not yet
	To      time.Time        // zero: open
}

type assignmentInfo struct {
	From int64 `json:"from,omitempty"`
	To   int64 `json:"to,omitempty"`
}

type assignmentRow struct {
	Assignment
	box []byte
}

func (c *Custody) assignments(ctx context.Context, where string, args ...any) ([]Assignment, error) {
	var rows []assignmentRow
	err := c.db.Read(ctx, func(tx *sql.Tx) error {
		q, err := tx.QueryContext(ctx, `SELECT id, device, owner, subject, state, info_sealed FROM assignment WHERE `+where, args...)
		if err != nil {
			return err
		}
		defer q.Close()
		for q.Next() {
			var r assignmentRow
			if err := q.Scan(&r.ID, &r.Device, &r.Owner, &r.Subject, &r.State, &r.box); err != nil {
				return err
			}
			rows = append(rows, r)
		}
		return q.Err()
	})
	if err != nil {
		return nil, err
	}
	all := make([]Assignment, 0, len(rows))
	for _, r := range rows {
		a := r.Assignment
		if a.State != Erased {
			var info assignmentInfo
			switch err := c.open(ctx, vault.OfAssignment(a.ID), "assignment", a.ID[:], r.box, &info); {
			case gone(err):
				a.State = Erased
			case err != nil:
				return nil, err
			}
			a.From, a.To = instant(info.From), instant(info.To)
		}
		all = append(all, a)
	}
	return all, nil
}

func instant(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// Assignment returns an assignment, an erased one with its id and state alone.
func (c *Custody) Assignment(ctx context.Context, id holdfast.AssignmentID) (Assignment, error) {
	all, err := c.assignments(ctx, `id = $1`, id)
	if err != nil {
		return Assignment{}, err
	}
	if len(all) == 0 {
		return Assignment{}, holdfast.Errorf(holdfast.NotFound, "there is no such assignment")
	}
	return all[0], nil
}

// Assignments returns those in which a party is the owner or the data subject.
func (c *Custody) Assignments(ctx context.Context, party holdfast.PartyID) ([]Assignment, error) {
	return c.assignments(ctx, `owner = $1 OR subject = $1`, party)
}

// AssignmentsAbout returns those of which a party is the data subject, another
// being the owner.
func (c *Custody) AssignmentsAbout(ctx context.Context, subject holdfast.PartyID) ([]Assignment, error) {
	return c.assignments(ctx, `subject = $1`, subject)
}

// CloseAssignment ends an assignment and closes its device: no more readings are
// taken, those there are stay the owner's. A change of owner is a new device.
func (c *Custody) CloseAssignment(ctx context.Context, by holdfast.CredentialID, id holdfast.AssignmentID) error {
	a, err := c.Assignment(ctx, id)
	if err != nil {
		return err
	}
	closed := holdfast.Errorf(holdfast.Conflict, "assignment %s is not open", id)
	if a.State != Active && a.State != Unclaimed {
		return closed
	}
	info := assignmentInfo{To: c.now().UnixNano()}
	if !a.From.IsZero() {
		info.From = a.From.UnixNano()
	}
	box, err := c.seal(ctx, vault.OfAssignment(id), "assignment", id[:], info)
	if err != nil {
		return err
	}
	err = c.db.Write(ctx, func(tx *sql.Tx) error {
		if err := one(ctx, tx, closed, `UPDATE assignment SET state = $1, info_sealed = $2 WHERE id = $3 AND state = $4`,
			Closed, box, id, a.State); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM claim_code WHERE device = $1`, a.Device); err != nil {
			return err
		}
		// The name within the gateway is free for the next device.
		if _, err := tx.ExecContext(ctx, `UPDATE device SET state = $1, child_hash = NULL WHERE assignment = $2`, Closed, id); err != nil {
			return err
		}
		_, err := c.ledger.Append(ctx, tx, recordOf(a.Owner), "assignment closed", deviceEvent{a.Device, id, by})
		return err
	})
	if err != nil {
		return err
	}
	c.Forget(id)

	return nil
}
