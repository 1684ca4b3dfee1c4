package policy

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cedar-policy/cedar-go"

	"github.com/holdfast-iot/holdfast"
)

// Set is what one party said about its data, compiled once: its grants, as permits,
// and what it forbids, beside the hub's own policies. It never changes and is safe
// for concurrent use.
type Set struct {
	whose   holdfast.PartyID
	grants  []Grant
	others  *weighed                      // for those to whom nothing is granted
	to      map[holdfast.PartyID]*weighed // by recipient
	answers answers
	seen    streams
}

// weighed is what is weighed for one reader. A grant to another can't allow him
// anything, since it names whom it is to, and is left out.
type weighed struct {
	whose    cedar.EntityUID
	reader   cedar.EntityUID // zero: any without a grant
	always   policies        // the hub's and what is forbidden
	permits  map[holdfast.Purpose]*permits
	grants   []*Grant
	byPolicy map[string]*Grant
	last     atomic.Pointer[setting]
	// When readings of some grant begin and end, in order: where a request's span
	// lies among them tells which grants it meets.
	begins, ends []int64 // ms
}

// Compile makes the Set of a party, and refuses words that can't be followed: each
// policy is held against the schema. Who writes grants or holds asks here before
// they stand.
func Compile(whose holdfast.PartyID, grants []Grant, forbids []Forbid) (*Set, error) {
	h, err := theHub()
	if err != nil {
		return nil, err
	}
	s := &Set{whose: whose, grants: slices.Clone(grants), others: &weighed{whose: partyEntity(whose), always: slices.Clip(h.policies)}, to: map[holdfast.PartyID]*weighed{}}
	for i := range forbids {
		f := &forbids[i]
		if err := f.check(whose); err != nil {
			return nil, err
		}
		if s.others.always, err = h.add(s.others.always, cedar.PolicyID(HoldPolicy(f.ID)), f.policy()); err != nil {
			return nil, err
		}
	}
	s.others.always = slices.Clip(s.others.always)
	for i := range s.grants {
		g := &s.grants[i]
		if err := g.check(whose); err != nil {
			return nil, err
		}
		if g.Ended {
			continue
		}
		w := s.to[g.Recipient]
		if w == nil {
			w = &weighed{
				whose: s.others.whose, reader: partyEntity(g.Recipient), always: s.others.always,
				permits: map[holdfast.Purpose]*permits{}, byPolicy: map[string]*Grant{},
			}
			s.to[g.Recipient] = w
		}
		p, err := h.check(cedar.PolicyID(GrantPolicy(g.ID)), g.policy())
		if err != nil {
			return nil, err
		}
		w.permit(g, p)
		w.grants = append(w.grants, g)
		w.byPolicy[GrantPolicy(g.ID)] = g
		w.begins = append(w.begins, milliseconds(g.Data.From))
		w.ends = append(w.ends, milliseconds(g.Data.To))
	}
	for _, w := range s.to {
		slices.Sort(w.begins)
		slices.Sort(w.ends)
		w.begins, w.ends = slices.Compact(w.begins), slices.Compact(w.ends)
	}
	return s, nil
}

func (g *Grant) check(whose holdfast.PartyID) error {
	switch {
	case g.Grantor != whose:
		return holdfast.Errorf(holdfast.Invalid, "grant %s is another's", g.ID)
	case g.Purpose == holdfast.OwnAccess:
		return holdfast.Errorf(holdfast.Invalid, "own-access needs no grant and can't be given away")
	}
	return g.Obligations.Check()
}

func (f *Forbid) check(whose holdfast.PartyID) error {
	switch {
	case f.Whose != whose:
		return holdfast.Errorf(holdfast.Invalid, "hold %s is another's", f.ID)
	case f.Purpose == holdfast.OwnAccess:
		return holdfast.Errorf(holdfast.Invalid, "an owner's access to his own data can't be stopped")
	}
	return nil
}

// GrantPolicy and HoldPolicy are the ids of the policies that a grant and a hold
// become.
func GrantPolicy(id holdfast.GrantID) string { return "grant-" + id.String() }
func HoldPolicy(id holdfast.HoldID) string   { return "hold-" + id.String() }

// Text returns a policy of the Set as Cedar, "" if it has none of that id.
func (s *Set) Text(id string) string {
	for _, p := range s.others.always {
		if string(p.id) == id {
			return string(p.policy.MarshalCedar())
		}
	}
	for _, w := range s.to {
		if w.byPolicy[id] == nil {
			continue
		}
		for its, p := range w.everything().All() {
			if string(its) == id {
				return string(p.MarshalCedar())
			}
		}
	}
	return ""
}

// Reaches reports whether a live grant lets a recipient read anything for a
// purpose.
func (s *Set) Reaches(recipient holdfast.PartyID, p holdfast.Purpose, broader []holdfast.Purpose, now int64) bool {
	w := s.to[recipient]
	return w != nil && slices.ContainsFunc(w.grants, func(g *Grant) bool {
		return (g.Purpose == p || slices.Contains(broader, g.Purpose)) && g.Live(now)
	})
}

