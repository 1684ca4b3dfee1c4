package custody

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// MemberKind says what a party is to a household or an organisation.
type MemberKind string

// The kinds of membership. An adult acts in the place of his household, a
// guardian in the place of his ward; the others act for nobody.
const (
	Adult    MemberKind = "adult"
	Minor    MemberKind = "child"
	Guardian MemberKind = "guardian"
	Employee MemberKind = "employee"
	Tenant   MemberKind = "tenant"
)

// States of a membership.
const (
	Offered = "offered" // it waits for the member's own word
	Ended   = "ended"   // or declined
)

// Membership says that a party belongs to a household or an organisation.
type Membership struct {
	ID     holdfast.MembershipID
	Of     holdfast.PartyID // the household or organisation
	Member holdfast.PartyID
	Kind   MemberKind
	Ward   holdfast.PartyID // of a guardian: the child in whose place he acts
	State  string           // Offered, Active or Ended
	From   time.Time
	To     time.Time // zero: open; of a child, the day of majority

	offeredBy, endedBy holdfast.PartyID
	accepted           bool // it has counted once
}

// In reports whether the membership counts at a time.
func (m Membership) In(now time.Time) bool {
	return m.State == Active && !now.Before(m.From) && (m.To.IsZero() || now.Before(m.To))
}

// membershipInfo is sealed under the household or organisation.
type membershipInfo struct {
	Kind      MemberKind       `json:"kind"`
	From      int64            `json:"from"`
	To        int64            `json:"to,omitempty"`
	OfferedBy holdfast.PartyID `json:"offered_by"`
	EndedBy   holdfast.PartyID `json:"ended_by,omitzero"`
	Accepted  bool             `json:"accepted,omitempty"`
}

func (m Membership) info() membershipInfo {
	i := membershipInfo{Kind: m.Kind, From: m.From.UnixNano(), OfferedBy: m.offeredBy, EndedBy: m.endedBy, Accepted: m.accepted || m.State == Active}
	if !m.To.IsZero() {
		i.To = m.To.UnixNano()
	}
	return i
}

// Actor is whose credential does something.
type Actor struct {
	Credential    holdfast.CredentialID
	Holder        holdfast.CredentialID // the first credential of the same holder; zero: it is not known
	Party         holdfast.PartyID
	Administrator bool // of the operating organisation
}

// MemberSpec says what membership to add.
type MemberSpec struct {
	Of, Member holdfast.PartyID
	Kind       MemberKind
	Ward       holdfast.PartyID // of a guardian
	From       time.Time        // zero: now
	To         time.Time        // zero: open; of a child, the day of majority
	// Speaks says that the member has a credential of his own: then a child's
	// membership waits for his word, too.
	Speaks bool
}

// memberEvent is what the ledger records, on the record of each party in it.
type memberEvent struct {
	Membership holdfast.MembershipID `json:"membership"`
	Of         holdfast.PartyID      `json:"of"`
	Member     holdfast.PartyID      `json:"member"`
	Kind       MemberKind            `json:"kind"`
	Ward       holdfast.PartyID      `json:"ward,omitzero"`
	By         holdfast.CredentialID `json:"by,omitzero"`
}

