package access

import (
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// Who acts in another's place makes nothing there that would outlast it: no
// credential, no login, no second factor; and he shuts nobody out.
func TestCredentialsAreNotMadeInAnothersPlace(t *testing.T) {
	h, p := withLogin(t)
	child, _ := h.owner()
	guardian, _ := h.owner()
	acting := guardian
	acting.Actor, acting.Party = guardian.Party, child.Party
	want := func(what string, err error) {
		t.Helper()
		wantKind(t, what, err, holdfast.Denied)
	}
	_, err := h.Link(t.Context(), acting, login(h, p, nil))
	want("a login", err)
	_, err = h.Add(t.Context(), acting, Spec{Label: "x", Party: child.Party, Role: Owner}, nil)
	want("a credential", err)
	_, err = h.Renew(t.Context(), acting, nil)
	want("a renewed credential", err)
	_, _, err = h.Invite(t.Context(), acting, child.Party)
	want("an invitation", err)
	_, err = h.AddFactor(t.Context(), acting)
	want("a second factor", err)
	_, _, err = h.Factor(t.Context(), acting)
	want("whether there is a second factor", err)
	want("removing a second factor", h.RemoveFactor(t.Context(), acting))
	_, err = h.Sessions(t.Context(), acting)
	want("sessions", err)
	want("ending a session", h.EndSession(t.Context(), acting, child.Credential))
	_, err = h.EndOtherSessions(t.Context(), acting, true)
	want("ending all others", err)
	want("revoking", h.Revoke(t.Context(), acting, child.Credential, ""))
	wish := h.asks(h.admin, wish(child.Party))
	_, err = h.DecidePermission(t.Context(), acting, wish.ID, true)
	want("approving a permission", err)
	if h.Live(child) != nil {
		t.Error("the child was shut out")
	}
}
