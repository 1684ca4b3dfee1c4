package query

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/dpv"
	"github.com/holdfast-iot/holdfast/internal/policy"
)

// purpose returns the one that a request is made for.
func purpose(who access.Principal, named holdfast.Purpose) (holdfast.Purpose, error) {
	switch {
	case named != "":
		return named, nil
	case who.Role == access.Owner:
		return holdfast.OwnAccess, nil
	case who.Role == access.Administrator:
		return holdfast.Operation, nil
	case len(who.Purposes) == 1:
		return who.Purposes[0], nil
	}
	return "", holdfast.Errorf(holdfast.Invalid, "name the purpose: the credential holds %d", len(who.Purposes))
}

// judge asks policy about one reader and purpose.
type judge struct {
	q         *Query
	who       access.Principal
	purpose   holdfast.Purpose
	broader   []holdfast.Purpose
	named     holdfast.GrantID
	operating holdfast.PartyID
	held      []holdfast.Purpose
	live      bool
	acts      []holdfast.PartyID // those in whose place the reader may read as an owner
	about     map[holdfast.PartyID]*standing
	all       bool                          // everybody's data concerns the reader: he is asked about, not asking
	nearby    func(custody.Assignment) bool // see near
}

// standing is how the reader stands to one party.
type standing struct {
	concerns   bool              // that party's data may be the reader's to read at all
	set        *policy.Set       // what it said; nothing at all where it does not concern the reader
	permission policy.Permission // of staff, approved by somebody else; zero: none
}

func (q *Query) judge(ctx context.Context, req Request, p holdfast.Purpose) (*judge, error) {
	j := &judge{q: q, who: req.Who, purpose: p, named: req.Grant}
	if j.who.MayName(p) {
		j.held = []holdfast.Purpose{p}
	}
	var err error
	if j.operating, err = q.custody.Operating(ctx); err != nil {
		return nil, fmt.Errorf("find operating organisation: %w", err)
	}
	return j, j.refresh(ctx)
}

// refresh makes j look again at what may change while rows are given out.
func (j *judge) refresh(ctx context.Context) error {
	j.live = j.q.grants.Live(ctx, j.purpose)
	j.broader = j.q.grants.Broader(j.purpose)
	j.about = make(map[holdfast.PartyID]*standing)
	return j.refreshActing(ctx)
}

// refreshActing asks in whose place the reader may read. Who reads for another, and
// may no more, belongs to no party from then on.
func (j *judge) refreshActing(ctx context.Context) (err error) {
	if j.who.Role != access.Owner {
		return nil
	}
	if j.acts, err = j.q.custody.ActsFor(ctx, j.who.Person()); err != nil {
		return fmt.Errorf("find out for whom the reader acts: %w", err)
	}
	if !j.who.Actor.IsZero() {
		if !slices.Contains(j.acts, j.who.Party) {
			j.who.Party = holdfast.PartyID{}
		}
		j.acts = nil
	}
	return nil
}

// decide answers for one stream.
func (j *judge) decide(ctx context.Context, c *candidate, span holdfast.Span) (policy.Decision, error) {
	if c.Owner.IsZero() {
		return policy.Decision{Reason: policy.NobodysData}, nil
	}
	st, err := j.standing(ctx, c.whose())
	if err != nil {
		return policy.Decision{}, err
	}
	r := j.request(c, span)
	r.Permission = st.permission
	d := st.set.Decide(r)
	if len(d.Failed) > 0 {
		j.q.alarm(d.Failed)
	}
	return d, nil
}

// standing returns how the reader stands to a party, which is found out once. What
// does not concern him is not looked up: the time that it took would tell how much
// there is.
func (j *judge) standing(ctx context.Context, whose holdfast.PartyID) (st *standing, err error) {
	if st := j.about[whose]; st != nil {
		return st, nil
	}
	st = &standing{concerns: true}
	own := whose == j.who.Party || slices.Contains(j.acts, whose)
	if j.who.Role != access.Administrator && !own && !j.all {
		st.concerns = false
		if j.purpose != holdfast.OwnAccess {
			if st.concerns, err = j.q.grants.Between(ctx, j.who.Party, whose); err != nil {
				return nil, fmt.Errorf("look for grants: %w", err)
			}
		}
	}
	if st.concerns {
		st.set, err = j.q.grants.Set(ctx, whose)
	} else {
		st.set, err = policy.Compile(whose, nil, nil)
	}
	if err != nil {
		return nil, err
	}
	if !own && j.who.Role != access.Administrator && st.concerns && !j.all {
		st.concerns = st.set.Reaches(j.who.Party, j.purpose, j.broader, j.q.now().UnixNano())
	}
	if st.permission, err = j.permission(ctx, whose); err != nil {
		return nil, err
	}
	j.about[whose] = st
	return st, nil
}