// AddMember offers a party a place in a household or an organisation: an
// administrator, the party itself or an adult of the household may. It counts from
// when the member accepts with his own credential; at once, if an administrator
// adds an employee, a tenant, or a child who can't speak for himself yet.
func (c *Custody) AddMember(ctx context.Context, by Actor, s MemberSpec) (Membership, error) {
	now := c.now().UTC()
	if s.From.IsZero() {
		s.From = now
	}
	if err := c.speaksFor(ctx, by, s.Of); err != nil {
		return Membership{}, err
	}
	if err := c.checkMember(ctx, by, s, now); err != nil {
		return Membership{}, err
	}
	m := Membership{ID: holdfast.NewID[holdfast.MembershipID](), Of: s.Of, Member: s.Member, Kind: s.Kind, Ward: s.Ward, State: Offered,
		From: s.From.UTC(), To: s.To.UTC(), offeredBy: by.Party}
	if by.Administrator && (s.Kind == Employee || s.Kind == Tenant || s.Kind == Minor && !s.Speaks) {
		m.State = Active
	}
	what := "member offered"
	if m.State == Active {
		what = "member added"
	}
	box, err := c.seal(ctx, vault.OfParty(m.Of), "membership", m.ID[:], m.info())
	if err != nil {
		return Membership{}, err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		if err := stillLiving(ctx, tx, m.Of, m.Member, m.Ward); err != nil {
			return err
		}
		if err := acyclic(ctx, tx, m.Of, m.Member); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO membership (id, of, member, ward, state, info_sealed) VALUES ($1, $2, $3, $4, $5, $6)`,
			m.ID, m.Of, m.Member, m.Ward, m.State, box); err != nil {
			return err
		}
		return c.recordMember(ctx, tx, what, m, by.Credential)
	})
	if err != nil {
		return Membership{}, err
	}
	c.forgetActing()
	return m, nil
}

// speaksFor refuses who may not say who belongs to a party. To a stranger the
// party does not exist.
func (c *Custody) speaksFor(ctx context.Context, by Actor, of holdfast.PartyID) error {
	if by.Administrator || by.Party == of {
		return nil
	}
	acts, err := c.ActsFor(ctx, by.Party)
	if err != nil {
		return err
	}
	if !slices.Contains(acts, of) {
		return holdfast.Errorf(holdfast.NotFound, "there is no such party")
	}
	return nil
}

// kindsOf are the memberships that a kind of party has, and who can be such a
// member.
func kindsOf(k PartyKind) map[MemberKind][]PartyKind {
	switch k {
	case Household:
		return map[MemberKind][]PartyKind{Adult: {Person}, Minor: {Person}, Guardian: {Person}, Tenant: {Person}}
	case Organisation:
		return map[MemberKind][]PartyKind{Employee: {Person}, Tenant: {Person, Household, Organisation}}
	}
	return nil
}

func (c *Custody) checkMember(ctx context.Context, by Actor, s MemberSpec, now time.Time) error {
	for _, id := range []holdfast.PartyID{s.Of, s.Member} {
		if err := c.livingParty(ctx, id); err != nil {
			return err
		}
	}
	of, err := c.Party(ctx, s.Of)
	if err != nil {
		return err
	}
	member, err := c.Party(ctx, s.Member)
	if err != nil {
		return err
	}
	who, ok := kindsOf(of.Kind)[s.Kind]
	switch {
	case s.Of == s.Member:
		return holdfast.Errorf(holdfast.Invalid, "a party can't be a member of itself")
	case !ok:
		return holdfast.Errorf(holdfast.Invalid, "a household has adults, children, guardians and tenants; an organisation has employees and tenants; others have no members")
	case !slices.Contains(who, member.Kind):
		return holdfast.Errorf(holdfast.Invalid, "a %s can't be the %s of a %s", member.Kind, s.Kind, of.Kind)
	case (s.Kind == Adult || s.Kind == Guardian) && by.Party == s.Member:
		return holdfast.Errorf(holdfast.Denied, "nobody makes himself %s of a household: another adult of it or an administrator adds him, and he accepts", article(s.Kind))
	case !s.To.IsZero() && !s.To.After(s.From):
		return holdfast.Errorf(holdfast.Invalid, "a membership ends after it begins")
	case !s.To.IsZero() && !s.To.After(now):
		return holdfast.Errorf(holdfast.Invalid, "the end of the membership, of a child its majority, is in the past")
	case s.Kind == Minor && s.To.IsZero():
		return holdfast.Errorf(holdfast.Invalid, "a child's membership needs the day of majority, on which it ends by itself")
	case (s.Kind == Guardian) == s.Ward.IsZero():
		return holdfast.Errorf(holdfast.Invalid, "a guardian, and nobody else, has a child in whose place he acts: name the child of the household")
	}
	return c.checkAges(ctx, s, now)
}

func article(k MemberKind) string {
	if k == Adult {
		return "an adult"
	}
	return "a guardian"
}

// checkAges refuses children who are adults or guardians, guardians of adults, and
// a membership twice.
func (c *Custody) checkAges(ctx context.Context, s MemberSpec, now time.Time) error {
	of, err := c.Members(ctx, s.Of)
	if err != nil {
		return err
	}
	for _, m := range of {
		if m.Member == s.Member && m.Kind == s.Kind && m.Ward == s.Ward && (m.State == Offered || m.State == Active && (m.To.IsZero() || now.Before(m.To))) {
			return holdfast.Errorf(holdfast.Conflict, "party %s is %s there already: membership %s", s.Member, s.Kind, m.ID)
		}
	}
	has, err := c.memberships(ctx, `member = $1 AND state <> 'ended'`, s.Member)
	if err != nil {
		return err
	}
	for _, m := range has {
		grown := m.Kind == Adult || m.Kind == Guardian
		switch {
		case m.Kind == Minor && now.Before(m.To) && (s.Kind == Adult || s.Kind == Guardian):
			return holdfast.Errorf(holdfast.Conflict, "party %s is a child until its majority", s.Member)
		case s.Kind == Minor && grown && (m.To.IsZero() || now.Before(m.To)):
			return holdfast.Errorf(holdfast.Conflict, "party %s is an adult or a guardian: it can't be a child", s.Member)
		}
	}
	if s.Kind != Guardian {
		return nil
	}
	if !slices.ContainsFunc(of, func(m Membership) bool { return m.Kind == Minor && m.Member == s.Ward && m.In(now) }) {
		return holdfast.Errorf(holdfast.Invalid, "a guardian is of a child of the same household that has not reached majority: add the child first")
	}
	return nil
}

// acyclic refuses a member that has the party among its own members, however far
// down.
func acyclic(ctx context.Context, tx *sql.Tx, of, member holdfast.PartyID) error {
	seen := map[holdfast.PartyID]bool{}
	next := []holdfast.PartyID{member}
	for len(next) > 0 {
		id := next[0]
		next = next[1:]
		if id == of {
			return holdfast.Errorf(holdfast.Invalid, "party %s has party %s among its members: membership can't go in a circle", member, of)
		}
		if seen[id] {
			continue
		}
		seen[id] = true
		q, err := tx.QueryContext(ctx, `SELECT member FROM membership WHERE of = $1 AND state <> 'ended'`, id)
		if err != nil {
			return err
		}
		for q.Next() {
			var m holdfast.PartyID
			if err := q.Scan(&m); err != nil {
				q.Close()
				return err
			}
			next = append(next, m)
		}
		if err := q.Close(); err != nil {
			return err
		}
	}
	return nil
}

// recordMember puts an event on the record of everybody in a membership.
func (c *Custody) recordMember(ctx context.Context, tx *sql.Tx, kind string, m Membership, by holdfast.CredentialID) error {
	for _, id := range []holdfast.PartyID{m.Of, m.Member, m.Ward} {
		if id.IsZero() {
			continue
		}
		if _, err := c.ledger.Append(ctx, tx, vault.OfParty(id), kind, memberEvent{m.ID, m.Of, m.Member, m.Kind, m.Ward, by}); err != nil {
			return err
		}
	}
	return nil
}

// AcceptMembership is the member's own word: from now on the membership counts.
func (c *Custody) AcceptMembership(ctx context.Context, by Actor, id holdfast.MembershipID) (Membership, error) {
	m, err := c.Membership(ctx, id)
	if err != nil || m.Member != by.Party {
		return Membership{}, orElse(err, noMembership())
	}
	now := c.now().UTC()
	stands, err := c.stillOffers(ctx, m)
	switch {
	case err != nil:
		return Membership{}, err
	case m.State != Offered:
		return Membership{}, holdfast.Errorf(holdfast.Conflict, "membership %s is %s", id, m.State)
	case !stands:
		return Membership{}, holdfast.Errorf(holdfast.Conflict, "who offered membership %s speaks for the party no more: somebody who does offers it anew", id)
	case !m.To.IsZero() && !now.Before(m.To):
		return Membership{}, holdfast.Errorf(holdfast.Conflict, "the time of membership %s is over", id)
	case m.Kind == Adult || m.Kind == Guardian:
		if err := c.checkAges(ctx, MemberSpec{Of: m.Of, Kind: m.Kind, Ward: m.Ward}, now); err != nil { // the ward may have come of age
			return Membership{}, err
		}
	}
	if m.From.Before(now) {
		m.From = now
	}
	m.State = Active
	return m, c.changeMember(ctx, "member accepted", m, Offered, by.Credential)
}

// stillOffers reports whether who offered a membership may offer it still: an adult
// who is put out leaves nobody behind who comes in at his word.
func (c *Custody) stillOffers(ctx context.Context, m Membership) (bool, error) {
	operating, err := c.Operating(ctx)
	if err != nil {
		return false, err
	}
	err = c.speaksFor(ctx, Actor{Party: m.offeredBy, Administrator: m.offeredBy == operating}, m.Of)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return false, nil
	}
	return err == nil, err
}

// EndMembership ends a membership, at once and forward, or declines its offer: the
// member himself may, whoever speaks for the household or organisation, and an
// administrator.
func (c *Custody) EndMembership(ctx context.Context, by Actor, id holdfast.MembershipID) (Membership, error) {
	m, err := c.Membership(ctx, id)
	if err != nil {
		return Membership{}, err
	}
	if m.Member != by.Party {
		if c.speaksFor(ctx, by, m.Of) != nil {
			return Membership{}, noMembership()
		}
	}
	if m.State == Ended {
		return Membership{}, holdfast.Errorf(holdfast.Conflict, "membership %s has ended already", id)
	}
	was := m.State
	m.State, m.To, m.endedBy = Ended, c.now().UTC(), by.Party
	what := "member ended"
	if was == Offered {
		what = "member declined"
	}
	return m, c.changeMember(ctx, what, m, was, by.Credential)
}

func (c *Custody) changeMember(ctx context.Context, what string, m Membership, was string, by holdfast.CredentialID) error {
	box, err := c.seal(ctx, vault.OfParty(m.Of), "membership", m.ID[:], m.info())
	if err != nil {
		return err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		if m.State == Active {
			if err := stillLiving(ctx, tx, m.Of, m.Member); err != nil {
				return err
			}
		}
		if err := one(ctx, tx, holdfast.Errorf(holdfast.Conflict, "membership %s has just changed: ask again", m.ID),
			`UPDATE membership SET state = $1, info_sealed = $2 WHERE id = $3 AND state = $4`, m.State, box, m.ID, was); err != nil {
			return err
		}
		if m.State != Active {
			if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.MembershipEnded, ID: ledger.TakenID(m.ID), State: m.State, Box: box}); err != nil {
				return err
			}
		}
		return c.recordMember(ctx, tx, what, m, by)
	})
	c.forgetActing()
	return err
}

func noMembership() error {
	return holdfast.Errorf(holdfast.NotFound, "there is no such membership")
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// Membership returns one by its id.
func (c *Custody) Membership(ctx context.Context, id holdfast.MembershipID) (Membership, error) {
	all, err := c.memberships(ctx, `id = $1`, id)
	if err != nil {
		return Membership{}, err
	}
	if len(all) == 0 {
		return Membership{}, noMembership()
	}
	return all[0], nil
}

// Members returns those of a household or organisation, the latest first, those that
// have ended too.
func (c *Custody) Members(ctx context.Context, of holdfast.PartyID) ([]Membership, error) {
	return c.memberships(ctx, `of = $1`, of)
}

// Memberships returns those in which a party is the member or the ward.
func (c *Custody) Memberships(ctx context.Context, member holdfast.PartyID) ([]Membership, error) {
	return c.memberships(ctx, `member = $1 OR ward = $1`, member)
}

func (c *Custody) memberships(ctx context.Context, where string, args ...any) ([]Membership, error) {
	type row struct {
		Membership
		box []byte
	}
	rows, err := catalog.Rows(ctx, c.db, func(q *sql.Rows) (r row, err error) {
		return r, q.Scan(&r.ID, &r.Of, &r.Member, &r.Ward, &r.State, &r.box)
	}, `SELECT id, of, member, ward, state, info_sealed FROM membership WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	all := make([]Membership, 0, len(rows))
	for _, r := range rows {
		var info membershipInfo
		switch err := c.open(ctx, vault.OfParty(r.Of), "membership", r.ID[:], r.box, &info); {
		case vault.Gone(err): // the household is erased
			continue
		case err != nil:
			return nil, err
		}
		m := r.Membership
		m.Kind, m.From, m.To, m.offeredBy, m.endedBy, m.accepted =
			info.Kind, holdfast.Instant(info.From), holdfast.Instant(info.To), info.OfferedBy, info.EndedBy, info.Accepted
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Membership) int {
		return cmp.Or(b.From.Compare(a.From), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return all, nil
}
