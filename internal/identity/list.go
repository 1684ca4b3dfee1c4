package identity

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"slices"
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

// Ending is a device whose newest certificate ends soon or has ended.
type Ending struct {
	Device   holdfast.DeviceID
	NotAfter time.Time
	Renews   bool // it may still renew itself
}

// Ending returns the devices whose newest certificate that counts ends before a
// time, those that ended first. Revoked devices are left out.
func (i *Identity) Ending(ctx context.Context, before time.Time) ([]Ending, error) {
	var out []Ending
	err := i.catalog.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT device, MAX(not_after) FROM device_certificate WHERE state IN ($1, $2)
			GROUP BY device HAVING MAX(not_after) < $3 ORDER BY MAX(not_after), device`, stateFresh, stateUsed, before.UnixNano())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e Ending
			var to int64
			if err := rows.Scan(&e.Device, &to); err != nil {
				return err
			}
			e.NotAfter = time.Unix(0, to).UTC()
			e.Renews = i.now().Before(e.NotAfter.Add(grace))
			out = append(out, e)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list certificates that end: %w", err)
	}
	return out, nil
}

// OldTLS is a device that came without TLS 1.3, and when last.
type OldTLS struct {
	Device holdfast.DeviceID
	Last   time.Time
}

// mostOldTLS bounds how many such devices are remembered.
const mostOldTLS = 4096

func (l *live) cameByOldTLS(d holdfast.DeviceID, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.oldTLS[d]; known || len(l.oldTLS) < mostOldTLS {
		l.oldTLS[d] = now
	}
}

// OldTLS returns the devices that came without TLS 1.3 since a time and since the
// start, in order of their ids.
func (i *Identity) OldTLS(since time.Time) []OldTLS {
	i.live.mu.Lock()
	defer i.live.mu.Unlock()
	var out []OldTLS
	for d, at := range i.live.oldTLS {
		if at.Before(since) {
			delete(i.live.oldTLS, d)
			continue
		}
		out = append(out, OldTLS{d, at})
	}
	slices.SortFunc(out, func(a, b OldTLS) int { return bytes.Compare(a.Device[:], b.Device[:]) })
	return out
}
