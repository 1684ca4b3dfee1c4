package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func TestFirstAdministratorComesInByCertificate(t *testing.T) {
	h := build(t)
	pair, err := tls.X509KeyPair(h.first.Certificate, h.first.Key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(h.first.CA) {
		t.Fatal("no authority")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	met := make(chan Principal, 1)
	s := &http.Server{TLSConfig: h.authority.PeopleTLS(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := h.Authenticate(r.Context(), r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		met <- p
	})}
	done := make(chan struct{})
	go func() { defer close(done); s.ServeTLS(l, "", "") }()
	defer func() { s.Close(); <-done }()

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}}
	resp, err := client.Get("https://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
	want := Principal{Credential: h.first.ID, Party: h.organisation, Role: Administrator, Scopes: allScopes, NotAfter: h.first.NotAfter, Settled: true, Holder: h.first.ID}
	if diff := cmp.Diff(want, <-met); diff != "" {
		t.Error(diff)
	}
	client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	if resp, err = client.Get("https://" + l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("nobody got %d", resp.StatusCode)
	}
	made := record[CredentialMade](h, h.organisation, "credential made")
	if len(made) != 1 || made[0].Credential != h.first.ID || made[0].Role != Administrator || made[0].By != nil {
		t.Errorf("on record: %+v", made)
	}
}

func TestProgramComesInByToken(t *testing.T) {
	h := build(t)
	service := h.party()
	m := h.program(dashboard(service))
	if !strings.HasPrefix(m.Token, "hft1."+m.ID.String()+".") || m.NotAfter.Sub(h.time()) > tokenLife {
		t.Errorf("a token of %d characters until %s", len(m.Token), m.NotAfter)
	}
	want := Principal{Credential: m.ID, Party: service, Role: Program, Purposes: []holdfast.Purpose{"maintenance"}, Scopes: ScopeRead, NotAfter: m.NotAfter, Settled: true, Holder: m.ID}
	for _, header := range []string{"Bearer " + m.Token, "bearer  " + m.Token, "Bearer " + m.Token[:len(m.Token)-65]} { // with and without pin
		p, err := h.Authenticate(t.Context(), httpRequest(t, header, "192.0.2.1"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, p); diff != "" {
			t.Error(diff)
		}
		h.restart()
	}
}

func TestProgramComesInByCertificate(t *testing.T) {
	h := build(t)
	service := h.party()
	m, err := h.Add(t.Context(), self(service), dashboard(service), request(t))
	if err != nil {
		t.Fatal(err)
	}
	cs := connection(t, m.Certificate)
	if p, err := h.AuthenticateTLS(t.Context(), cs); err != nil || p.Role != Program || p.Credential != m.ID {
		t.Errorf("%+v, %v", p, err)
	}
	if m.Token != "" {
		t.Error("it got a token as well")
	}
	h.advance(91 * 24 * time.Hour)
	_, err = h.AuthenticateTLS(t.Context(), cs)
	wantKind(t, "expired", err, holdfast.Denied)
}

func TestWrongCredentialsAreRefusedAlike(t *testing.T) {
	h := build(t)
	a, b := h.program(dashboard(h.party())), h.program(dashboard(h.party()))
	service := h.party()
	cert, err := h.Add(t.Context(), self(service), dashboard(service), request(t))
	if err != nil {
		t.Fatal(err)
	}
	short := dashboard(h.party())
	short.Life = time.Minute
	expired := h.program(short)
	h.advance(time.Hour)
	parts := func(m Made) []string { return strings.Split(m.Token, ".") }
	swapped := parts(a)
	swapped[2] = parts(b)[2]
	unknown := parts(a)
	unknown[1] = newID().String()
	ofCert := parts(a)
	ofCert[1] = cert.ID.String()
	for name, token := range map[string]string{
		"nothing": "", "not a token": "robert", "another's secret": strings.Join(swapped, "."),
		"unknown": strings.Join(unknown, "."), "a certificate's id": strings.Join(ofCert, "."), "expired": expired.Token,
		"an invitation": "hfi1" + a.Token[4:],
	} {
		_, err := h.Authenticate(t.Context(), httpRequest(t, "Bearer "+token, "192.0.2.1"))
		if err == nil || err.Error() != errNotAccepted().Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = h.Authenticate(t.Context(), httpRequest(t, "", "192.0.2.1"))
	wantKind(t, "no credential", err, holdfast.Denied)
	_, err = h.Authenticate(t.Context(), httpRequest(t, "Basic cm9iZXJ0OngK", "192.0.2.1"))
	wantKind(t, "another scheme", err, holdfast.Denied)
	// A bad token is not made good by a good certificate.
	r := httpRequest(t, "Bearer wrong", "192.0.2.1")
	cs := connection(t, h.first.Certificate)
	r.TLS = &cs
	_, err = h.Authenticate(t.Context(), r)
	wantKind(t, "bad token, good certificate", err, holdfast.Denied)
}

func TestDevicesAreNotPeople(t *testing.T) {
	h := build(t)
	d, a := holdfast.NewID[holdfast.DeviceID](), holdfast.NewID[holdfast.AssignmentID]()
	if err := h.vault.AddOwner(t.Context(), vault.OfAssignment(a)); err != nil {
		t.Fatal(err)
	}
	code, _, err := h.authority.MakeCode(t.Context(), d, a, identity.CodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.authority.Enrol(t.Context(), d.String(), code.SecretText(), request(t), "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.AuthenticateTLS(t.Context(), tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{c}})
	wantKind(t, "a device", err, holdfast.Denied)
}

func TestCertificateOutsideTheCatalogIsNobodys(t *testing.T) {
	h := build(t)
	der, _, _, err := h.authority.SignCredential(t.Context(), h.first.ID, request(t), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.AuthenticateTLS(t.Context(), tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{c}})
	wantKind(t, "the right id with another certificate", err, holdfast.Denied)
}

func TestFailedAttemptsAreLimitedByAddress(t *testing.T) {
	h := build(t)
	m := h.program(dashboard(h.party()))
	for range 20 {
		_, err := h.Authenticate(t.Context(), httpRequest(t, "Bearer wrong", "192.0.2.66"))
		wantKind(t, "wrong", err, holdfast.Denied)
	}
	_, err := h.Authenticate(t.Context(), httpRequest(t, "Bearer wrong", "192.0.2.66"))
	wantKind(t, "wrong, once more", err, holdfast.Unavailable)
	_, err = h.Authenticate(t.Context(), httpRequest(t, "Bearer wrong", "192.0.2.67"))
	wantKind(t, "wrong, from another", err, holdfast.Denied)
	if _, err := h.Authenticate(t.Context(), httpRequest(t, "Bearer "+m.Token, "192.0.2.66")); err != nil {
		t.Errorf("who is right is locked out by who shares his address: %v", err)
	}
	h.advance(time.Minute)
	_, err = h.Authenticate(t.Context(), httpRequest(t, "Bearer wrong", "192.0.2.66"))
	wantKind(t, "wrong, a minute later", err, holdfast.Denied)
}

func TestRevocationHoldsAtOnce(t *testing.T) {
	h := build(t)
	service := h.party()
	m := h.program(dashboard(service))
	p := h.must(m.Token)
	if err := h.Live(p); err != nil {
		t.Fatal(err)
	}
	if err := h.Revoke(t.Context(), h.admin, m.ID, "no longer needed"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "an open stream", h.Live(p), holdfast.Denied)
	for range 2 {
		_, err := h.Bearer(t.Context(), m.Token, "192.0.2.1")
		wantKind(t, "revoked", err, holdfast.Denied)
		h.restart()
	}
	wantKind(t, "an open stream, restarted", h.Live(p), holdfast.Denied)
	wantKind(t, "again", h.Revoke(t.Context(), h.admin, m.ID, ""), holdfast.Conflict)
	wantKind(t, "unknown", h.Revoke(t.Context(), h.admin, newID(), ""), holdfast.NotFound)
	wantKind(t, "the last administrator", h.Revoke(t.Context(), h.admin, h.first.ID, ""), holdfast.Conflict)
	auditor, err := h.Add(t.Context(), h.admin, Spec{Label: "auditor", Party: h.organisation, Role: Administrator, Scopes: ScopeRead}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, "the last but one who only looks", h.Revoke(t.Context(), h.admin, h.first.ID, ""), holdfast.Conflict)
	if err := h.Revoke(t.Context(), h.admin, auditor.ID, ""); err != nil {
		t.Errorf("the one who only looks: %v", err)
	}
	r := record[CredentialRevoked](h, service, "credential revoked")
	if len(r) != 1 || r[0].Credential != m.ID || r[0].By != h.first.ID || r[0].Reason != "no longer needed" {
		t.Errorf("on record: %+v", r)
	}
}

func TestWhoMayAddWhat(t *testing.T) {
	h := build(t)
	owner, _ := h.owner()
	program := h.must(h.program(dashboard(h.party())).Token)
	readOnly := h.admin
	readOnly.Scopes = ScopeRead | ScopeMetrics
	own := func(r Role, p Principal) Spec {
		s := Spec{Label: "x", Party: p.Party, Role: r}
		if r == Program {
			s.Purposes = []holdfast.Purpose{"maintenance"}
		}
		return s
	}
	metrics := Spec{Label: "prometheus", Party: h.organisation, Role: Program, Scopes: ScopeMetrics}
	for name, v := range map[string]struct {
		by   Principal
		spec Spec
		want holdfast.Kind // Internal: allowed
	}{
		"an administrator of his organisation":  {h.admin, own(Administrator, h.admin), holdfast.Internal},
		"a metrics reader, without purpose":     {h.admin, metrics, holdfast.Internal},
		"an administrator of another party":     {h.admin, own(Administrator, owner), holdfast.Denied},
		"an owner's, by an administrator":       {h.admin, own(Owner, owner), holdfast.Denied},
		"the organisation's own, by itself":     {h.admin, own(Owner, h.admin), holdfast.Denied},
		"anything, by who may read only":        {readOnly, own(Program, h.admin), holdfast.Denied},
		"an owner's, by himself":                {owner, own(Owner, owner), holdfast.Internal},
		"a program of an owner":                 {owner, own(Program, owner), holdfast.Internal},
		"another party's, by an administrator":  {h.admin, own(Program, owner), holdfast.Denied},
		"his own party's, by an administrator":  {h.admin, own(Program, h.admin), holdfast.Internal},
		"an administrator, by an owner":         {owner, own(Administrator, owner), holdfast.Denied},
		"another party's, by an owner":          {owner, own(Owner, h.admin), holdfast.Denied},
		"metrics, by an owner":                  {owner, Spec{Label: "x", Party: owner.Party, Role: Program, Scopes: ScopeMetrics}, holdfast.Denied},
		"anything, by a program":                {program, own(Program, program), holdfast.Denied},
		"a program without purpose":             {h.admin, Spec{Label: "x", Party: owner.Party, Role: Program}, holdfast.Invalid},
		"a program for own-access":              {h.admin, Spec{Label: "x", Party: owner.Party, Role: Program, Purposes: []holdfast.Purpose{holdfast.OwnAccess}}, holdfast.Invalid},
		"an administrator with purposes":        {h.admin, Spec{Label: "x", Party: h.organisation, Role: Administrator, Purposes: []holdfast.Purpose{"x"}}, holdfast.Invalid},
		"without label":                         {h.admin, Spec{Party: h.organisation, Role: Administrator}, holdfast.Invalid},
		"without party":                         {h.admin, Spec{Label: "x", Role: Administrator}, holdfast.Invalid},
		"without role":                          {h.admin, Spec{Label: "x", Party: h.organisation}, holdfast.Invalid},
		"for ever":                              {h.admin, Spec{Label: "x", Party: h.organisation, Role: Administrator, Life: 401 * 24 * time.Hour}, holdfast.Invalid},
		"an owner's with metrics":               {owner, Spec{Label: "x", Party: owner.Party, Role: Owner, Scopes: ScopeMetrics}, holdfast.Invalid},
		"a scope that is none":                  {h.admin, Spec{Label: "x", Party: h.organisation, Role: Administrator, Scopes: 128}, holdfast.Invalid},
		"nobody, who has no role and no scopes": {Principal{}, own(Program, owner), holdfast.Denied},
	} {
		m, err := h.Add(t.Context(), v.by, v.spec, nil)
		if v.want != holdfast.Internal {
			wantKind(t, name, err, v.want)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if p := h.must(m.Token); p.Role != v.spec.Role || p.Party != v.spec.Party {
			t.Errorf("%s: became %s of %s", name, p.Role, p.Party)
		}
	}
}

func TestPrincipalsNameTheirPurposes(t *testing.T) {
	admin, owner := Principal{Role: Administrator}, Principal{Role: Owner}
	program := Principal{Role: Program, Purposes: []holdfast.Purpose{"maintenance"}}
	for _, v := range []struct {
		p    Principal
		u    holdfast.Purpose
		want bool
	}{
		{admin, holdfast.Operation, true}, {admin, holdfast.OwnAccess, false}, {admin, "", false},
		{owner, holdfast.OwnAccess, true}, {owner, holdfast.Operation, false},
		{program, "maintenance", true}, {program, holdfast.Operation, false}, {program, holdfast.OwnAccess, false},
		{Principal{}, holdfast.Operation, false},
	} {
		if v.p.MayName(v.u) != v.want {
			t.Errorf("%s names %q: %v", v.p.Role, v.u, !v.want)
		}
	}
	if (Principal{Scopes: ScopeRead}).Can(ScopeRead|ScopeWrite) || (Principal{Scopes: allScopes}).Can(0) {
		t.Error("scopes are not checked whole")
	}
	for _, s := range []Scopes{ScopeRead, ScopeRead | ScopeMetrics, allScopes} {
		if got, err := ParseScopes(s.String()); err != nil || got != s {
			t.Errorf("%s: %s, %v", s, got, err)
		}
	}
	if _, err := ParseScopes("read,all"); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("scopes: %v", err)
	}
	for _, r := range []Role{Administrator, Owner, Program} {
		if got, err := ParseRole(r.String()); err != nil || got != r {
			t.Errorf("%s: %s, %v", r, got, err)
		}
	}
	if _, err := ParseRole(""); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("role: %v", err)
	}
}

func TestListsShowWhatTheReaderMaySee(t *testing.T) {
	h := build(t)
	h.advance(time.Second)
	owner, own := h.owner()
	h.advance(time.Second)
	h.program(dashboard(owner.Party))
	labels := func(by Principal, p holdfast.PartyID) (out []string) {
		t.Helper()
		cs, err := h.Credentials(t.Context(), by, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs {
			out = append(out, c.Role.String()+" "+c.Label)
		}
		return out
	}
	if diff := cmp.Diff([]string{"owner invited", "program dashboard"}, labels(owner, owner.Party)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"owner ", "program dashboard"}, labels(h.admin, owner.Party)); diff != "" {
		t.Error("an administrator sees", diff)
	}
	if n := len(labels(h.admin, holdfast.PartyID{})); n != 3 {
		t.Errorf("%d in all", n)
	}
	for _, p := range []holdfast.PartyID{h.organisation, {}} {
		_, err := h.Credentials(t.Context(), owner, p)
		wantKind(t, "an owner, others' credentials", err, holdfast.Denied)
	}
	_, err := h.Credentials(t.Context(), h.must(h.program(dashboard(owner.Party)).Token), owner.Party)
	wantKind(t, "a program", err, holdfast.Denied)
	wantKind(t, "an owner ends an administrator", h.Revoke(t.Context(), owner, h.first.ID, ""), holdfast.NotFound)
	if err := h.Revoke(t.Context(), owner, own.ID, "done"); err != nil {
		t.Errorf("an owner ends his own: %v", err)
	}
}

func TestLastUseIsWrittenLazily(t *testing.T) {
	h := build(t)
	m := h.program(dashboard(h.organisation))
	last := func() time.Time {
		t.Helper()
		cs, err := h.Credentials(t.Context(), h.admin, h.organisation)
		if err != nil || len(cs) != 2 {
			t.Fatalf("%v, %v", cs, err)
		}
		for _, c := range cs {
			if c.ID == m.ID {
				return c.LastUsed
			}
		}
		return time.Time{}
	}
	if !last().IsZero() {
		t.Error("used before it was")
	}
	today := h.time().UTC().Truncate(24 * time.Hour)
	h.must(m.Token)
	if !last().Equal(today) {
		t.Errorf("last used %s", last())
	}
	h.restart() // without Flush: lost
	if !last().IsZero() {
		t.Error("it was written at once")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- h.Run(ctx) }()
	h.must(m.Token)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	h.restart()
	if !last().Equal(today) {
		t.Errorf("after Run: last used %s", last())
	}
	h.advance(24 * time.Hour)
	h.must(m.Token)
	for range 2 {
		if err := h.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.must(m.Token)
	}
	if len(h.used) != 0 {
		t.Error("a second use on the same day is to be written again")
	}
	h.restart()
	if !last().Equal(today.Add(24 * time.Hour)) {
		t.Errorf("the next day: last used %s", last())
	}
}

func TestPersonRenewsHisCredential(t *testing.T) {
	h := build(t)
	m, err := h.Renew(t.Context(), h.admin, request(t))
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.AuthenticateTLS(t.Context(), connection(t, m.Certificate))
	if err != nil || p.Role != Administrator || p.Party != h.organisation || p.Credential == h.admin.Credential {
		t.Errorf("%+v, %v", p, err)
	}
	_, err = h.Renew(t.Context(), h.must(h.program(dashboard(h.party())).Token), nil)
	wantKind(t, "a program", err, holdfast.Denied)
}

func TestErasedPartyLeavesNoCredential(t *testing.T) {
	h := build(t)
	owner, m := h.owner()
	if _, _, err := h.Invite(t.Context(), h.admin, owner.Party); err != nil {
		t.Fatal(err)
	}
	other, kept := h.owner()
	id := string(m.ID[:])
	if h.find(id) == nil {
		t.Fatal("the search does not find what is there")
	}
	if err := h.Erase(t.Context(), holdfast.Scope{Party: owner.Party, Span: holdfast.Always}); err != nil {
		t.Fatal(err)
	}
	h.must(m.Token) // an erasure of readings leaves the party
	for range 2 {
		if err := h.Erase(t.Context(), holdfast.Scope{Party: owner.Party, Span: holdfast.Always, Whole: true}); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, "an open stream", h.Live(owner), holdfast.Denied)
	for range 2 {
		_, err := h.Bearer(t.Context(), m.Token, "192.0.2.1")
		wantKind(t, "an erased party", err, holdfast.Denied)
		if h.must(kept.Token).Party != other.Party {
			t.Error("another owner is gone")
		}
		h.restart()
	}
	if in := h.find(id); in != nil {
		t.Errorf("the credential is in %v", in)
	}
	var rows int
	err := h.db.Read(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRow(`SELECT (SELECT COUNT(*) FROM access_credential WHERE party = $1) + (SELECT COUNT(*) FROM access_invitation WHERE party = $1)`, owner.Party).Scan(&rows)
	})
	if err != nil || rows != 0 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

func TestSecretsAndNamesAreNowhereInClear(t *testing.T) {
	h := build(t)
	m := h.program(Spec{Label: "planted label", Party: h.party(), Role: Program, Purposes: []holdfast.Purpose{"planted purpose"}})
	code, _, err := h.Invite(t.Context(), h.admin, h.party())
	if err != nil {
		t.Fatal(err)
	}
	h.must(m.Token)
	h.Bearer(t.Context(), m.Token[:len(m.Token)-1]+"x", "192.0.2.1")
	h.Redeem(t.Context(), Redemption{Code: code[:len(code)-1], From: "192.0.2.1"})
	token, err := ParseToken(m.Token)
	if err != nil {
		t.Fatal(err)
	}
	invitation, err := ParseInvitation(code)
	if err != nil {
		t.Fatal(err)
	}
	for n, p := range []string{"planted label", "planted purpose", "the first administrator", string(token.secret[:]), string(invitation.secret[:]),
		strings.Split(m.Token, ".")[2], strings.Split(code, ".")[2], string(h.first.Key[40:80])} {
		if in := h.find(p); in != nil {
			t.Errorf("pattern %d is in %v", n, in)
		}
	}
	if !strings.Contains(h.log.String(), "refused") {
		t.Error("the log says nothing of refusals")
	}
}
