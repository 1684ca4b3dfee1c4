package custody

import (
	"context"
	"database/sql"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Source is where a device's readings came from, as far as the hub can tell it again
// when the device is erased: the name that a gateway uses, the unit's serial, the
// label. It is a keyed hash of its own domain, so that it is like nothing else in the
// catalog, and names nobody.
type Source struct {
	Hash []byte `json:"hash"`
	// Serial: of a label whose device had a serial. Another serial is another unit then,
	// whatever its label.
	Serial bool `json:"serial,omitempty"`
}

// sourceBytes of a keyed hash tell sources apart.
const sourceBytes = 16

func (c *Custody) source(ctx context.Context, domain, text string) ([]byte, error) {
	hash, err := c.keys.Hash(ctx, domain, text)
	if err != nil {
		return nil, err
	}
	return hash[:sourceBytes], nil
}

// sourcesOf are those of a device; of a label, whether it has a serial.
func (c *Custody) sourcesOf(ctx context.Context, d Device, serial string) (all []Source, err error) {
	add := func(domain, text string, of bool) {
		if err != nil {
			return
		}
		var hash []byte
		if hash, err = c.source(ctx, domain, text); err == nil {
			all = append(all, Source{hash, of})
		}
	}
	if !d.Gateway.IsZero() && d.Child != "" {
		add("erased child", string(d.Gateway[:])+"\x00"+d.Child, false)
	}
	if serial != "" {
		add("erased serial", serial, false)
	}
	add("erased label", d.Label, serial != "")
	if d.Child != "" && d.Child != d.Label { // what another gateway would call it
		add("erased label", d.Child, serial != "")
	}
	return all, err
}

// Sources returns those of the devices whose own assignments are among some. It is
// asked before their keys die.
func (c *Custody) Sources(ctx context.Context, assignments []holdfast.AssignmentID) ([]Source, error) {
	var out []Source
	for _, a := range assignments {
		all, err := c.living(ctx, `d.assignment = $1`, a)
		if err != nil {
			return nil, err
		}
		for _, d := range all {
			var u Unit
			if !d.Unit.IsZero() {
				if u, err = c.Unit(ctx, d.Unit); err != nil && !vault.Gone(err) {
					return nil, err
				}
			}
			of, err := c.sourcesOf(ctx, d, u.Serial)
			if err != nil {
				return nil, err
			}
			out = append(out, of...)
		}
	}
	return out, nil
}

// Remember has what is declared at some sources take nothing from before it was, in
// the transaction of the erasure that ends their devices.
func (c *Custody) Remember(ctx context.Context, tx *sql.Tx, sources []Source, until time.Time) error {
	for _, s := range sources {
		if _, err := tx.ExecContext(ctx, `INSERT INTO erased_source (hash, serial, expires) VALUES ($1, $2, $3)
			ON CONFLICT (hash, serial) DO UPDATE SET expires = max(expires, excluded.expires)`, s.Hash, s.Serial, until.UnixNano()); err != nil {
			return err
		}
	}
	return nil
}

// remembered returns until when a device that is declared now takes nothing from
// before; zero: nothing was erased that came from where it does.
func (p *plan) remembered(ctx context.Context, tx *sql.Tx, now time.Time) (until time.Time, err error) {
	for _, s := range p.sources {
		// Two serials are two units; without both, the same label is taken for the same.
		var expires int64
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(expires), 0) FROM erased_source WHERE hash = $1 AND NOT (serial = 1 AND $2 = 1)`,
			s.Hash, s.Serial).Scan(&expires); err != nil {
			return until, err
		}
		if expires > now.UnixNano() && expires > holdfast.Nanoseconds(until) {
			until = holdfast.Instant(expires)
		}
	}
	return until, nil
}

// barPast keeps out of a new device what was taken before it was declared, if
// something was erased that came from where it does.
func (c *Custody) barPast(ctx context.Context, tx *sql.Tx, p *plan) error {
	until, err := p.remembered(ctx, tx, c.now())
	if err != nil || until.IsZero() {
		return err
	}
	if c.keepOut == nil {
		return holdfast.Errorf(holdfast.Internal, "device %s comes from where something was erased, and nothing keeps that out", p.Device.ID)
	}
	p.TakesFrom = p.Device.Added
	return c.keepOut(ctx, tx, p.Device, until)
}

// ForgetSources drops those whose time is over.
func (c *Custody) ForgetSources(ctx context.Context) error {
	now, over := c.now().UnixNano(), false
	err := c.db.Read(ctx, func(tx *sql.Tx) (err error) {
		over, err = exists(ctx, tx, `SELECT count(*) FROM erased_source WHERE expires <= $1`, now)
		return err
	})
	if err != nil || !over {
		return err
	}
	return c.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM erased_source WHERE expires <= $1`, now)
		return err
	})
}
