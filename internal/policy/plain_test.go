package policy

import (
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// plain decides as a Set does, in plain Go and without Cedar: what the policies are
// meant to say, for tests to hold against what they do say.
type plain struct {
	whose   holdfast.PartyID
	grants  []Grant
	forbids []Forbid
}

// Decide answers a request. Of several grants that fit it takes the one that the
// reader names, else the one that covers most of the span, then the one that asks
// more, then the one that ends first, and never joins two: a disclosure names one
// grant, and who wants another one names it.
func (s *plain) Decide(r Request) Decision {
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

func (s *plain) permit(r *Request) Decision {
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
		return Decision{Reason: NotDecided, Failed: []string{"the words of another party"}}
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
func (s *plain) best(r *Request) Decision {
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
		(len(g.Assignments) == 0 || slices.Contains(g.Assignments, r.Assignment)) &&
		(g.AllStreams || slices.Contains(g.Streams, r.Stream)) &&
		(len(g.Categories) == 0 || r.Category != "" && slices.ContainsFunc(g.Categories, func(c string) bool { return within(r.Category, r.Categories, c) }))
}

func (p *Permission) covers(r *Request, whose holdfast.PartyID) bool {
	return !p.ID.IsZero() && p.Whose == whose && within(r.Purpose, r.Broader, p.Purpose) && milliseconds(p.From) <= milliseconds(r.Now) && milliseconds(r.Now) < milliseconds(p.Until) &&
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
