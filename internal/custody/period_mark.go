package custody

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func (c *Custody) checkOverlap(ctx context.Context, d Device, a Assignment) error {
	marks, err := c.marks(ctx, d)
	if err != nil {
		return err
	}
	if len(marks) >= MaxPeriods && !slices.ContainsFunc(marks, func(m mark) bool { return m.assignment == a.ID }) {
		return holdfast.Errorf(holdfast.TooLarge, "a device has at most %d periods: add a new device", MaxPeriods)
	}
	for _, m := range marks {
		if m.assignment == a.ID {
			continue
		}
		if at, shared := a.window().collides(m.window); shared {
			if m.assignment.IsZero() {
				return holdfast.Errorf(holdfast.Conflict, "at %s there was a period that is erased: its time stays nobody's; choose another time",
					holdfast.Instant(at).Format(time.RFC3339))
			}
			return holdfast.Errorf(holdfast.Conflict, "at %s the device is in another period: end that one first, or choose another time or other hours",
				holdfast.Instant(at).Format(time.RFC3339))
		}
	}
	return nil
}

// mark is when a device's readings are not its own assignment's.
type mark struct {
	row        [holdfast.IDSize]byte
	assignment holdfast.AssignmentID // zero: erased
	window
}

// marks returns those of a device. Of one whose own assignment is erased there are
// none: it takes no readings.
func (c *Custody) marks(ctx context.Context, d Device) ([]mark, error) {
	type row struct {
		mark
		box []byte
	}
	var rows []row
	err := c.db.Read(ctx, func(tx *sql.Tx) error {
		rows = rows[:0]
		q, err := tx.QueryContext(ctx, `SELECT id, assignment, info_sealed FROM period WHERE device = $1`, d.ID)
		if err != nil {
			return err
		}
		defer q.Close()
		for q.Next() {
			var r row
			var id holdfast.BlobID
			if err := q.Scan(&id, &r.assignment, &r.box); err != nil {
				return err
			}
			r.row = id
			rows = append(rows, r)
		}
		return q.Err()
	})
	if err != nil {
		return nil, err
	}
	marks := make([]mark, 0, len(rows))
	for _, r := range rows {
		var info periodInfo
		switch err := c.open(ctx, vault.OfAssignment(d.Assignment), "period", r.row[:], r.box, &info); {
		case vault.Gone(err):
			continue
		case err != nil:
			return nil, err
		}
		if r.window, err = info.window(); err != nil {
			return nil, err
		}
		marks = append(marks, r.mark)
	}
	return marks, nil
}
