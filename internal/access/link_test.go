package access

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/issuer"
	"github.com/holdfast-iot/holdfast/internal/issuer/issuertest"
)

// withLogin is a house that believes the maker's own login.
func withLogin(t *testing.T, change ...func(*issuer.Config)) (*house, *issuertest.Provider) {
	t.Helper()
	h, p := build(t), issuertest.Start(t)
	c := issuer.Config{URL: p.URL, CA: p.CA, Audience: "hub", Use: issuer.Owners}
	for _, f := range change {
		f(&c)
	}
	h.believed = []issuer.Config{c}
	h.restart()
	return h, p
}

func forStaff(c *issuer.Config) {
	c.Use, c.Administrators, c.Auditors = issuer.Staff, issuer.Match{Claim: "groups", Values: []string{"admins"}}, issuer.Match{Claim: "groups", Values: []string{"privacy"}}
}

func login(h *house, p *issuertest.Provider, c issuertest.Claims) string {
	all := issuertest.Claims{"sub": "maker|4711", "aud": "hub", "iat": h.time().Unix(), "exp": h.time().Add(time.Hour).Unix()}
	for k, v := range c {
		all[k] = v
	}
	return p.Token(all)
}

func (h *house) comes(text string) (Principal, error) {
	return h.Bearer(h.t.Context(), text, "192.0.2.9")
}

// A maker's user is invited once, with his login, and from then on that is enough.
func TestALoginIsLinkedByInvitation(t *testing.T) {
	h, p := withLogin(t)
	text := login(h, p, nil)
	_, err := h.comes(text)
	wantKind(t, "before it is linked", err, holdfast.Denied)

	anna := h.party()
	code, _, err := h.Invite(t.Context(), h.admin, anna)
	if err != nil {
		t.Fatal(err)
	}
	m, err := h.Redeem(t.Context(), Redemption{Code: code, Login: text})
	if err != nil || m.Token != "" || m.Certificate != nil {
		t.Fatalf("%+v, %v", m, err)
	}
	who, err := h.comes(text)
	if err != nil {
		t.Fatal(err)
	}
	if who.Party != anna || who.Role != Owner || who.Credential != m.ID || who.Issuer != p.URL || !who.Settled || who.Can(ScopeMetrics) ||
		who.NotAfter.Sub(h.time()) > time.Hour+time.Minute {
		t.Errorf("%+v", who)
	}
	made := record[CredentialMade](h, anna, "credential made")
	if len(made) != 1 || made[0].Kind != Link || !made[0].Invited {
		t.Errorf("on record: %+v", made)
	}
	_, err = h.Redeem(t.Context(), Redemption{Code: code, Login: login(h, p, issuertest.Claims{"sub": "mallory"})})
	wantKind(t, "the invitation again, with another login", err, holdfast.Denied)

	h.restart()
	if _, err := h.comes(text); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	for _, text := range []string{"maker|4711", p.URL} {
		for _, file := range h.find(text) {
			t.Errorf("%s stands in clear in %s", text, file)
		}
	}
	h.advance(time.Hour + 2*time.Minute)
	_, err = h.comes(text)
	wantKind(t, "when the token has expired", err, holdfast.Denied)
	wantKind(t, "a stream that began before", h.Live(who), holdfast.Denied)
	if _, err := h.comes(login(h, p, nil)); err != nil {
		t.Errorf("logged in again: %v", err)
	}
}

func TestOneLoginIsOneParty(t *testing.T) {
	h, p := withLogin(t)
	text := login(h, p, nil)
	anna, _ := h.owner()
	bob, _ := h.owner()
	first, err := h.Link(t.Context(), anna, text)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Link(t.Context(), bob, text)
	wantKind(t, "another party's login", err, holdfast.Conflict)
	code, _, err := h.Invite(t.Context(), h.admin, bob.Party)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Redeem(t.Context(), Redemption{Code: code, Login: text})
	wantKind(t, "by invitation", err, holdfast.Conflict)
	_, err = h.Link(t.Context(), h.admin, text)
	wantKind(t, "an administrator's", err, holdfast.Denied)
	readOnly := bob
	readOnly.Scopes = ScopeRead
	_, err = h.Link(t.Context(), readOnly, text)
	wantKind(t, "who may not write", err, holdfast.Denied)

	who, err := h.comes(text)
	if err != nil || who.Party != anna.Party {
		t.Fatalf("%+v, %v", who, err)
	}
	if err := h.Revoke(t.Context(), anna, first.ID, "sold the phone"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "a stream of an ended link", h.Live(who), holdfast.Denied)
	_, err = h.comes(text)
	wantKind(t, "after the link was ended", err, holdfast.Denied)
	if _, err := h.Redeem(t.Context(), Redemption{Code: code, Login: text}); err != nil {
		t.Errorf("linked to another party then: %v", err)
	}
	if who, err := h.comes(text); err != nil || who.Party != bob.Party || who.Settled {
		t.Errorf("%+v, %v: a link by a reset must settle", who, err)
	}
}