// Decide answers a request. Of several grants that fit it takes the one that the
// reader names, else the one that covers most of the span, then the one that asks
// more, then the one that ends first, and never joins two: a disclosure names one
// grant, and who wants another one names it.
//
// The answer's Policies are shared with others and must not be changed.
func (s *Set) Decide(r Request) Decision {
	switch {
	case r.Reader < Staff || r.Reader > Recipient || r.ReaderParty.IsZero():
		return Decision{Reason: NoReader}
	case r.Owner.IsZero():
		return Decision{Reason: NobodysData}
	case r.Whose() != s.whose:
		return Decision{Reason: NotDecided, Failed: []string{"the words of another party"}}
	case r.Purpose == holdfast.OwnAccess && r.Reader != Owner:
		return Decision{Reason: NotOwn}
	case r.Purpose != holdfast.OwnAccess && !r.holds():
		return Decision{Reason: NoPurpose}
	case r.Purpose != holdfast.OwnAccess && !r.Live:
		return Decision{Reason: NotLive}
	}
	w := s.to[r.ReaderParty]
	if w == nil {
		w = s.others
	}
	var room [keyRoom]byte
	key := r.key(room[:0], w)
	now := milliseconds(r.Now)
	a, ok := s.answers.find(key, now)
	if !ok {
		a = w.weigh(&r, s.seen.stream(&r, w.whose))
		if a.Failed == nil {
			a.from, a.until = w.valid(&r, now)
			s.answers.keep(key, a)
		}
	}
	return a.decision(&r)
}

// answer is what was found for all requests of one key, from and until some times.
type answer struct {
	Decision          // of an allowed request the span, and the grant, are still to be found
	permits  []*Grant // those that allow; nil: a policy of the hub does
	stopped  []string // those that forbid what would be allowed
	from     int64    // ms; the answer holds from then on
	until    int64    // ms; and up to then, which is excluded
}

// decision makes the answer that of one request: its span, and the grant for it.
func (a *answer) decision(r *Request) Decision {
	d := a.Decision
	switch {
	case !d.Allow:
		return d
	case a.permits == nil:
		d.Span = r.Span
	default:
		var best *Grant
		for _, g := range a.permits {
			// Cedar knows milliseconds: what of the span is left is exact here.
			if span, ok := g.clip(r.Span); ok && (best == nil || g.better(span, best, d.Span)) {
				best, d.Span = g, span
			}
		}
		if best == nil {
			return Decision{Reason: NoGrant}
		}
		d.Grant, d.Obligations = best.ID, best.Obligations
	}
	if a.stopped != nil { // he knows of the data, since he may read it otherwise
		return Decision{Reason: Stopped, Policies: a.stopped}
	}
	return d
}

// weigh asks Cedar.
func (w *weighed) weigh(r *Request, stream *stream) *answer {
	asked := w.worldOf(r, stream)
	matter := w.matter(r)
	how, why := cedar.Authorize(matter, asked, asked.request)
	if len(why.Errors) > 0 {
		return failed(why)
	}
	if how == cedar.Allow {
		return w.allowed(r, idsOf(why))
	}
	a := &answer{Decision: Decision{Reason: NoGrant, Policies: idsOf(why)}}
	switch {
	case r.Purpose == holdfast.OwnAccess:
		a.Reason = NotOwn
		return a
	case len(a.Policies) == 0:
		return a
	}
	matter.permitsOnly = true
	switch how, why := cedar.Authorize(matter, asked, asked.request); {
	case len(why.Errors) > 0:
		return failed(why)
	case how == cedar.Allow:
		stopped := a.Policies
		a = w.allowed(r, idsOf(why))
		a.stopped = stopped
		return a
	}
	return a
}

func failed(why cedar.Diagnostic) *answer {
	d := Decision{Reason: NotDecided}
	for _, e := range why.Errors {
		d.Failed = append(d.Failed, string(e.PolicyID))
	}
	return &answer{Decision: d}
}

func idsOf(why cedar.Diagnostic) []string {
	if len(why.Reasons) == 0 {
		return nil
	}
	ids := make([]string, 0, len(why.Reasons))
	for _, reason := range why.Reasons {
		ids = append(ids, string(reason.PolicyID))
	}
	return ids
}

// allowed says by which rule. Those of the hub need no grant and come first.
func (w *weighed) allowed(r *Request, ids []string) *answer {
	for _, rule := range [...]struct{ id, reason string }{
		{byOwnAccess, ByOwner}, {byActing, ByActing}, {byRole, ByRole}, {byPermission, ByPermission},
	} {
		if slices.Contains(ids, rule.id) {
			d := Decision{Allow: true, Reason: rule.reason, Policies: ids}
			if rule.id == byPermission {
				d.Permission = r.Permission.ID
			}
			return &answer{Decision: d}
		}
	}
	a := &answer{Decision: Decision{Allow: true, Reason: ByGrant, Policies: ids}}
	for _, id := range ids {
		g := w.byPolicy[id]
		if g == nil {
			return &answer{Decision: Decision{Reason: NotDecided, Failed: []string{fmt.Sprintf("%s allowed and is no grant", id)}}}
		}
		a.permits = append(a.permits, g)
	}
	return a
}

// valid returns from and until when, in milliseconds, the answer stays what it is
// now: no grant and no permission begins or ends in between.
func (w *weighed) valid(r *Request, now int64) (from, until int64) {
	from, until = milliseconds(holdfast.Always.From), milliseconds(holdfast.Always.To)
	turn := func(ns int64) {
		if t := milliseconds(ns); t <= now {
			from = max(from, t)
		} else {
			until = min(until, t)
		}
	}
	for _, g := range w.grants {
		turn(g.Made)
		turn(g.Until)
	}
	if !r.Permission.ID.IsZero() {
		turn(r.Permission.From)
		turn(r.Permission.Until)
	}
	return from, until
}
