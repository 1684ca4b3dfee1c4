package custody

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// A period that was given since must stand after a restore: without it what the device
// measures in somebody else's time would be its owner's. Its terms are in the take-back
// under the key of the device's own assignment, which a catalog from before the period
// opens: the keys that seal the period's own columns are not in it.

// termsTable names what is sealed of a period's terms for a restore.
const termsTable = "period_terms"

// taken is what a take-back says of a period beside its sealed terms.
type taken struct {
	Owner   holdfast.PartyID `json:"owner"`
	Subject holdfast.PartyID `json:"subject,omitzero"`
	Row     ledger.TakenID   `json:"row"`  // of the table period
	Mark    []byte           `json:"mark"` // its sealed column
}

// periodBack is the take-back of a period as it is from now on. mark is the sealed
// column of its row of the table period; own, the device's own assignment, seals that
// too.
func (c *Custody) periodBack(ctx context.Context, own holdfast.AssignmentID, row [holdfast.IDSize]byte, a Assignment, mark []byte) (ledger.TakeBack, error) {
	t := ledger.TakeBack{Kind: ledger.PeriodTerms, ID: ledger.TakenID(a.ID), Of: ledger.TakenID(a.Device), State: a.State}
	var err error
	if t.Data, err = json.Marshal(taken{a.Owner, a.Subject, ledger.TakenID(row), mark}); err != nil {
		return t, err
	}
	t.Box, err = c.seal(ctx, vault.OfAssignment(own), termsTable, a.ID[:], a.info())
	return t, err
}

// ReplayPeriod has a period be what it became in a catalog that was put back to an
// earlier state. One that was given since is given again, if its device, its owner and
// whom it is about are known there; if a person is not, or the period was erased since,
// its time is nobody's. It may run again.
func (c *Custody) ReplayPeriod(ctx context.Context, t ledger.TakeBack) error {
	var x taken
	if err := json.Unmarshal(t.Data, &x); err != nil {
		return holdfast.Errorf(holdfast.Invalid, "take-back %d can't be read", t.Number)
	}
	d, err := c.readDevice(ctx, holdfast.DeviceID(t.Of))
	if vault.Gone(err) || err == nil && d.State == Erased {
		return nil
	} else if err != nil {
		return err
	}
	var info assignmentInfo
	switch err := c.open(ctx, vault.OfAssignment(d.Assignment), termsTable, t.ID[:], t.Box, &info); {
	case vault.Gone(err): // with the device's own assignment
		return nil
	case err != nil:
		return err
	}
	id := holdfast.AssignmentID(t.ID)
	box, err := c.sealAgain(ctx, id, x, info)
	if err != nil {
		return err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		if box != nil {
			if _, err := tx.ExecContext(ctx, `INSERT INTO assignment (id, device, owner, subject, state, info_sealed) VALUES ($1, $2, $3, $4, $5, $6)
				ON CONFLICT (id) DO UPDATE SET state = excluded.state, info_sealed = excluded.info_sealed WHERE assignment.state = 'active'`,
				id, d.ID, x.Owner, x.Subject, t.State, box); err != nil {
				return err
			}
		}
		of := id
		if box == nil {
			of = holdfast.AssignmentID{}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO period (id, device, assignment, info_sealed) VALUES ($1, $2, $3, $4)
			ON CONFLICT (id) DO UPDATE SET info_sealed = excluded.info_sealed`, x.Row, d.ID, of, x.Mark)
		return err
	})
	if err != nil {
		return fmt.Errorf("replay period %s: %w", id, err)
	}
	c.retime(d.ID)
	return nil
}

// sealAgain seals a period's column under its own key. There is nothing if that was
// destroyed, or if somebody whom the period concerns is not known here.
func (c *Custody) sealAgain(ctx context.Context, id holdfast.AssignmentID, x taken, info assignmentInfo) ([]byte, error) {
	o := vault.OfAssignment(id)
	if !c.keys.HasOwner(o) {
		return nil, nil
	}
	for _, p := range []holdfast.PartyID{x.Owner, x.Subject} {
		if p.IsZero() {
			continue
		}
		var known bool
		err := c.db.Read(ctx, func(tx *sql.Tx) (err error) {
			known, err = exists(ctx, tx, `SELECT count(*) FROM party WHERE id = $1`, p)
			return err
		})
		if err != nil || !known {
			return nil, err
		}
	}
	if err := c.keys.AddOwner(ctx, o); err != nil { // it has its key, not the list that the catalog keeps
		return nil, err
	}
	return c.seal(ctx, o, "assignment", id[:], info)
}
