package access

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

func (h *house) count(table string) (n int) {
	h.t.Helper()
	err := h.catalog.Read(h.t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRowContext(h.t.Context(), `SELECT COUNT(*) FROM `+table).Scan(&n)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// colleague is another administrator or auditor, made by the first.
func (h *house) colleague(by Principal, r Role) Principal {
	h.t.Helper()
	m, err := h.Add(h.t.Context(), by, Spec{Label: "colleague", Party: h.organisation, Role: r}, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.must(m.Token)
}

func wish(whose holdfast.PartyID) PermissionSpec {
	return PermissionSpec{Whose: whose, Purpose: holdfast.Operation, Reason: "her pump stands still"}
}

func (h *house) asks(by Principal, s PermissionSpec) Permission {
	h.t.Helper()
	p, err := h.AskPermission(h.t.Context(), by, s)
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

func (h *house) may(by Principal, whose holdfast.PartyID) bool {
	h.t.Helper()
	_, ok, err := h.Permission(h.t.Context(), by, whose, holdfast.Operation)
	if err != nil {
		h.t.Fatal(err)
	}
	return ok
}

// Two persons of the staff, old enough in their offices, and the owner sees all of it.
func TestStaffReadWithASecondPersonsYes(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	zoe := h.colleague(h.admin, Administrator)
	h.advance(strangers)
	p := h.asks(zoe, wish(anna.Party))
	if p.State != "asked" || p.Until.Sub(p.From) != permissionLife || h.may(zoe, anna.Party) {
		t.Errorf("%+v", p)
	}
	_, err := h.DecidePermission(t.Context(), zoe, p.ID, true)
	wantKind(t, "who asked approves", err, holdfast.Denied)
	if got, err := h.DecidePermission(t.Context(), h.admin, p.ID, true); err != nil || got.State != "approved" || got.DecidedBy != h.admin.Credential || got.DecidedRole != "administrator" {
		t.Fatalf("%+v, %v", got, err)
	}
	if !h.may(zoe, anna.Party) || h.may(h.admin, anna.Party) || h.may(zoe, h.party()) {
		t.Error("it is for who asked and whom he asked about")
	}
	if _, ok, _ := h.Permission(t.Context(), zoe, anna.Party, "marketing"); ok {
		t.Error("for another purpose")
	}
	auditor := zoe
	auditor.Role = Auditor
	if h.may(auditor, anna.Party) {
		t.Error("for who is no administrator any more")
	}
	renewed, err := h.Renew(t.Context(), zoe, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !h.may(h.must(renewed.Token), anna.Party) {
		t.Error("her renewed credential is another person")
	}
	h.restart()
	if !h.may(zoe, anna.Party) {
		t.Error("gone after a restart")
	}
	for _, kind := range []string{"permission asked", "permission approved"} {
		on := record[PermissionChanged](h, anna.Party, kind)
		if len(on) != 1 || on[0].Reason != "her pump stands still" || on[0].Permission != p.ID || on[0].Role != Administrator {
			t.Errorf("%s: %+v", kind, on)
		}
		if on := record[StaffPermission](h, h.organisation, kind); len(on) != 1 || on[0].Whose != anna.Party {
			t.Errorf("%s on the organisation's record: %+v", kind, on)
		}
	}
	if seen, err := h.Permissions(t.Context(), anna, anna.Party); err != nil || len(seen) != 1 || seen[0].State != "approved" || seen[0].Reason == "" {
		t.Errorf("the owner sees %+v, %v", seen, err)
	}
	if in := h.find("pump stands"); len(in) > 0 {
		t.Errorf("the reason stands in clear in %s", in)
	}

	// The owner ends it, with whatever credential of hers, and at once.
	if err := h.EndPermission(t.Context(), h.redeem(h.admin, anna.Party), p.ID); err != nil {
		t.Fatal(err)
	}
	if h.may(zoe, anna.Party) {
		t.Error("after its end")
	}
	wantKind(t, "ended again", h.EndPermission(t.Context(), anna, p.ID), holdfast.Conflict)
	_, err = h.DecidePermission(t.Context(), h.admin, p.ID, true)
	wantKind(t, "approved after its end", err, holdfast.Conflict)
	if on := record[PermissionChanged](h, anna.Party, "permission ended"); len(on) != 1 || on[0].Role != Owner {
		t.Errorf("%+v", on)
	}
}

func TestAPermissionIsOverByItself(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	s := wish(anna.Party)
	s.From = h.time().Add(time.Hour)
	p := h.asks(h.admin, s)
	if _, err := h.DecidePermission(t.Context(), anna, p.ID, true); err != nil {
		t.Fatalf("the owner herself: %v", err)
	}
	if h.may(h.admin, anna.Party) {
		t.Error("before it begins")
	}
	h.advance(time.Hour)
	if !h.may(h.admin, anna.Party) {
		t.Error("not when it begins")
	}
	h.advance(permissionLife)
	if h.may(h.admin, anna.Party) {
		t.Error("after its end")
	}
	if all, err := h.Permissions(t.Context(), h.admin, holdfast.PartyID{}); err != nil || len(all) != 1 || all[0].State != "over" {
		t.Errorf("%+v, %v", all, err)
	}
	late := h.asks(h.admin, wish(anna.Party))
	h.advance(permissionLife)
	_, err := h.DecidePermission(t.Context(), anna, late.ID, true)
	wantKind(t, "approved when it is over", err, holdfast.Conflict)
}

// One person with two credentials is no second person, whichever way they came about.
func TestNobodyApprovesHimself(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	old := h.colleague(h.admin, Administrator)
	h.advance(strangers)
	fresh, audits := h.colleague(old, Administrator), h.colleague(old, Auditor)
	grandchild := h.colleague(fresh, Administrator)
	for what, c := range map[string]struct{ asker, second Principal }{
		"a credential that the asker made":            {old, fresh},
		"an auditor's that the asker made":            {old, audits},
		"the one that made the asker's":               {fresh, old},
		"made by what the asker made":                 {old, grandchild},
		"a sister of the asker's":                     {fresh, audits},
		"a sister of the one that made the asker's":   {grandchild, audits},
		"the first administrator, of a new colleague": {grandchild, h.admin},
	} {
		p := h.asks(c.asker, wish(anna.Party))
		_, err := h.DecidePermission(t.Context(), c.second, p.ID, true)
		wantKind(t, what, err, holdfast.Denied)
		if h.may(c.asker, anna.Party) {
			t.Errorf("%s: approved", what)
		}
		if got, err := h.DecidePermission(t.Context(), c.second, p.ID, false); err != nil || got.State != "refused" {
			t.Errorf("%s can refuse: %v", what, err)
		}
	}
	p := h.asks(old, wish(anna.Party))
	renewed, err := h.Renew(t.Context(), old, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.advance(30 * time.Minute)
	_, err = h.DecidePermission(t.Context(), h.must(renewed.Token), p.ID, true)
	wantKind(t, "the asker's own, renewed", err, holdfast.Denied)
	if _, err := h.DecidePermission(t.Context(), h.admin, p.ID, true); err != nil {
		t.Errorf("who made the asker's long ago: %v", err)
	}

	h.advance(strangers)
	p = h.asks(h.again(old), wish(anna.Party))
	if _, err := h.DecidePermission(t.Context(), h.again(audits), p.ID, true); err != nil {
		t.Errorf("an auditor of a month: %v", err)
	}
}

// Who resets the owner's account does not approve in her name for a week.
func TestAResetDoesNotApprove(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	p := h.asks(h.admin, wish(anna.Party))
	reset := h.redeem(h.admin, anna.Party)
	_, err := h.DecidePermission(t.Context(), reset, p.ID, true)
	wantKind(t, "by a reset", err, holdfast.Denied)
	_, err = h.DecidePermission(t.Context(), h.addedBy(reset), p.ID, true)
	wantKind(t, "by what the reset made", err, holdfast.Denied)
	if _, err := h.DecidePermission(t.Context(), reset, p.ID, false); err != nil {
		t.Errorf("refused: %v", err)
	}
}

func TestWhoMayAskAndDecide(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	bob, _ := h.owner()
	eve := h.colleague(h.admin, Auditor)
	readOnly := h.admin
	readOnly.Scopes = ScopeRead
	elsewhere := h.admin
	elsewhere.Party = bob.Party
	for what, by := range map[string]Principal{"an owner": bob, "an auditor": eve, "who may not write": readOnly, "an administrator of another party": elsewhere,
		"a program": h.must(h.program(dashboard(h.organisation)).Token)} {
		_, err := h.AskPermission(t.Context(), by, wish(anna.Party))
		wantKind(t, what+" asks", err, holdfast.Denied)
	}
	now := h.time()
	for what, c := range map[string]struct {
		change func(*PermissionSpec)
		kind   holdfast.Kind
	}{
		"the organisation's own": {func(s *PermissionSpec) { s.Whose = h.organisation }, holdfast.Invalid},
		"nobody's":               {func(s *PermissionSpec) { s.Whose = holdfast.PartyID{} }, holdfast.Invalid},
		"of no party":            {func(s *PermissionSpec) { s.Whose = holdfast.PartyID{7} }, holdfast.NotFound},
		"own-access":             {func(s *PermissionSpec) { s.Purpose = holdfast.OwnAccess }, holdfast.Invalid},
		"no purpose":             {func(s *PermissionSpec) { s.Purpose = "" }, holdfast.Invalid},
		"no reason":              {func(s *PermissionSpec) { s.Reason = "" }, holdfast.Invalid},
		"a long reason":          {func(s *PermissionSpec) { s.Reason = strings.Repeat("x", maxReason+1) }, holdfast.Invalid},
		"an escape":              {func(s *PermissionSpec) { s.Reason = "\x1b[31m" }, holdfast.Invalid},
		"no UTF-8":               {func(s *PermissionSpec) { s.Reason = "\xff" }, holdfast.Invalid},
		"too long":               {func(s *PermissionSpec) { s.Until = now.Add(maxPermissionLife + time.Minute) }, holdfast.Invalid},
		"backwards":              {func(s *PermissionSpec) { s.Until = now.Add(-time.Second) }, holdfast.Invalid},
		"from yesterday":         {func(s *PermissionSpec) { s.From = now.Add(-day) }, holdfast.Invalid},
		"for next year":          {func(s *PermissionSpec) { s.From = now.Add(365 * day) }, holdfast.Invalid},
		"of too many":            {func(s *PermissionSpec) { s.Devices = make([]holdfast.DeviceID, maxDevices+1) }, holdfast.Invalid},
	} {
		s := wish(anna.Party)
		c.change(&s)
		_, err := h.AskPermission(t.Context(), h.admin, s)
		wantKind(t, what, err, c.kind)
	}
	if n := h.count("access_permission"); n != 0 {
		t.Errorf("%d rows of what was refused", n)
	}

	p := h.asks(h.admin, wish(anna.Party))
	for what, by := range map[string]Principal{"another owner": bob, "a program": h.must(h.program(dashboard(anna.Party)).Token), "an administrator of another party": elsewhere} {
		_, err := h.DecidePermission(t.Context(), by, p.ID, true)
		if k := holdfast.KindOf(err); err == nil || k != holdfast.NotFound && k != holdfast.Denied {
			t.Errorf("%s decides: %v", what, err)
		}
		if err := h.EndPermission(t.Context(), by, p.ID); err == nil {
			t.Errorf("%s ends it", what)
		}
	}
	_, err := h.DecidePermission(t.Context(), bob, holdfast.PermissionID{1}, true)
	_, same := h.DecidePermission(t.Context(), bob, p.ID, true)
	if err == nil || same == nil || err.Error() != same.Error() {
		t.Errorf("another owner learns that there is one: %v, %v", err, same)
	}
	_, err = h.Permissions(t.Context(), bob, anna.Party)
	wantKind(t, "another owner lists", err, holdfast.Denied)
	_, err = h.Permissions(t.Context(), bob, holdfast.PartyID{})
	wantKind(t, "an owner lists all", err, holdfast.Denied)
	if all, err := h.Permissions(t.Context(), eve, holdfast.PartyID{}); err != nil || len(all) != 1 {
		t.Errorf("the auditor sees %d: %v", len(all), err)
	}
	for range maxAsked - 1 {
		h.asks(h.admin, wish(anna.Party))
	}
	_, err = h.AskPermission(t.Context(), h.admin, wish(anna.Party))
	wantKind(t, "one too many", err, holdfast.TooLarge)
}

func TestErasedPartyLeavesNoPermission(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	p := h.asks(h.admin, wish(anna.Party))
	if _, err := h.DecidePermission(t.Context(), anna, p.ID, true); err != nil || !h.may(h.admin, anna.Party) {
		t.Fatal(err)
	}
	if err := h.Erase(t.Context(), holdfast.Scope{Party: anna.Party, Whole: true}); err != nil {
		t.Fatal(err)
	}
	if h.may(h.admin, anna.Party) || h.count("access_permission") != 0 {
		t.Error("it is still there")
	}
}
