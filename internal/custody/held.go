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

// HeldAs reports whether the data of each of some assignments are a party's: not those
// of an assignment of his that is about somebody else, nor of an erased one.
func (c *Custody) HeldAs(ctx context.Context, party holdfast.PartyID, assignments []holdfast.AssignmentID) (bool, error) {
	all, err := c.Holdings(ctx, party)
	if err != nil {
		return false, err
	}
	his := map[holdfast.AssignmentID]bool{}
	for _, a := range all {
		his[a.ID] = a.Whose() == party
	}
	return !slices.ContainsFunc(assignments, func(id holdfast.AssignmentID) bool { return !his[id] }), nil
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
