package policy

import (
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// Set is what one party said about its data, compiled once: its grants and what it
// forbids. It is immutable and safe for concurrent use.
type Set struct {
	whose   holdfast.PartyID
	grants  []Grant
	forbids []Forbid
}

// Compile makes the Set of a party. An error says what in its words can't be
// followed; who writes them asks before they stand.
func Compile(whose holdfast.PartyID, grants []Grant, forbids []Forbid) (*Set, error) {
	for _, g := range grants {
		switch {
		case g.Grantor != whose:
			return nil, holdfast.Errorf(holdfast.Invalid, "grant %s is another's", g.ID)
		case g.Purpose == holdfast.OwnAccess:
			return nil, holdfast.Errorf(holdfast.Invalid, "own-access needs no grant and can't be given away")
		}
		if err := g.Obligations.Check(); err != nil {
			return nil, err
		}
	}
	for _, f := range forbids {
		switch {
		case f.Whose != whose:
			return nil, holdfast.Errorf(holdfast.Invalid, "hold %s is another's", f.ID)
		case f.Purpose == holdfast.OwnAccess:
			return nil, holdfast.Errorf(holdfast.Invalid, "own access can't be stopped")
		}
	}
	return &Set{whose: whose, grants: slices.Clone(grants), forbids: slices.Clone(forbids)}, nil
}

// Decide answers a request. Of several grants that fit it takes the one that the
// reader names, else the one that covers most of the span, then the one that asks
// more, then the one that ends first, and never joins two: a disclosure names one
// grant, and who wants another one names it.
func (s *Set) Decide(r Request) Decision {
	d := s.permit(&r)
	if !d.Allow || r.Purpose == holdfast.OwnAccess {
		return d
	}
	var stopped []string
	for i := range s.forbids {
		if s.forbids[i].covers(&r) {
			stopped = append(stopped, HoldPolicy(s.forbids[i].ID))
		}
	}
	if stopped != nil {
		return Decision{Reason: Stopped, Policies: stopped}
	}
	return d
}

// Reaches reports whether a live grant lets a recipient read anything for a
// purpose.
func (s *Set) Reaches(recipient holdfast.PartyID, p holdfast.Purpose, broader []holdfast.Purpose, now int64) bool {
	return slices.ContainsFunc(s.grants, func(g Grant) bool {
		return g.Recipient == recipient && within(p, broader, g.Purpose) && g.Live(now)
	})
}

// GrantPolicy and HoldPolicy are the ids of the policies that a grant and a hold
// become.
func GrantPolicy(id holdfast.GrantID) string { return "grant-" + id.String() }
func HoldPolicy(id holdfast.HoldID) string   { return "hold-" + id.String() }

func (s *Set) permit(r *Request) Decision {
	deny := func(reason string) Decision { return Decision{Reason: reason} }
	allow := func(reason, by string) Decision {
		return Decision{Allow: true, Reason: reason, Span: r.Span, Policies: []string{by}}
	}
	whose := r.Whose()
	free := r.Bound == nil && r.Grant.IsZero()
	switch {
	case r.Reader < Staff || r.Reader > Recipient || r.ReaderParty.IsZero():
		return deny(NoReader)
	case r.Owner.IsZero():
		return deny(NobodysData)
	case whose != s.whose:
		return Decision{Reason: NotDecided, Failed: []string{"set"}}
	case r.Purpose == holdfast.OwnAccess:
		switch {
		case r.Reader == Owner && r.Bound == nil && r.ReaderParty == whose:
			return allow(ByOwner, "own-access")
		case r.Reader == Owner && r.Bound == nil && r.acts(whose):
			return allow(ByActing, "acting")
		}
		return deny(NotOwn)
	case !r.holds():
		return deny(NoPurpose)
	case !r.Live:
		return deny(NotLive)
	case free && r.Reader == Staff && r.ReaderParty == r.Operating && r.Owner == r.Operating && whose == r.Owner:
		return allow(ByRole, "staff-by-role")
	case free && r.Reader == Staff && r.ReaderParty == r.Operating && r.Permission.covers(r, whose):
		d := allow(ByPermission, "staff-by-permission")
		d.Permission = r.Permission.ID
		return d
	}
	return s.best(r)
}

// best returns the grant that fits best.
func (s *Set) best(r *Request) Decision {
	var best *Grant
	var its holdfast.Span
	for i := range s.grants {
		g := &s.grants[i]
		if !g.covers(r) || (!r.Grant.IsZero() && r.Grant != g.ID) || (r.Bound != nil && !slices.Contains(r.Bound, g.ID)) {
			continue
		}
		span, ok := g.clip(r.Span)
		if ok && (best == nil || g.better(span, best, its)) {
			best, its = g, span
		}
	}
	if best == nil {
		return Decision{Reason: NoGrant}
	}
	return Decision{Allow: true, Reason: ByGrant, Grant: best.ID, Span: its, Obligations: best.Obligations, Policies: []string{GrantPolicy(best.ID)}}
}

func (g *Grant) covers(r *Request) bool {
	return g.Grantor == r.Whose() && g.Recipient == r.ReaderParty &&
		within(r.Purpose, r.Broader, g.Purpose) && g.Live(r.Now) &&
		(g.AllDevices || slices.Contains(g.Devices, r.Device)) &&
		(g.AllStreams || slices.Contains(g.Streams, r.Stream)) &&
		(len(g.Categories) == 0 || r.Category != "" && slices.ContainsFunc(g.Categories, func(c string) bool { return within(r.Category, r.Categories, c) }))
}

func (p *Permission) covers(r *Request, whose holdfast.PartyID) bool {
	return !p.ID.IsZero() && p.Whose == whose && within(r.Purpose, r.Broader, p.Purpose) && p.From <= r.Now && r.Now < p.Until &&
		(len(p.Devices) == 0 || slices.Contains(p.Devices, r.Device))
}

func (f *Forbid) covers(r *Request) bool {
	return (len(f.Assignments) == 0 || slices.Contains(f.Assignments, r.Assignment)) &&
		(len(f.Streams) == 0 || slices.Contains(f.Streams, r.Stream)) &&
		(f.Purpose == "" || within(r.Purpose, r.Broader, f.Purpose))
}

// within reports whether what is the same as other or a part of it.
func within[T comparable](what T, broader []T, other T) bool {
	return what == other || slices.Contains(broader, other)
}
