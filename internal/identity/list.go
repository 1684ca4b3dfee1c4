package identity

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Certificate is one certificate of a device, as a listing shows it.
type Certificate struct {
	Fingerprint [32]byte
	NotBefore   time.Time
	NotAfter    time.Time
	State       string // "fresh" until it is first used, "used", "superseded", "revoked"
}

var stateNames = [...]string{stateFresh: "fresh", stateUsed: "used", stateSuperseded: "superseded", stateRevoked: "revoked"}

// Certificates returns a device's certificates, oldest first, without those that
// ended more than 180 days before the last one was issued.
func (i *Identity) Certificates(ctx context.Context, d holdfast.DeviceID) ([]Certificate, error) {
	var out []Certificate
	err := i.catalog.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT fingerprint, not_before, not_after, state FROM device_certificate WHERE device = $1 ORDER BY number`, d)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c Certificate
			var f []byte
			var from, to int64
			var state int
			if err := rows.Scan(&f, &from, &to, &state); err != nil {
				return err
			}
			if len(f) != len(c.Fingerprint) || state < stateFresh || state > stateRevoked {
				return fmt.Errorf("a damaged row")
			}
			c.Fingerprint = [32]byte(f)
			c.NotBefore, c.NotAfter, c.State = time.Unix(0, from).UTC(), time.Unix(0, to).UTC(), stateNames[state]
			out = append(out, c)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list certificates of device %s: %w", d, err)
	}
	return out, nil
}
