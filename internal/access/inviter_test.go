package access

import (
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// An owner may be who invited him, until a month has passed.
func TestWhoMayBeBehindAnOwner(t *testing.T) {
	h := build(t)
	colleague := h.colleague(h.admin, Administrator)
	anna := h.redeem(colleague, h.party())
	hers, guest := h.addedBy(anna), h.redeem(anna, anna.Party)
	behind := func(what string, p Principal, want holdfast.CredentialID) {
		t.Helper()
		if got, err := h.Inviter(t.Context(), p.Holder); err != nil || got != want {
			t.Errorf("%s: %s, not %s; %v", what, got, want, err)
		}
	}
	for range 2 {
		behind("the owner", anna, colleague.Holder)
		behind("what she made", hers, colleague.Holder)
		behind("whom she invited", guest, colleague.Holder)
		h.advance(strangers - time.Second)
		h.restart()
	}
}

// A month after she was invited she is somebody, and so is what she makes then.
func TestAnOwnerOfAMonthIsSomebody(t *testing.T) {
	h := build(t)
	anna := h.redeem(h.admin, h.party())
	h.advance(strangers)
	anna = h.again(anna)
	reset := h.redeem(h.admin, anna.Party)
	for what, c := range map[string]struct {
		who  Principal
		want holdfast.CredentialID
	}{
		"the owner":                   {anna, holdfast.CredentialID{}},
		"what she made just now":      {h.addedBy(anna), holdfast.CredentialID{}},
		"whom she invited just now":   {h.redeem(anna, anna.Party), holdfast.CredentialID{}},
		"whom the hub invited beside": {reset, h.admin.Holder},
		"an administrator":            {h.admin, holdfast.CredentialID{}},
		"nobody":                      {Principal{}, holdfast.CredentialID{}},
	} {
		if got, err := h.Inviter(t.Context(), c.who.Holder); err != nil || got != c.want {
			t.Errorf("%s: %s, not %s; %v", what, got, c.want, err)
		}
	}
}

// What the hub made on its own machine may be one person's, as init's and a restore's.
func TestTheMachineIsOnePerson(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	h.advance(strangers)
	made, err := h.CreateAdministrator(t.Context(), h.organisation, "restore")
	if err != nil {
		t.Fatal(err)
	}
	restored, err := h.AuthenticateTLS(t.Context(), connection(t, made.Certificate))
	if err != nil {
		t.Fatal(err)
	}
	colleague := h.colleague(h.admin, Administrator)
	for what, c := range map[string][2]Principal{
		"init's, of a restore's":                      {restored, h.again(h.admin)},
		"a restore's, of init's":                      {h.again(h.admin), restored},
		"a restore's, of a fresh colleague of init's": {colleague, restored},
	} {
		wantKind(t, what, h.Another(t.Context(), c[1], c[0].Holder), holdfast.Denied)
		p := h.asks(c[0], wish(anna.Party))
		_, err := h.DecidePermission(t.Context(), c[1], p.ID, true)
		wantKind(t, what, err, holdfast.Denied)
	}
	h.advance(strangers)
	if err := h.Another(t.Context(), h.again(restored), h.admin.Holder); err != nil {
		t.Errorf("after a month: %v", err)
	}
}
