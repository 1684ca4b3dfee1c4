package identity

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/holdfast-iot/holdfast"
)

// Erase removes what this package knows about the devices of erased assignments:
// certificates, codes, and the link from device to assignment. Their connections
// end and their certificates are refused, at once by this process's memory, and
// for good because a device without a row is nobody's. An erasure of some streams
// or of a span of time leaves the device its identity.
//
// It needs no key of the erased owner, so it may run before or after that key is
// destroyed; it may run again.
func (i *Identity) Erase(ctx context.Context, s holdfast.Scope) error {
	if s.InPart() {
		return nil
	}
	now := i.now()
	gone := make(map[holdfast.DeviceID][][32]byte)
	err := i.catalog.Write(ctx, func(tx *sql.Tx) error {
		clear(gone)
		for _, a := range s.Assignments {
			devices, err := devicesOf(ctx, tx, a)
			if err != nil {
				return err
			}
			for _, d := range devices {
				if gone[d], err = i.takeBack(ctx, tx, d, now); err != nil {
					return err
				}
				for _, q := range []string{
					`DELETE FROM device_certificate WHERE device = $1`,
					`DELETE FROM identity_device WHERE device = $1`,
				} {
					if _, err := tx.ExecContext(ctx, q, d); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("erase identities: %w", err)
	}
	var open []*connection
	for d, fs := range gone {
		open = append(open, i.live.revoke(now, d, fs)...)
	}
	cut(open)
	return nil
}

func devicesOf(ctx context.Context, tx *sql.Tx, a holdfast.AssignmentID) (out []holdfast.DeviceID, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT device FROM identity_device WHERE assignment = $1`, a)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var d holdfast.DeviceID
		if err := rows.Scan(&d); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, rows.Err()
}
