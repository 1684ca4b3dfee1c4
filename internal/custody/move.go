package custody

import (
	"context"
	"database/sql"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// move is a unit, and the children that go along with it, on the way from one
// owner to the next or to nobody.
type move struct {
	c     *Custody
	parts []part
	// Children of the gateway that stay: active still, without a gateway.
	stay []Device
}

// part is one device of a move.
type part struct {
	old   Device
	close func(context.Context, *sql.Tx) error
	plan  *plan
}

// planMove makes all that needs a key before the transaction. owner zero: the unit
// becomes unclaimed. What a unit is called on its way is its serial, its profile or
// just device, if no label is given: the words of the one owner are not the next
// one's. c.changing is held until it is applied.
func (c *Custody) planMove(ctx context.Context, by holdfast.CredentialID, d Device, owner holdfast.PartyID, label string, children bool) (*move, error) {
	m := &move{c: c}
	first, err := c.planPart(ctx, by, d, owner, label, holdfast.DeviceID{}, nil)
	if err != nil {
		return nil, err
	}
	m.parts = append(m.parts, first)
	all, err := c.Children(ctx, d.ID)
	if err != nil {
		return nil, err
	}
	labels := map[string]bool{first.plan.Device.Label: true}
	for _, child := range all {
		switch {
		case child.State != Active && child.State != Unclaimed:
		case children && child.State == Active && child.Owner == d.Owner:
			p, err := c.planPart(ctx, by, child, owner, "", first.plan.Device.ID, labels)
			if err != nil {
				return nil, err
			}
			m.parts = append(m.parts, p)
		default:
			m.stay = append(m.stay, child)
		}
	}
	return m, nil
}

// planPart plans what one device becomes. used are labels that other parts of the
// move take.
func (c *Custody) planPart(ctx context.Context, by holdfast.CredentialID, old Device, owner holdfast.PartyID, label string, gateway holdfast.DeviceID, used map[string]bool) (part, error) {
	if label == "" {
		var err error
		if label, err = c.neutralLabel(ctx, old); err != nil {
			return part{}, err
		}
	} else if err := checkName("device", label); err != nil {
		return part{}, err
	}
	d := Device{ID: holdfast.NewID[holdfast.DeviceID](), Assignment: holdfast.NewID[holdfast.AssignmentID](), Unit: old.Unit, Owner: owner,
		Label: label, Profile: old.Profile, ProfileVersion: old.ProfileVersion, Gateway: gateway, State: Active, Added: c.now().UTC()}
	p := &plan{Added: Added{Device: d}}
	var err error
	if owner.IsZero() {
		p.Device.State = Unclaimed
		if p.ClaimCode, p.codeHash, err = c.newCode(ctx); err != nil {
			return part{}, err
		}
	}
	if p.labelHash, err = c.labelBeside(ctx, owner, &p.Device, used); err != nil {
		return part{}, err
	}
	if !gateway.IsZero() { // what the gateway calls it is in the gateway's own program
		p.Device.Child = old.Child
		if p.childHash, err = c.childHash(ctx, gateway, old.Child); err != nil {
			return part{}, err
		}
	}
	if err := c.sealDevice(ctx, p); err != nil {
		return part{}, err
	}
	shut, err := c.planClosing(ctx, by, old)
	return part{old: old, close: shut, plan: p}, err
}

// labelBeside is freeLabel that also keeps away from labels that are about to be
// used.
func (c *Custody) labelBeside(ctx context.Context, owner holdfast.PartyID, d *Device, used map[string]bool) ([]byte, error) {
	base := d.Label
	for n := 2; ; n++ {
		hash, err := c.freeLabel(ctx, owner, d)
		if err != nil || !used[d.Label] {
			if used != nil {
				used[d.Label] = true
			}
			return hash, err
		}
		d.Label = numbered(base, n)
	}
}

func (c *Custody) neutralLabel(ctx context.Context, d Device) (string, error) {
	if !d.Unit.IsZero() {
		u, err := c.Unit(ctx, d.Unit)
		if err != nil {
			return "", err
		}
		if checkName("device", u.Serial) == nil {
			return u.Serial, nil
		}
	}
	if d.Profile != "" && checkName("device", d.Profile) == nil {
		return d.Profile, nil
	}
	return "device", nil
}

// apply carries the move out.
func (m *move) apply(ctx context.Context, tx *sql.Tx, by holdfast.CredentialID, also Within) error {
	c := m.c
	for _, p := range m.parts {
		if err := p.close(ctx, tx); err != nil {
			return err
		}
	}
	for _, d := range m.stay {
		if err := one(ctx, tx, holdfast.Errorf(holdfast.Conflict, "device %s has just changed: ask again", d.ID),
			`UPDATE device SET gateway = NULL, child_hash = NULL WHERE id = $1 AND gateway = $2`, d.ID, d.Gateway); err != nil {
			return err
		}
		if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.GatewayGone, ID: ledger.TakenID(d.ID), Of: ledger.TakenID(d.Gateway)}); err != nil {
			return err
		}
		if _, err := c.ledger.Append(ctx, tx, recordOf(d.Owner), "gateway gone", deviceEvent{d.ID, d.Assignment, by}); err != nil {
			return err
		}
	}
	for _, p := range m.parts {
		if err := p.plan.insert(ctx, tx); err != nil {
			return err
		}
		if _, err := c.ledger.Append(ctx, tx, p.plan.record(), "device added", p.plan.event(by)); err != nil {
			return err
		}
	}
	return also(ctx, tx, m.moved())
}

func (m *move) moved() []Moved {
	var all []Moved
	for _, p := range m.parts {
		all = append(all, Moved{Old: p.old, New: p.plan.Device})
	}
	return all
}

// forget drops what memory holds of all that moved or lost its gateway.
func (m *move) forget() {
	for _, p := range m.parts {
		m.c.retime(p.old.ID)
	}
	for _, d := range m.stay {
		m.c.retime(d.ID)
	}
}

// planClosing seals the end of a device's own assignment and of its periods, and
// returns what writes it and closes the device. c.changing is held until then.
func (c *Custody) planClosing(ctx context.Context, by holdfast.CredentialID, d Device) (func(context.Context, *sql.Tx) error, error) {
	all, err := c.AssignmentsOf(ctx, d.ID)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 || all[0].ID != d.Assignment || all[0].State != d.State {
		return nil, holdfast.Errorf(holdfast.Conflict, "device %s has just changed: ask again", d.ID)
	}
	old := all[0]
	a := old
	a.State, a.To = Closed, c.now().UTC()
	if a.To.Before(a.From) {
		a.To = a.From
	}
	write, err := c.newVersion(ctx, old, &a, d)
	if err != nil {
		return nil, err
	}
	ends, err := c.endPeriods(ctx, by, d, all, a.To)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, tx *sql.Tx) error {
		for _, step := range []func(*sql.Tx) error{write, ends} {
			if err := step(tx); err != nil {
				return err
			}
		}
		if err := closeDevice(ctx, tx, d.ID); err != nil {
			return err
		}
		if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.DeviceClosed, ID: ledger.TakenID(d.ID)}); err != nil {
			return err
		}
		_, err := c.ledger.Append(ctx, tx, recordOf(a.Owner), "assignment closed", deviceEvent{d.ID, a.ID, by})
		return err
	}, nil
}
