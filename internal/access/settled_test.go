package access

import (
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

func (h *house) redeem(by Principal, party holdfast.PartyID) Principal {
	h.t.Helper()
	code, _, err := h.Invite(h.t.Context(), by, party)
	if err != nil {
		h.t.Fatal(err)
	}
	m, err := h.Redeem(h.t.Context(), Redemption{Code: code, From: "192.0.2.1"})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.must(m.Token)
}

// again is a principal as its credential says it now.
func (h *house) again(p Principal) Principal {
	h.t.Helper()
	c, err := h.lookUp(h.t.Context(), p.Credential)
	if err != nil {
		h.t.Fatal(err)
	}
	return c.principal(h.time())
}

func (h *house) settles(what string, p Principal, want bool) {
	h.t.Helper()
	err := p.MustBeSettled()
	if want && err != nil {
		h.t.Errorf("%s: %v", what, err)
	}
	if !want {
		wantKind(h.t, what, err, holdfast.Denied)
	}
}

// Who takes an account over by a reset has a credential that others can't mistake
// for the owner's for a week.
func TestWhatSettlesAndWhen(t *testing.T) {
	h := build(t)
	h.settles("the hub's first administrator", h.admin, true)
	anna, _ := h.owner()
	h.settles("a party's first credential, from its first invitation", anna, true)

	reset := h.redeem(h.admin, anna.Party)
	h.settles("an administrator's second invitation", reset, false)
	h.settles("what the newcomer makes of himself", h.addedBy(reset), false)
	h.settles("whom the newcomer invites", h.redeem(reset, anna.Party), false)
	if m, err := h.Renew(t.Context(), reset, nil); err != nil {
		t.Error(err)
	} else {
		h.settles("the newcomer, renewed", h.must(m.Token), false)
	}

	h.settles("what the owner makes of himself", h.addedBy(anna), true)
	h.settles("whom the owner invites himself", h.redeem(anna, anna.Party), true)

	h.advance(settleAfter - time.Second)
	h.settles("within the week", h.again(reset), false)
	h.advance(time.Second)
	h.settles("after the week", h.again(reset), true)
	h.restart()
	h.settles("after a restart", h.again(reset), true)
}

func (h *house) addedBy(p Principal) Principal {
	h.t.Helper()
	m, err := h.Add(h.t.Context(), p, Spec{Label: "another", Party: p.Party, Role: Owner}, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.must(m.Token)
}

// Ending every credential of a party and inviting it anew makes nobody its first.
func TestARevokedPastIsAPast(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	if err := h.Revoke(t.Context(), h.admin, anna.Credential, "lost"); err != nil {
		t.Fatal(err)
	}
	h.settles("invited after the only one was revoked", h.redeem(h.admin, anna.Party), false)
}

// An invitation that was never redeemed is nobody's past.
func TestAnInvitationThatExpiredIsNoPast(t *testing.T) {
	h := build(t)
	p := h.party()
	if _, _, err := h.Invite(t.Context(), h.admin, p); err != nil {
		t.Fatal(err)
	}
	h.advance(invitationLife + time.Hour)
	h.settles("first credential, second invitation", h.redeem(h.admin, p), true)
}

func TestAProgramsCredentialDiesWithItsGrants(t *testing.T) {
	h := build(t)
	study, _ := h.owner()
	one, two, anothers, unused := holdfast.GrantID{1}, holdfast.GrantID{2}, holdfast.GrantID{3}, holdfast.GrantID{4}
	h.grants[one] = granted{to: study.Party, purpose: "maintenance"}
	h.grants[two] = granted{to: study.Party, purpose: "maintenance"}
	h.grants[anothers] = granted{to: h.organisation, purpose: "maintenance"}
	h.grants[unused] = granted{to: study.Party, purpose: "research"}
	s := dashboard(study.Party)
	for what, id := range map[string]holdfast.GrantID{"another party's": anothers, "for a purpose that it does not hold": unused, "that does not exist": {9}} {
		s.Grants = []holdfast.GrantID{one, id}
		_, err := h.Add(t.Context(), study, s, nil)
		wantKind(t, "bound to a grant "+what, err, holdfast.Invalid)
	}
	s.Grants = []holdfast.GrantID{one, two}
	m, err := h.Add(t.Context(), study, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := h.must(m.Token); len(p.Grants) != 2 || p.Grants[0] != one {
		t.Errorf("bound to %v", p.Grants)
	}
	h.grants[one] = granted{to: study.Party, purpose: "maintenance", ended: true}
	h.must(m.Token) // under the other one
	h.restart()
	h.must(m.Token)
	h.grants[two] = granted{to: study.Party, purpose: "maintenance", ended: true}
	_, err = h.Bearer(t.Context(), m.Token, "192.0.2.1")
	wantKind(t, "after the last grant ended", err, holdfast.Denied)
	delete(h.grants, one)
	delete(h.grants, two)
	_, err = h.Bearer(t.Context(), m.Token, "192.0.2.1")
	wantKind(t, "after the grants were erased", err, holdfast.Denied)

	owner := Spec{Label: "me", Party: study.Party, Role: Owner, Grants: []holdfast.GrantID{two}}
	_, err = h.Add(t.Context(), study, owner, nil)
	wantKind(t, "an owner's credential bound to a grant", err, holdfast.Invalid)
}
