package access

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/issuer"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// house is an Access on a real catalog, vault, ledger and authority, with a
// clock, an operating organisation and its first administrator.
type house struct {
	*Access
	t         *testing.T
	dir       string
	db        *catalog.DB
	vault     *vault.Vault
	ledger    *ledger.Ledger
	authority *identity.Identity
	log       *lockedBuffer

	organisation holdfast.PartyID
	first        AdministratorIdentity
	admin        Principal

	believed []issuer.Config
	mu       sync.Mutex
	clock    time.Time
	names    []string // of parties that issuers' words made
	grants   map[holdfast.GrantID]granted
}

func build(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), clock: time.Now(), log: new(lockedBuffer), grants: map[holdfast.GrantID]granted{}}
	var err error
	if h.db, err = catalog.Open(t.Context(), h.dir, catalog.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.db.Close() })
	ring := filepath.Join(h.dir, "keyring")
	if err := os.Mkdir(ring, 0o700); err != nil {
		t.Fatal(err)
	}
	holder, err := vault.CreateFileHolder(filepath.Join(t.TempDir(), "root.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if h.vault, err = vault.Create(t.Context(), h.db, vault.Dir(ring), []vault.Holder{holder}, vault.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.vault.Close() })
	if h.ledger, err = ledger.Create(t.Context(), h.db, h.vault, "hub.example/ledger"); err != nil {
		t.Fatal(err)
	}
	h.authority, err = identity.Create(t.Context(), identity.Deps{Catalog: h.db, Vault: h.vault, Ledger: h.ledger},
		[]string{"127.0.0.1"}, identity.Options{Now: h.time})
	if err != nil {
		t.Fatal(err)
	}
	h.restart()
	h.organisation = h.party()
	if h.first, err = h.CreateAdministrator(t.Context(), h.organisation, "the first administrator"); err != nil {
		t.Fatal(err)
	}
	h.admin, err = h.AuthenticateTLS(t.Context(), connection(t, h.first.Certificate))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// restart opens the access anew, with an empty memory.
func (h *house) restart() {
	h.t.Helper()
	issuers, err := issuer.Open(h.believed, issuer.Options{Now: h.time})
	if err != nil {
		h.t.Fatal(err)
	}
	a, err := Open(h.t.Context(), Deps{Issuers: issuers, AddParty: h.newParty, Operating: func(context.Context) (holdfast.PartyID, error) { return h.organisation, nil },
		Catalog: h.db, Vault: h.vault, Ledger: h.ledger, Authority: h.authority, Grant: h.grant},
		Options{Now: h.time, Log: slog.New(slog.NewTextHandler(h.log, nil))})
	if err != nil {
		h.t.Fatal(err)
	}
	h.Access = a
}

// granted is what the house says of a grant.
type granted struct {
	to      holdfast.PartyID
	purpose holdfast.Purpose
	ended   bool
}

func (h *house) grant(_ context.Context, id holdfast.GrantID) (holdfast.PartyID, holdfast.Purpose, bool, error) {
	g, ok := h.grants[id]
	if !ok {
		return g.to, "", false, holdfast.Errorf(holdfast.NotFound, "there is no such grant")
	}
	return g.to, g.purpose, !g.ended, nil
}

func (h *house) time() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.clock
}

func (h *house) advance(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock = h.clock.Add(d)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// party makes a party that has its key, as custody does.
func (h *house) party() holdfast.PartyID {
	h.t.Helper()
	p := holdfast.NewID[holdfast.PartyID]()
	if err := h.vault.AddOwner(h.t.Context(), vault.OfParty(p)); err != nil {
		h.t.Fatal(err)
	}
	return p
}

// newParty is custody's word for party.
func (h *house) newParty(_ context.Context, _ holdfast.CredentialID, name string) (holdfast.PartyID, error) {
	if err := holdfast.CheckName("party", name); err != nil {
		return holdfast.PartyID{}, err
	}
	h.mu.Lock()
	h.names = append(h.names, name)
	h.mu.Unlock()
	return h.party(), nil
}

// owner makes a party with a credential of its own, by invitation.
func (h *house) owner() (Principal, Made) {
	h.t.Helper()
	p := h.party()
	code, _, err := h.Invite(h.t.Context(), h.admin, p)
	if err != nil {
		h.t.Fatal(err)
	}
	m, err := h.Redeem(h.t.Context(), Redemption{Code: code, From: "192.0.2.1"})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.must(m.Token), m
}

func (h *house) must(token string) Principal {
	h.t.Helper()
	p, err := h.Bearer(h.t.Context(), token, "192.0.2.1")
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

// self is a party in person, as its own credential says.
func self(p holdfast.PartyID) Principal {
	return Principal{Settled: true, Credential: newID(), Party: p, Role: Owner, Scopes: ScopeRead | ScopeWrite}
}

func (h *house) program(s Spec) Made {
	h.t.Helper()
	by := h.admin
	if s.Party != h.organisation {
		by = self(s.Party)
	}
	m, err := h.Add(h.t.Context(), by, s, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

func dashboard(p holdfast.PartyID) Spec {
	return Spec{Label: "dashboard", Party: p, Role: Program, Purposes: []holdfast.Purpose{"maintenance"}}
}

func connection(t *testing.T, certificate []byte) tls.ConnectionState {
	t.Helper()
	block, _ := pem.Decode(certificate)
	if block == nil {
		t.Fatal("not PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, PeerCertificates: []*x509.Certificate{c}}
}

func request(t *testing.T) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func httpRequest(t *testing.T, authorization, from string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "https://hub.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.RemoteAddr = from + ":40000"
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	return r
}

// record returns the entries on a party's record of one kind.
func record[T any](h *house, p holdfast.PartyID, kind string) (out []T) {
	h.t.Helper()
	events, err := h.ledger.Events(h.t.Context(), vault.OfParty(p), 0, 100)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range events {
		if e.Kind != kind {
			continue
		}
		var v T
		if err := json.Unmarshal(e.Data, &v); err != nil {
			h.t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

// find returns the files of the data folder that hold a pattern; the log is one.
func (h *house) find(pattern string) (in []string) {
	h.t.Helper()
	if err := h.db.Purge(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	err := filepath.WalkDir(h.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(pattern)) {
			in = append(in, path)
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if strings.Contains(h.log.String(), pattern) {
		in = append(in, "the log")
	}
	return in
}

func wantKind(t *testing.T, what string, err error, k holdfast.Kind) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %s", what, k)
	} else if holdfast.KindOf(err) != k {
		t.Errorf("%s: %v is %s, want %s", what, err, holdfast.KindOf(err), k)
	}
}
