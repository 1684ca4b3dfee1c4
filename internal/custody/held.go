package custody

import (
	"context"
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// Held reports whether readings of a device are or were a party's: whether an
// assignment of the device that is not erased has it as the one whose data it is.
func (c *Custody) Held(ctx context.Context, party holdfast.PartyID, device holdfast.DeviceID) (bool, error) {
	all, err := c.Holdings(ctx, party)
	return slices.ContainsFunc(all, func(a Assignment) bool { return a.Device == device && a.Whose() == party }), err
}

// Employs reports whether a party is the other's employer here: by a membership, or as
// the owner of a device that is about the other because he works for it.
func (c *Custody) Employs(ctx context.Context, employer, worker holdfast.PartyID) (bool, error) {
	now := c.now()
	has, err := c.memberships(ctx, `of = $1 AND member = $2 AND state = 'active'`, employer, worker)
	if err != nil || slices.ContainsFunc(has, func(m Membership) bool { return m.Kind == Employee && m.In(now) }) {
		return err == nil, err
	}
	all, err := c.AssignmentsAbout(ctx, worker)
	return slices.ContainsFunc(all, func(a Assignment) bool {
		return a.Owner == employer && a.Basis == Employ && (a.To.IsZero() || a.To.After(now))
	}), err
}
