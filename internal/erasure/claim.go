package erasure

import (
	"context"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
)

// A change of who has a device when may move readings from one assignment into another,
// or erase them. While it does, it has them alone: no erasure of them is accepted, and it
// does not begin while one is under way, waits or is to be approved. What an erasure hides
// would not move along, and would die where it was, whatever an undo brings back.

// Claim is what one change has alone, until Release.
type Claim struct {
	g    *Gate
	all  []*opened
	whom access.Principal
}

// Claim keeps readings for a change that moves or erases them. from are the scopes that
// it is to erase where they are, into are the assignments that get some of them. It refuses
// whatever an erasure of them would be refused for, so that nothing is begun that can't be
// ended: Denied where a hold keeps some, a Conflict while an erasure of any of them is not
// done.
func (g *Gate) Claim(ctx context.Context, by access.Principal, from []holdfast.Scope, into []holdfast.AssignmentID) (*Claim, error) {
	g.deciding.Lock()
	defer g.deciding.Unlock()
	c := &Claim{g: g, whom: by}
	for _, s := range from {
		if err := mayAsk(by, s); err != nil {
			return nil, err
		}
		if err := g.check(ctx, s, Wish{}); err != nil {
			return nil, err
		}
		_, kept, err := g.withoutHeld(ctx, s, by.Role == access.Owner)
		switch {
		case err != nil:
			return nil, err
		case len(kept) > 0:
			return nil, holdfast.Errorf(holdfast.Denied, "%s: nothing was changed; say keep, and the readings stay whose they are", whyHeld(kept[0]))
		}
		s.Streams = nil // one that comes while it goes on is concerned, too
		c.all = append(c.all, newOpened(s, false))
	}
	for _, a := range into {
		for _, s := range from {
			c.all = append(c.all, newOpened(holdfast.Scope{Assignments: []holdfast.AssignmentID{a}, Span: s.Span}, false))
		}
	}
	if err := c.free(ctx); err != nil {
		return nil, err
	}
	g.claims = append(g.claims, c)
	return c, nil
}

// Release ends a claim.
func (c *Claim) Release() {
	c.g.deciding.Lock()
	defer c.g.deciding.Unlock()
	c.g.claims = slices.DeleteFunc(c.g.claims, func(x *Claim) bool { return x == c })
}

// Erase is Ask for what the claim has: whether it may go was settled when it was made.
func (c *Claim) Erase(ctx context.Context, s holdfast.Scope) (Erasure, error) {
	return c.g.Request(ctx, c.whom, s, Wish{claim: c})
}

// free refuses a claim on what an erasure or another claim has. Under Gate.deciding.
func (c *Claim) free(ctx context.Context) error {
	all, err := c.g.list(ctx, `state IN ($1, $2, $3)`, Waiting, Approval, Asked)
	if err != nil {
		return err
	}
	for i := range all {
		if e := &all[i]; slices.ContainsFunc(e.parts(), c.shares) {
			return c.busy(e)
		}
	}
	for _, x := range c.g.claims {
		if slices.ContainsFunc(x.all, func(o *opened) bool { return c.shares(o.Scope) }) {
			return errMoving
		}
	}
	return nil
}

var errMoving = holdfast.Errorf(holdfast.Conflict, "readings of this are being moved or erased after a change of who has the device when: try again in a moment")

// busy says which erasure is in the way, to whoever may know of it.
func (c *Claim) busy(e *Erasure) error {
	if c.whom.Role != access.Administrator && e.Party != c.whom.Party {
		return holdfast.Errorf(holdfast.Conflict, "some of these readings can't be moved or erased now: try again later, or say keep, and they stay whose they are")
	}
	switch e.State {
	case Waiting:
		return holdfast.Errorf(holdfast.Conflict, "erasure %s covers some of these readings and can be undone until %s: undo it, or let it end; nothing was changed",
			e.ID, e.Until.Format(time.RFC3339))
	case Approval:
		return holdfast.Errorf(holdfast.Conflict, "erasure %s covers some of these readings and waits for approval until %s: have it approved, refused or taken back first; nothing was changed",
			e.ID, e.Until.Format(time.RFC3339))
	}
	return holdfast.Errorf(holdfast.Conflict, "erasure %s of some of these readings is under way: wait until it is done; nothing was changed", e.ID)
}

// shares reports whether a scope and the claim have something in common.
func (c *Claim) shares(s holdfast.Scope) bool {
	return slices.ContainsFunc(c.all, func(o *opened) bool {
		return o.Span.Overlaps(s.Span) && slices.ContainsFunc(s.Assignments, func(a holdfast.AssignmentID) bool {
			_, ok := o.assignments[a]
			return ok
		})
	})
}

// unclaimed refuses an erasure of what another has claimed. Under Gate.deciding.
func (g *Gate) unclaimed(s holdfast.Scope, own *Claim) error {
	if slices.ContainsFunc(g.claims, func(c *Claim) bool { return c != own && c.shares(s) }) {
		return errMoving
	}
	return nil
}