func TestForgedLogins(t *testing.T) {
	h, p := withLogin(t)
	other := issuertest.Start(t)
	anna, _ := h.owner()
	if _, err := h.Link(t.Context(), anna, login(h, p, nil)); err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"another issuer with the same subject": other.Token(issuertest.Claims{"sub": "maker|4711", "aud": "hub"}),
		"signed by another in its name":        other.Token(issuertest.Claims{"iss": p.URL, "sub": "maker|4711", "aud": "hub"}),
		"expired":                              login(h, p, issuertest.Claims{"exp": h.time().Add(-2 * time.Minute).Unix()}),
		"for another program":                  login(h, p, issuertest.Claims{"aud": "shop"}),
	} {
		_, err := h.comes(text)
		wantKind(t, what, err, holdfast.Denied)
		if err == nil || err.Error() != errNotAccepted().Error() {
			t.Errorf("%s: the refusal tells why: %v", what, err)
		}
		_, err = h.Link(t.Context(), anna, text)
		wantKind(t, "linking "+what, err, holdfast.Denied)
	}
	if n := h.refusedFor("issuer: signature"); n != 2 {
		t.Errorf("%v refusals for a signature", n)
	}
	p.Away(true)
	h.restart()
	_, err := h.comes(login(h, p, nil))
	wantKind(t, "while the issuer is away and unknown", err, holdfast.Unavailable)
}

// Where the operator wants it, whoever logs in first becomes a party, once.
func TestFirstLoginsMakeParties(t *testing.T) {
	h, p := withLogin(t, func(c *issuer.Config) { c.MakeParties, c.NameClaim = true, "name" })
	text := login(h, p, issuertest.Claims{"name": "Heart Study"})
	var wg sync.WaitGroup
	parties := make([]holdfast.PartyID, 8)
	for i := range parties {
		wg.Go(func() {
			who, err := h.comes(text)
			if err != nil || !who.Settled {
				t.Errorf("%+v, %v", who, err)
			}
			parties[i] = who.Party
		})
	}
	wg.Wait()
	for _, other := range parties {
		if other != parties[0] {
			t.Errorf("one login is %v", parties)
		}
	}
	if len(h.names) != 1 || !strings.HasPrefix(h.names[0], "Heart Study ") || len(h.names[0]) != len("Heart Study ")+8 {
		t.Errorf("parties were made: %q", h.names)
	}
	if _, err := h.comes(login(h, p, issuertest.Claims{"sub": "two", "name": "a\nb#+"})); err != nil || !strings.HasPrefix(h.names[1], "login ") {
		t.Errorf("a bad name: %q, %v", h.names, err)
	}
	who := h.mustLogin(text)
	if err := h.EndSession(t.Context(), who, who.Credential); err != nil {
		t.Fatal(err)
	}
	_, err := h.comes(text)
	wantKind(t, "a link that was ended is not made again", err, holdfast.Denied)

	if err := h.Erase(t.Context(), holdfast.Scope{Party: who.Party, Whole: true}); err != nil {
		t.Fatal(err)
	}
	if again := h.mustLogin(text); again.Party == who.Party {
		t.Error("an erased party came back")
	}
}

