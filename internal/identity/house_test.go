package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// house is an Identity on a real catalog, vault and ledger, with a clock.
type house struct {
	*Identity
	t      testing.TB
	dir    string
	db     *catalog.DB
	vault  *vault.Vault
	ledger *ledger.Ledger
	log    *lockedBuffer

	mu    sync.Mutex
	clock time.Time
}

var testHosts = []string{"127.0.0.1", "localhost", "::1", "hub.example"}

func build(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), clock: time.Now(), log: new(lockedBuffer)}
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
	if h.Identity, err = Create(t.Context(), h.deps(), testHosts, h.options()); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) deps() Deps { return Deps{Catalog: h.db, Vault: h.vault, Ledger: h.ledger} }

func (h *house) options() Options {
	return Options{Now: h.time, Log: slog.New(slog.NewTextHandler(h.log, nil))}
}

// restart opens the authority anew, with an empty memory.
func (h *house) restart() {
	h.t.Helper()
	i, err := Open(h.t.Context(), h.deps(), h.options())
	if err != nil {
		h.t.Fatal(err)
	}
	h.Identity = i
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

// thing is a device: the code it was given, its key and its certificate.
type thing struct {
	h          *house
	id         holdfast.DeviceID
	assignment holdfast.AssignmentID
	code       Code
	key        crypto.Signer
	cert       *x509.Certificate
}

// device makes a device with an owner and a code.
func (h *house) device() *thing {
	h.t.Helper()
	d := &thing{h: h, id: holdfast.NewID[holdfast.DeviceID](), assignment: holdfast.NewID[holdfast.AssignmentID](), key: newKey(h.t)}
	if err := h.vault.AddOwner(h.t.Context(), vault.OfAssignment(d.assignment)); err != nil {
		h.t.Fatal(err)
	}
	d.newCode()
	return d
}

func (d *thing) newCode() {
	d.h.t.Helper()
	c, _, err := d.h.MakeCode(d.h.t.Context(), d.id, d.assignment, CodeOptions{})
	if err != nil {
		d.h.t.Fatal(err)
	}
	d.code = c
}

// enrolled is a device that has its first certificate.
func (h *house) enrolled() *thing {
	h.t.Helper()
	d := h.device()
	d.mustEnrol()
	return d
}

func (d *thing) enrol(key crypto.Signer) (*x509.Certificate, error) {
	return d.h.Enrol(d.h.t.Context(), d.id.String(), d.code.SecretText(), csrOf(d.h.t, key, ""), "192.0.2.1")
}

func (d *thing) mustEnrol() {
	d.h.t.Helper()
	c, err := d.enrol(d.key)
	if err != nil {
		d.h.t.Fatal(err)
	}
	d.cert = c
}

// renewed is the same device with the certificate that it gets for another key.
func (d *thing) renewed() *thing {
	d.h.t.Helper()
	next := *d
	next.key = newKey(d.h.t)
	c, err := d.h.Renew(d.h.t.Context(), d.state(), csrOf(d.h.t, next.key, ""))
	if err != nil {
		d.h.t.Fatal(err)
	}
	next.cert = c
	return &next
}

// state is what a TLS 1.3 server would know of the device's connection.
func (d *thing) state() tls.ConnectionState { return stateOf(d.cert) }

func stateOf(c *x509.Certificate) tls.ConnectionState {
	return tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, PeerCertificates: []*x509.Certificate{c}}
}

func (d *thing) peer() (Peer, error) { return d.h.Peer(d.h.t.Context(), d.state()) }

func (d *thing) mustPeer() Peer {
	d.h.t.Helper()
	p, err := d.peer()
	if err != nil {
		d.h.t.Fatal(err)
	}
	return p
}

func (d *thing) clientTLS() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(d.h.CA())
	c := &tls.Config{RootCAs: pool, Time: d.h.time}
	if d.cert != nil {
		c.Certificates = []tls.Certificate{{Certificate: [][]byte{d.cert.Raw}, PrivateKey: d.key}}
	}
	return c
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func csrOf(t testing.TB, key crypto.Signer, commonName string) []byte {
	t.Helper()
	r := new(x509.CertificateRequest)
	r.Subject.CommonName = commonName
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// listen serves h over TLS until the test ends and returns its address.
func listen(t *testing.T, c *tls.Config, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, TLSConfig: c, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().String()
}

// record returns the kinds of a device's entries in the ledger, and their data.
func (d *thing) record() (kinds []string, data []json.RawMessage) {
	d.h.t.Helper()
	events, err := d.h.ledger.Events(d.h.t.Context(), vault.OfAssignment(d.assignment), 0, 100)
	if err != nil {
		d.h.t.Fatal(err)
	}
	for _, e := range events {
		kinds, data = append(kinds, e.Kind), append(data, e.Data)
	}
	return kinds, data
}

func wantKind(t *testing.T, what string, err error, k holdfast.Kind) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %s", what, k)
	} else if holdfast.KindOf(err) != k {
		t.Errorf("%s: %v is %s, want %s", what, err, holdfast.KindOf(err), k)
	}
}
