package access

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
)

func TestOwnerIsInvitedOnceAndEveryInvitationIsOnHisRecord(t *testing.T) {
	h := build(t)
	anna := h.party()
	code, until, err := h.Invite(t.Context(), h.admin, anna)
	if err != nil || !until.Equal(h.time().Add(invitationLife).UTC()) {
		t.Fatal(until, err)
	}
	guest := Redemption{Code: code, Label: "telephone", From: "192.0.2.1"}
	first, err := h.Redeem(t.Context(), guest)
	if err != nil {
		t.Fatal(err)
	}
	p := h.must(first.Token)
	if p.Role != Owner || p.Party != anna || p.Scopes != ScopeRead|ScopeWrite || first.Others != 0 {
		t.Errorf("became %+v", p)
	}
	_, err = h.Redeem(t.Context(), guest)
	wantKind(t, "a second time", err, holdfast.Denied)

	// The administrator resets her credential and redeems it himself: he is in,
	// but she sees both.
	h.advance(time.Hour)
	reset, _, err := h.Invite(t.Context(), h.admin, anna)
	if err != nil {
		t.Fatal(err)
	}
	second, err := h.Redeem(t.Context(), Redemption{Code: reset, CSR: request(t), From: "192.0.2.2"})
	if err != nil || second.Others != 1 || second.Certificate == nil || second.Token != "" {
		t.Fatalf("%+v, %v", second, err)
	}
	if p, err := h.AuthenticateTLS(t.Context(), connection(t, second.Certificate)); err != nil || p.Party != anna || p.Role != Owner {
		t.Errorf("%+v, %v", p, err)
	}
	made := record[InvitationMade](h, anna, "invitation made")
	want := []InvitationMade{
		{Invitation: first.ID, By: h.first.ID, Role: Administrator, Others: 0, Until: until},
		{Invitation: second.ID, By: h.first.ID, Role: Administrator, Others: 1, Until: h.time().Add(invitationLife).UTC()},
	}
	if diff := cmp.Diff(want, made); diff != "" {
		t.Error(diff)
	}
	credentials := record[CredentialMade](h, anna, "credential made")
	if len(credentials) != 2 || !credentials[0].Invited || !credentials[1].Invited || credentials[1].Others != 1 || credentials[1].Kind != Certificate {
		t.Errorf("on record: %+v", credentials)
	}
	for _, by := range []Principal{p, h.admin} {
		list, err := h.Invitations(t.Context(), by, anna)
		if err != nil || len(list) != 2 || list[0].State != "redeemed" || list[0].By != h.first.ID || list[1].ID != second.ID {
			t.Errorf("%s sees %+v, %v", by.Role, list, err)
		}
	}
	if r, err := h.ledger.Verify(t.Context()); err != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestInvitationsEnd(t *testing.T) {
	h := build(t)
	anna := h.party()
	invite := func() string {
		t.Helper()
		code, _, err := h.Invite(t.Context(), h.admin, anna)
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	redeem := func(code string) error {
		_, err := h.Redeem(t.Context(), Redemption{Code: code, From: "192.0.2.1"})
		return err
	}
	old, replaced := "", invite()
	old = invite()
	h.advance(invitationLife + time.Second)
	for name, code := range map[string]string{"replaced": replaced, "expired": old, "nothing": "", "a token": "hft1" + old[4:], "cut": old[:60]} {
		err := redeem(code)
		if err == nil || err.Error() != errInvitation().Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
	list, err := h.Invitations(t.Context(), h.admin, anna)
	if err != nil || len(list) != 2 || list[0].State != "replaced" && list[1].State != "replaced" {
		t.Errorf("%+v, %v", list, err)
	}
	code := invite()
	if _, err := h.Redeem(t.Context(), Redemption{Code: code, CSR: []byte("not a request"), From: "192.0.2.1"}); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("a bad request: %v", err)
	}
	if err := redeem(code); err != nil { // the bad request did not use it up
		t.Error(err)
	}
	for range 30 {
		redeem("hfi1.wrong")
	}
	wantKind(t, "after many failures", redeem("hfi1.wrong"), holdfast.Unavailable)
	if err := redeem(invite()); err != nil {
		t.Errorf("who is right is locked out by who shares his address: %v", err)
	}
}

func TestWhoMayInvite(t *testing.T) {
	h := build(t)
	owner, _ := h.owner()
	if _, _, err := h.Invite(t.Context(), owner, owner.Party); err != nil {
		t.Errorf("an owner, his own party: %v", err)
	}
	reader := owner
	reader.Scopes = ScopeRead
	for name, v := range map[string]struct {
		by    Principal
		party holdfast.PartyID
	}{
		"an owner, another party": {owner, h.organisation},
		"who may read only":       {reader, owner.Party},
		"a program":               {h.must(h.program(dashboard(owner.Party)).Token), owner.Party},
		"no party":                {h.admin, holdfast.PartyID{}},
	} {
		_, _, err := h.Invite(t.Context(), v.by, v.party)
		wantKind(t, name, err, holdfast.Denied)
	}
	if _, _, err := h.Invite(t.Context(), h.admin, holdfast.NewID[holdfast.PartyID]()); err == nil {
		t.Error("a party without a record was invited")
	}
}

func TestOneOfManyGuestsRedeems(t *testing.T) {
	h := build(t)
	code, _, err := h.Invite(t.Context(), h.admin, h.party())
	if err != nil {
		t.Fatal(err)
	}
	var in atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := h.Redeem(t.Context(), Redemption{Code: code, From: "192.0.2.1"}); err == nil {
				in.Add(1)
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 {
		t.Errorf("%d guests came in", in.Load())
	}
}