func (h *house) mustLogin(text string) Principal {
	h.t.Helper()
	p, err := h.comes(text)
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

func TestErasedPartysLoginIsNobodys(t *testing.T) {
	h, p := withLogin(t)
	anna, _ := h.owner()
	text := login(h, p, nil)
	if _, err := h.Link(t.Context(), anna, text); err != nil {
		t.Fatal(err)
	}
	who := h.mustLogin(text)
	if err := h.Erase(t.Context(), holdfast.Scope{Party: anna.Party, Whole: true}); err != nil {
		t.Fatal(err)
	}
	_, err := h.comes(text)
	wantKind(t, "after the erasure", err, holdfast.Denied)
	wantKind(t, "a stream", h.Live(who), holdfast.Denied)
}

func TestStaffByAnIssuersWord(t *testing.T) {
	h, p := withLogin(t, forStaff)
	groups := func(sub string, g ...string) string { return login(h, p, issuertest.Claims{"sub": sub, "groups": g}) }
	_, err := h.comes(groups("eve", "sales"))
	wantKind(t, "nobody of the staff", err, holdfast.Denied)

	ada := h.mustLogin(groups("ada", "sales", "admins"))
	if ada.Role != Administrator || ada.Party != h.organisation || ada.Settled || !ada.Can(ScopeWrite) {
		t.Errorf("%+v", ada)
	}
	eve := h.mustLogin(groups("eve", "privacy"))
	if eve.Role != Auditor || eve.Can(ScopeMetrics) || eve.MayName("operation") || eve.MayName(holdfast.OwnAccess) {
		t.Errorf("%+v", eve)
	}
	if again := h.mustLogin(groups("ada", "admins")); again.Credential != ada.Credential {
		t.Error("the second login is another credential")
	}
	_, err = h.comes(groups("ada", "sales"))
	wantKind(t, "who left the group", err, holdfast.Denied)
	_, err = h.Link(t.Context(), self(h.party()), groups("ada", "admins"))
	wantKind(t, "staff linked to an owner", err, holdfast.Denied)

	h.advance(settleAfter)
	if p := h.mustLogin(groups("ada", "admins")); !p.Settled {
		t.Error("not settled after a week")
	}
	if down := h.mustLogin(groups("ada", "privacy")); down.Role != Auditor || down.Settled || down.Credential != ada.Credential {
		t.Errorf("now an auditor: %+v", down)
	}
	up := h.mustLogin(groups("ada", "admins"))
	if up.Role != Administrator || up.Settled {
		t.Errorf("an administrator again: %+v", up)
	}
	if n := len(record[RoleChanged](h, h.organisation, "role changed")); n != 2 {
		t.Errorf("%d changes of role on record", n)
	}

	if err := h.Revoke(t.Context(), h.admin, ada.Credential, "left"); err != nil {
		t.Fatal(err)
	}
	_, err = h.comes(groups("ada", "admins"))
	wantKind(t, "an ended link of staff", err, holdfast.Denied)
	// Links are the issuer's to keep: they don't make the last certificate one of several.
	h.mustLogin(groups("zoe", "admins"))
	wantKind(t, "the last administrator", h.Revoke(t.Context(), h.admin, h.first.ID, ""), holdfast.Conflict)
}

func TestWhatAnAuditorMayNot(t *testing.T) {
	h, p := withLogin(t, forStaff)
	eve := h.mustLogin(login(h, p, issuertest.Claims{"sub": "eve", "groups": "privacy"}))
	anna, _ := h.owner()
	_, err := h.Add(t.Context(), eve, Spec{Label: "x", Party: h.organisation, Role: Administrator}, nil)
	wantKind(t, "makes an administrator", err, holdfast.Denied)
	_, err = h.Add(t.Context(), eve, dashboard(h.organisation), nil)
	wantKind(t, "makes a program's", err, holdfast.Denied)
	_, _, err = h.Invite(t.Context(), eve, anna.Party)
	wantKind(t, "invites", err, holdfast.Denied)
	wantKind(t, "ends an owner's", h.Revoke(t.Context(), eve, anna.Credential, ""), holdfast.NotFound)
	wantKind(t, "ends an administrator's", h.Revoke(t.Context(), eve, h.first.ID, ""), holdfast.NotFound)
	if all, err := h.Credentials(t.Context(), eve, holdfast.PartyID{}); err != nil || len(all) < 3 {
		t.Errorf("sees %d credentials: %v", len(all), err)
	}
	for _, by := range []Principal{h.admin, anna} {
		m, err := h.Add(t.Context(), by, Spec{Label: "x", Party: by.Party, Role: Auditor}, nil)
		if by.Role == Owner {
			wantKind(t, "an owner makes one", err, holdfast.Denied)
		} else if err != nil || h.must(m.Token).Role != Auditor {
			t.Errorf("an administrator makes one: %v", err)
		}
	}
}

// What an issuer says of a second factor settles; where the operator says so, nothing
// else does.
func TestAnIssuersSecondFactorSettles(t *testing.T) {
	h, p := withLogin(t, func(c *issuer.Config) {
		c.SecondFactor, c.SettledByFactors = issuer.SecondFactor{Methods: []string{"otp"}}, true
	})
	anna, _ := h.owner()
	if _, err := h.Link(t.Context(), anna, login(h, p, nil)); err != nil {
		t.Fatal(err)
	}
	h.settles("a password", h.mustLogin(login(h, p, issuertest.Claims{"amr": []string{"pwd"}, "auth_time": h.time().Unix()})), false)
	h.settles("a code just now", h.mustLogin(login(h, p, issuertest.Claims{"amr": []string{"pwd", "otp"}, "auth_time": h.time().Unix()})), true)
	h.settles("a code an hour ago", h.mustLogin(login(h, p, issuertest.Claims{"amr": []string{"otp"}, "auth_time": h.time().Add(-time.Hour).Unix()})), false)
	h.advance(30 * 24 * time.Hour)
	h.settles("a month later", h.mustLogin(login(h, p, nil)), false)
}

func TestSessions(t *testing.T) {
	h, p := withLogin(t)
	anna, _ := h.owner()
	bob, _ := h.owner()
	text := login(h, p, nil)
	if _, err := h.Link(t.Context(), anna, text); err != nil {
		t.Fatal(err)
	}
	linked := h.mustLogin(text)
	thief := h.redeem(h.admin, anna.Party)
	open, _, err := h.Invite(t.Context(), thief, anna.Party)
	if err != nil {
		t.Fatal(err)
	}
	program := h.program(dashboard(anna.Party))
	all, err := h.Sessions(t.Context(), anna)
	if err != nil || len(all) != 4 {
		t.Fatalf("%d sessions, %v", len(all), err)
	}
	for _, c := range all {
		if (c.Kind == Link) != (c.Issuer == p.URL) {
			t.Errorf("%+v", c)
		}
	}
	wantKind(t, "another party's session", h.EndSession(t.Context(), bob, anna.Credential), holdfast.NotFound)
	_, err = h.Sessions(t.Context(), h.must(program.Token))
	wantKind(t, "a program asks", err, holdfast.Denied)

	if n, err := h.EndOtherSessions(t.Context(), anna, false); n != 2 || err != nil {
		t.Errorf("ended %d, %v", n, err)
	}
	for what, p := range map[string]Principal{"the login": linked, "who came by the reset": thief} {
		wantKind(t, what, h.Live(p), holdfast.Denied)
	}
	_, err = h.Redeem(t.Context(), Redemption{Code: open})
	wantKind(t, "the thief's own invitation", err, holdfast.Denied)
	h.must(program.Token)
	if n, err := h.EndOtherSessions(t.Context(), anna, true); n != 1 || err != nil {
		t.Errorf("ended %d, %v", n, err)
	}
	if all, err := h.Sessions(t.Context(), anna); err != nil || len(all) != 1 || all[0].ID != anna.Credential {
		t.Errorf("left: %+v, %v", all, err)
	}
	if all, err := h.Sessions(t.Context(), h.admin); err != nil || len(all) != 1 {
		t.Errorf("the administrator's own: %d, %v", len(all), err)
	}
}

// Guessing at one credential from everywhere is limited; its holder comes in.
func TestGuessesAtACredentialLockNobodyOut(t *testing.T) {
	h := build(t)
	anna, m := h.owner()
	var limited int
	for i := range 40 {
		wrong := newSecret(tokenPrefix, anna.Credential, [32]byte{})
		_, err := h.Bearer(context.Background(), wrong.Text(), "from "+string(rune('a'+i)))
		if holdfast.KindOf(err) == holdfast.Unavailable {
			limited++
		}
		h.must(m.Token)
	}
	if limited != 30 {
		t.Errorf("%d of 40 were answered that they are too many", limited)
	}
	if n := h.refusedFor("guessed"); n != 30 {
		t.Errorf("%v counted", n)
	}
}

// refusedFor is the metric of refusals for a reason.
func (h *house) refusedFor(reason string) (n float64) {
	h.t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(h.Metrics()...)
	families, err := r.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "holdfast_access_refused_total" && l.GetValue() == reason {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}
