package custody

import (
	"context"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// acting is a party in whose place another acts, and when.
type acting struct {
	party    holdfast.PartyID
	from, to time.Time // zero to: open
	settles  time.Time // from when he may do in its place what can't be undone; zero: at once
}

// settling is how long who came in at an administrator's word waits before he may do
// in a household's or a child's place what can't be undone, as long as a credential
// made at one does: the others see him come and can put him out.
const settling = 7 * 24 * time.Hour

// ActsFor returns the parties in whose place a person reads and acts as owner now:
// the households whose adult he is, and the children whose guardian he is, each
// until its majority. It is in memory after the first question, and a membership
// that ends takes it back at once.
func (c *Custody) ActsFor(ctx context.Context, party holdfast.PartyID) ([]holdfast.PartyID, error) {
	all, err := c.actings(ctx, party)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	now := c.now()
	var out []holdfast.PartyID
	for _, a := range all {
		if !now.Before(a.from) && (a.to.IsZero() || now.Before(a.to)) && !slices.Contains(out, a.party) {
			out = append(out, a.party)
		}
	}
	return out, nil
}

// SettledFor reports whether a person may do in another's place what can't be undone.
// Only an administrator's word makes him wait, and only where others act for that
// party already: a household's first adult has nobody to ask.
func (c *Custody) SettledFor(ctx context.Context, person, party holdfast.PartyID) (bool, error) {
	all, err := c.actings(ctx, person)
	now := c.now()
	return slices.ContainsFunc(all, func(a acting) bool {
		return a.party == party && !now.Before(a.from) && (a.to.IsZero() || now.Before(a.to)) && !now.Before(a.settles)
	}), err
}

// settlesAt is when a membership that makes its holder act for another settles.
func (c *Custody) settlesAt(ctx context.Context, m Membership) (time.Time, error) {
	operating, err := c.Operating(ctx)
	if err != nil || m.offeredBy != operating {
		return time.Time{}, err
	}
	all, err := c.memberships(ctx, `of = $1`, m.Of)
	if err != nil {
		return time.Time{}, err
	}
	if slices.ContainsFunc(all, func(o Membership) bool {
		return o.ID != m.ID && o.Kind == m.Kind && o.Ward == m.Ward && o.accepted && o.From.Before(m.From)
	}) {
		return m.From.Add(settling), nil
	}
	return time.Time{}, nil
}

func (c *Custody) actings(ctx context.Context, party holdfast.PartyID) ([]acting, error) {
	c.mu.RLock()
	all, ok := c.acting[party]
	turn := c.actingTurn
	c.mu.RUnlock()
	if ok {
		return all, nil
	}
	has, err := c.memberships(ctx, `member = $1 AND state = 'active'`, party)
	if err != nil {
		return nil, err
	}
	for _, m := range has {
		if m.Kind != Adult && m.Kind != Guardian {
			continue
		}
		settles, err := c.settlesAt(ctx, m)
		if err != nil {
			return nil, err
		}
		switch m.Kind {
		case Adult:
			all = append(all, acting{m.Of, m.From, m.To, settles})
		case Guardian:
			of, err := c.memberships(ctx, `of = $1 AND member = $2 AND state = 'active'`, m.Of, m.Ward)
			if err != nil {
				return nil, err
			}
			for _, child := range of {
				if child.Kind == Minor {
					all = append(all, acting{child.Member, later(m.From, child.From), earlier(m.To, child.To), settles})
				}
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.actingTurn == turn {
		if len(c.acting) >= c.max {
			clear(c.acting)
		}
		c.acting[party] = all
	}
	return all, nil
}

// forgetActing makes the next questions read the catalog.
func (c *Custody) forgetActing() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.actingTurn++
	clear(c.acting)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// earlier takes a zero time for one that never comes.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// EndMajorities ends the memberships of children who have come of age, and those
// of their guardians. They have not counted since that day: this puts it on record,
// so that a clock that is set back brings nothing back.
func (c *Custody) EndMajorities(ctx context.Context) error {
	all, err := c.memberships(ctx, `state = 'active'`)
	if err != nil {
		return err
	}
	now := c.now()
	grown := map[[2]holdfast.PartyID]bool{}
	for _, m := range all {
		if m.Kind == Minor && !now.Before(m.To) {
			grown[[2]holdfast.PartyID{m.Of, m.Member}] = true
		}
	}
	for _, m := range all {
		child := m.Kind == Minor && grown[[2]holdfast.PartyID{m.Of, m.Member}]
		guardian := m.Kind == Guardian && grown[[2]holdfast.PartyID{m.Of, m.Ward}]
		over := m.Kind != Minor && !m.To.IsZero() && !now.Before(m.To)
		if !child && !guardian && !over {
			continue
		}
		what := "majority reached"
		if over {
			what = "member ended"
		}
		m.State = Ended
		if m.To.IsZero() {
			m.To = now.UTC()
		}
		if err := c.changeMember(ctx, what, m, Active, holdfast.CredentialID{}); err != nil && holdfast.KindOf(err) != holdfast.Conflict {
			return err
		}
	}
	return nil
}
