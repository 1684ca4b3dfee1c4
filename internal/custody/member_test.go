package custody

import (
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func (h *hub) group(name string, k PartyKind) holdfast.PartyID {
	h.t.Helper()
	p, err := h.AddParty(h.t.Context(), h.admin, name, k)
	if err != nil {
		h.t.Fatal(err)
	}
	return p.ID
}

func (h *hub) staff() Actor { return Actor{Credential: h.admin, Party: h.acme, Administrator: true} }

func self(p holdfast.PartyID) Actor {
	return Actor{Credential: holdfast.NewID[holdfast.CredentialID](), Party: p}
}

func (h *hub) offer(by Actor, s MemberSpec) Membership {
	h.t.Helper()
	m, err := h.AddMember(h.t.Context(), by, s)
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

func (h *hub) join(by Actor, s MemberSpec) Membership {
	h.t.Helper()
	m := h.offer(by, s)
	if m.State == Active {
		return m
	}
	m, err := h.AcceptMembership(h.t.Context(), self(s.Member), m.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

func (h *hub) actsFor(p holdfast.PartyID, want ...holdfast.PartyID) {
	h.t.Helper()
	got, err := h.ActsFor(h.t.Context(), p)
	if err != nil {
		h.t.Fatal(err)
	}
	if len(got) != len(want) || slices.ContainsFunc(want, func(w holdfast.PartyID) bool { return !slices.Contains(got, w) }) {
		h.t.Errorf("acts for %v, want %v", got, want)
	}
}

// What an adult has offered ends with his standing: he can't come back as somebody
// else whom he let in beforehand.
func TestAnOfferDoesNotOutliveWhoMadeIt(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	home, anna, ben, eve := h.group("Home", Household), h.party("Anna"), h.party("Ben"), h.party("Eve")
	h.join(h.staff(), MemberSpec{Of: home, Member: anna, Kind: Adult})
	his := h.join(h.staff(), MemberSpec{Of: home, Member: ben, Kind: Adult})
	m := h.offer(self(ben), MemberSpec{Of: home, Member: eve, Kind: Adult})
	if _, err := h.EndMembership(ctx, self(anna), his.ID); err != nil {
		t.Fatal(err)
	}
	_, err := h.AcceptMembership(ctx, self(eve), m.ID)
	wants(t, err, holdfast.Conflict, "speaks for the party no more")
	h.actsFor(eve)
	if _, err := h.EndMembership(ctx, self(eve), m.ID); err != nil { // declined
		t.Fatal(err)
	}
	h.join(self(anna), MemberSpec{Of: home, Member: eve, Kind: Adult})
	h.actsFor(eve, home)
}

func TestAdultActsForHouseholdUntilHeLeaves(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	home, anna, ben := h.group("Home", Household), h.party("Anna"), h.party("Ben")
	m := h.offer(h.staff(), MemberSpec{Of: home, Member: anna, Kind: Adult})
	h.actsFor(anna)
	_, err := h.AcceptMembership(ctx, h.staff(), m.ID)
	wants(t, err, holdfast.NotFound, "no such membership") // nobody else's word will do
	_, err = h.AcceptMembership(ctx, self(ben), m.ID)
	wants(t, err, holdfast.NotFound, "no such membership")
	if _, err := h.AcceptMembership(ctx, self(anna), m.ID); err != nil {
		t.Fatal(err)
	}
	h.actsFor(anna, home)
	_, err = h.AcceptMembership(ctx, self(anna), m.ID)
	wants(t, err, holdfast.Conflict, "is active")

	b := h.join(self(anna), MemberSpec{Of: home, Member: ben, Kind: Adult})
	h.actsFor(ben, home)
	h.restart()
	h.actsFor(ben, home)
	if _, err := h.EndMembership(ctx, self(ben), b.ID); err != nil {
		t.Fatal(err)
	}
	h.actsFor(ben)
	h.actsFor(anna, home)
	_, err = h.EndMembership(ctx, self(ben), m.ID)
	wants(t, err, holdfast.NotFound, "no such membership")
	_, err = h.EndMembership(ctx, h.staff(), b.ID)
	wants(t, err, holdfast.Conflict, "ended already")
	want := []string{"party added", "member offered", "member accepted", "member ended"}
	if got := h.diary.kinds(vault.OfParty(ben)); !slices.Equal(got, want) {
		t.Errorf("on Ben's record: %v", got)
	}
	if h.onDisk("offered_by") || h.onDisk("Anna") {
		t.Error("a membership stands in clear on disk")
	}
}

func TestGuardianActsUntilMajority(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	home, anna, kid := h.group("Home", Household), h.party("Anna"), h.party("Kim")
	majority := h.clock.AddDate(1, 0, 0)
	_, err := h.AddMember(ctx, h.staff(), MemberSpec{Of: home, Member: anna, Kind: Guardian, Ward: kid})
	wants(t, err, holdfast.Invalid, "add the child first")
	h.join(h.staff(), MemberSpec{Of: home, Member: kid, Kind: Minor, To: majority})
	h.join(h.staff(), MemberSpec{Of: home, Member: anna, Kind: Guardian, Ward: kid})
	h.actsFor(anna, kid) // and not for the household, whose adult she is not
	h.clock = majority.Add(-time.Second)
	h.actsFor(anna, kid)
	h.clock = majority
	h.actsFor(anna)
	if err := h.EndMajorities(ctx); err != nil {
		t.Fatal(err)
	}
	h.clock = majority.Add(-time.Hour) // a clock that goes back brings nothing back
	h.actsFor(anna)
	for _, p := range []holdfast.PartyID{home, anna, kid} {
		if got := h.diary.kinds(vault.OfParty(p)); !slices.Contains(got, "majority reached") {
			t.Errorf("on record: %v", got)
		}
	}
	n := len(h.diary.entries)
	if err := h.EndMajorities(ctx); err != nil || len(h.diary.entries) != n {
		t.Errorf("again: %v, %d more entries", err, len(h.diary.entries)-n)
	}
}

func TestMembershipsRefused(t *testing.T) {
	h := newHub(t)
	home, firm, other := h.group("Home", Household), h.group("Firm", Organisation), h.group("Other", Organisation)
	anna, ben, kid := h.party("Anna"), h.party("Ben"), h.party("Kim")
	majority := h.clock.AddDate(5, 0, 0)
	h.join(h.staff(), MemberSpec{Of: home, Member: anna, Kind: Adult})
	h.join(h.staff(), MemberSpec{Of: home, Member: kid, Kind: Minor, To: majority})
	h.join(h.staff(), MemberSpec{Of: firm, Member: other, Kind: Tenant})
	gone := h.party("Gone")
	if err := h.handle.Write(t.Context(), func(tx *sql.Tx) error { return h.Leave(t.Context(), tx, holdfast.Scope{Party: gone, Whole: true}) }); err != nil {
		t.Fatal(err)
	}
	before := len(h.diary.entries)
	for _, c := range []struct {
		what string
		by   Actor
		spec MemberSpec
		kind holdfast.Kind
		says string
	}{
		{"oneself as adult", self(ben), MemberSpec{Of: home, Member: ben, Kind: Adult}, holdfast.NotFound, "no such party"},
		{"an adult oneself as guardian", self(anna), MemberSpec{Of: home, Member: anna, Kind: Guardian, Ward: kid}, holdfast.Denied, "nobody makes himself"},
		{"a household in itself", h.staff(), MemberSpec{Of: home, Member: home, Kind: Tenant}, holdfast.Invalid, "itself"},
		{"a person with members", h.staff(), MemberSpec{Of: anna, Member: ben, Kind: Adult}, holdfast.Invalid, "others have no members"},
		{"an organisation with adults", h.staff(), MemberSpec{Of: firm, Member: ben, Kind: Adult}, holdfast.Invalid, "employees and tenants"},
		{"an organisation as adult", h.staff(), MemberSpec{Of: home, Member: firm, Kind: Adult}, holdfast.Invalid, "can't be the adult"},
		{"in a circle", h.staff(), MemberSpec{Of: other, Member: firm, Kind: Tenant}, holdfast.Invalid, "circle"},
		{"a child without majority", h.staff(), MemberSpec{Of: home, Member: ben, Kind: Minor}, holdfast.Invalid, "day of majority"},
		{"majority in the past", h.staff(), MemberSpec{Of: home, Member: ben, Kind: Minor, From: h.clock.AddDate(-9, 0, 0), To: h.clock.AddDate(-1, 0, 0)}, holdfast.Invalid, "past"},
		{"an end before the beginning", h.staff(), MemberSpec{Of: firm, Member: ben, Kind: Employee, To: h.clock.AddDate(-1, 0, 0)}, holdfast.Invalid, "ends after it begins"},
		{"a guardian of an adult", h.staff(), MemberSpec{Of: home, Member: ben, Kind: Guardian, Ward: anna}, holdfast.Invalid, "guardian is of a child"},
		{"a guardian of nobody", h.staff(), MemberSpec{Of: home, Member: ben, Kind: Guardian}, holdfast.Invalid, "name the child"},
		{"an adult of a child", h.staff(), MemberSpec{Of: home, Member: kid, Kind: Adult}, holdfast.Conflict, "until its majority"},
		{"an adult as child", h.staff(), MemberSpec{Of: home, Member: anna, Kind: Minor, To: majority}, holdfast.Conflict, "can't be a child"},
		{"the same twice", h.staff(), MemberSpec{Of: home, Member: anna, Kind: Adult}, holdfast.Conflict, "already"},
		{"who is being erased", h.staff(), MemberSpec{Of: home, Member: gone, Kind: Adult}, holdfast.Conflict, "leaving"},
	} {
		_, err := h.AddMember(t.Context(), c.by, c.spec)
		t.Run(c.what, func(t *testing.T) { wants(t, err, c.kind, c.says) })
	}
	if len(h.diary.entries) != before {
		t.Error("a refused membership is on record")
	}
}

// A child who has a credential of his own is not put under a guardian by an
// administrator's word.
func TestChildWhoSpeaksAcceptsHimself(t *testing.T) {
	h := newHub(t)
	home, kid := h.group("Home", Household), h.party("Kim")
	m := h.offer(h.staff(), MemberSpec{Of: home, Member: kid, Kind: Minor, To: h.clock.AddDate(2, 0, 0), Speaks: true})
	if m.State != Offered {
		t.Fatal(m.State)
	}
	_, err := h.AddMember(t.Context(), h.staff(), MemberSpec{Of: home, Member: h.party("Anna"), Kind: Guardian, Ward: kid})
	wants(t, err, holdfast.Invalid, "add the child first")
}

func TestJointErasureNeedsEveryAdult(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	home, anna, ben, eve := h.group("Home", Household), h.party("Anna"), h.party("Ben"), h.party("Eve")
	h.join(h.staff(), MemberSpec{Of: home, Member: anna, Kind: Adult})
	bens := h.join(h.staff(), MemberSpec{Of: home, Member: ben, Kind: Adult})
	ask := func() Joint {
		t.Helper()
		j, err := h.AskJoint(ctx, self(anna), Joint{Party: home, Span: holdfast.Always})
		if err != nil || !slices.Equal(j.Words, []holdfast.PartyID{anna}) || !slices.Equal(j.Missing, []holdfast.PartyID{ben}) {
			t.Fatalf("%+v, %v", j, err)
		}
		return j
	}
	ready := func(n int) {
		t.Helper()
		if all, err := h.ReadyJoints(ctx); err != nil || len(all) != n {
			t.Errorf("%d ready, %v", len(all), err)
		}
	}
	j := ask()
	_, err := h.AskJoint(ctx, self(ben), Joint{Party: home, Span: holdfast.Always})
	wants(t, err, holdfast.Conflict, "waits already")
	_, err = h.ConfirmJoint(ctx, self(eve), j.ID)
	wants(t, err, holdfast.NotFound, "no such")
	_, err = h.ConfirmJoint(ctx, h.staff(), j.ID)
	wants(t, err, holdfast.Denied, "only the adults")
	ready(0)
	if err := h.WithdrawJoint(ctx, self(ben), j.ID); err != nil {
		t.Fatal(err)
	}
	_, err = h.ConfirmJoint(ctx, self(ben), j.ID)
	wants(t, err, holdfast.Conflict, "is withdrawn")

	j = ask()
	h.clock = h.clock.AddDate(0, 0, JointDays)
	_, err = h.ConfirmJoint(ctx, self(ben), j.ID) // before anybody has looked
	wants(t, err, holdfast.Conflict, "ask for it again")
	ready(0)
	_, err = h.ConfirmJoint(ctx, self(ben), j.ID)
	wants(t, err, holdfast.Conflict, "is expired")

	// Who is put out keeps his word for as long as a wish may wait.
	if _, err := h.EndMembership(ctx, self(anna), bens.ID); err != nil {
		t.Fatal(err)
	}
	j = ask()
	ready(0)
	if j, err = h.ConfirmJoint(ctx, self(ben), j.ID); err != nil || len(j.Missing) != 0 {
		t.Fatalf("%+v, %v", j, err)
	}
	ready(1)
	e := holdfast.NewID[holdfast.ErasureID]()
	if err := h.BeginJoint(ctx, j.ID, e); err != nil {
		t.Fatal(err)
	}
	ready(0)
	if j, err = h.Joint(ctx, j.ID); err != nil || j.State != Begun || j.Erasure != e {
		t.Errorf("%+v, %v", j, err)
	}
}