// permission returns the approved permission that staff have for the purpose, or for
// a broader one.
func (j *judge) permission(ctx context.Context, whose holdfast.PartyID) (policy.Permission, error) {
	if j.who.Role != access.Administrator || whose == j.who.Party || whose.IsZero() {
		return policy.Permission{}, nil
	}
	for _, p := range append([]holdfast.Purpose{j.purpose}, j.broader...) {
		ask := func() (policy.Permission, bool, error) { return j.q.permits.Permission(ctx, j.who, whose, p) }
		if j.all { // staff are asked about, no one of them asks
			ask = func() (policy.Permission, bool, error) { return j.q.permits.AnyPermission(ctx, whose, p) }
		}
		found, ok, err := ask()
		if err != nil {
			return found, fmt.Errorf("look for permissions: %w", err)
		}
		if ok {
			return found, nil
		}
	}
	return policy.Permission{}, nil
}

// concerns reports whether the data of a party may be the reader's to read at all.
func (j *judge) concerns(ctx context.Context, whose holdfast.PartyID) (bool, error) {
	st, err := j.standing(ctx, whose)
	return err == nil && st.concerns, err
}

// reader says in what capacity the principal asks. A program of the operating
// organisation works for its staff, within the purposes it holds.
func (j *judge) reader() policy.ReaderKind {
	switch {
	case j.who.Role == access.Administrator, j.who.Role == access.Program && j.who.Party == j.operating:
		return policy.Staff
	case j.who.Role == access.Owner:
		return policy.Owner
	case j.who.Role == access.Program:
		return policy.Recipient
	}
	return 0
}

func (j *judge) request(c *candidate, span holdfast.Span) policy.Request {
	return policy.Request{
		Reader: j.reader(), ReaderParty: j.who.Party, ActsFor: j.acts, HeldPurposes: j.held,
		Purpose: j.purpose, Broader: j.broader, Live: j.live,
		Operating: j.operating, Owner: c.Owner, Subject: c.subject,
		Device: c.Device, Assignment: c.Assignment, Stream: c.Stream, Category: c.category, Categories: broaderCategories(c.category),
		Span: span, Grant: j.named, Bound: j.who.Grants, Now: j.q.now().UnixNano(),
	}
}

// broaderCategories returns what a category is a part of.
func broaderCategories(iri string) []string {
	if iri == "" {
		return nil
	}
	c, _ := dpv.Lookup(iri)
	return c.Broader()
}

// refusal is the error for a reader who may read nothing of a selection. It is
// made from a selection that nobody has, so that it can't tell more than that.
// Staff know the devices of the hub and get the reason itself.
func (j *judge) refusal(first *candidate, s Selection, span holdfast.Span) error {
	nobodys := candidate{Source: Source{Owner: holdfast.NewID[holdfast.PartyID](), Device: s.Device, Stream: s.Stream}}
	reason := policy.NotDecided
	if nothing, err := policy.Compile(nobodys.Owner, nil, nil); err == nil {
		reason = nothing.Decide(j.request(&nobodys, span)).Reason
	}
	if j.who.Role == access.Administrator {
		reason = first.Reason
	}
	if hint := j.hint(reason); hint != "" {
		return holdfast.Errorf(holdfast.Denied, "%s: %s", reason, hint)
	}
	return holdfast.Errorf(holdfast.Denied, "%s", reason)
}

// hint says what would help.
func (j *judge) hint(reason string) string {
	switch reason {
	case policy.NoPurpose:
		switch {
		case j.who.Role == access.Owner:
			return "an owner's credential reads for own-access, a program's for the purposes that it was made with"
		case len(j.who.Purposes) > 0:
			held := make([]string, len(j.who.Purposes))
			for i, p := range j.who.Purposes {
				held[i] = string(p)
			}
			return "it holds " + strings.Join(held, ", ")
		}
		return "own-access is for owners, name another"
	case policy.NotLive:
		return fmt.Sprintf("add the purpose %q or name another", j.purpose)
	case policy.NotOwn:
		if j.who.Role == access.Owner {
			return "to read another's, use a program's credential and a grant of his"
		}
		return "name a purpose, and ask the owner for a grant for it"
	case policy.NoGrant:
		if j.who.Role == access.Administrator {
			return fmt.Sprintf("the one whose data it is can make one for the purpose %q that covers these streams and times; or ask for a permission", j.purpose)
		}
		return fmt.Sprintf("the one whose data it is can make one for the purpose %q that covers these streams and times", j.purpose)
	}
	return ""
}
