package deviceapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/mqtt"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// house is the devices' listener over everything it stands on, on a real disk and
// a real port.
type house struct {
	t        testing.TB
	identity *identity.Identity
	custody  *custody.Custody
	series   *series.Series
	disk     *fullDisk
	api      *API
	address  string
	url      string
	log      *lockedBuffer
	admin    holdfast.CredentialID
	around   atomic.Pointer[http.Handler] // stands in for the API when set
}

// fullDisk is a journal that, while full, refuses what it is handed.
type fullDisk struct {
	journal.Log
	full atomic.Bool
}

func (d *fullDisk) Append(record []byte, done func(journal.Pos, error)) {
	if d.full.Load() {
		done(0, holdfast.Errorf(holdfast.Unavailable, "append: no space left on device"))
		return
	}
	d.Log.Append(record, done)
}

// must is for calls that must not fail: must(f())(t).
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func build(t testing.TB, o Options) *house {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	h := &house{t: t, log: new(lockedBuffer), admin: holdfast.NewID[holdfast.CredentialID]()}
	logger := slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	db := must(catalog.Open(ctx, dir, catalog.Options{}))(t)
	t.Cleanup(func() { db.Close() })
	ring := filepath.Join(dir, "keyring")
	if err := os.Mkdir(ring, 0o700); err != nil {
		t.Fatal(err)
	}
	holder := must(vault.CreateFileHolder(filepath.Join(t.TempDir(), "root.key"), nil))(t)
	keys := must(vault.Create(ctx, db, vault.Dir(ring), []vault.Holder{holder}, vault.Options{}))(t)
	t.Cleanup(func() { keys.Close() })
	record := must(ledger.Create(ctx, db, keys, "hub.example/ledger"))(t)
	h.identity = must(identity.Create(ctx, identity.Deps{Catalog: db, Vault: keys, Ledger: record},
		[]string{"127.0.0.1", "localhost"}, identity.Options{Log: logger}))(t)
	h.custody = custody.New(db, keys, record, custody.Options{})
	must(h.custody.AddOperating(ctx, "Acme"))(t)
	purposes := must(grant.Open(ctx, db, keys, record, grant.Options{}))(t)
	log := must(journal.OpenFile(filepath.Join(dir, "journal"), journal.Options{}))(t)
	t.Cleanup(func() { log.Close() })
	h.disk = &fullDisk{Log: log}
	blobs := must(blob.OpenDir(filepath.Join(dir, "blobs")))(t)
	t.Cleanup(func() { blobs.Close() })
	sessions, clock, err := ingest.OpenSessions(ctx, db, keys)
	if err != nil {
		t.Fatal(err)
	}
	h.series = series.New(db, h.disk, blobs, keys, series.Options{Logger: logger})
	if err := h.series.Recover(ctx, sessions.Replay); err != nil {
		t.Fatal(err)
	}
	gate := ingest.New(h.custody, purposes, keys, h.disk, h.series, sessions, clock, ingest.Options{})
	o.Logger = logger
	broker := mqtt.New(
		func(ctx context.Context, cs tls.ConnectionState) (mqtt.Peer, error) {
			p, err := h.identity.Peer(ctx, cs)
			return atMQTT(p), err
		},
		mqttGate{ctx, gate}, mqttSessions{sessions},
		mqtt.Options{Logger: logger, Track: func(p mqtt.Peer, cut func(error)) func() { return h.identity.Track(fromMQTT(p), cut) }})
	ours := must(net.Listen("tcp", "127.0.0.1:0"))(t) // the broker's own listener, which nobody uses
	brokerEnded := make(chan error)
	brokerCtx, endBroker := context.WithCancel(context.WithoutCancel(ctx))
	go func() { brokerEnded <- broker.Run(brokerCtx, ours) }()
	t.Cleanup(func() {
		endBroker()
		if err := <-brokerEnded; err != nil {
			t.Error(err)
		}
	})
	h.api = New(Deps{Identity: h.identity, Gate: gate, Custody: h.custody, MQTT: broker}, o)

	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	s := h.api.Server(h.identity.DeviceTLS(tls.VersionTLS13))
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if other := h.around.Load(); other != nil {
			(*other).ServeHTTP(w, r)
			return
		}
		h.api.ServeHTTP(w, r)
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() { s.Close(); <-done })
	h.address, h.url = l.Addr().String(), "https://"+l.Addr().String()
	return h
}

// The adapters between mqtt and ingest.

type mqttGate struct {
	ctx context.Context
	in  *ingest.Gate
}

func (g mqttGate) Batch(p mqtt.Peer, session string) mqtt.Batch {
	return mqttBatch{g.in.Batch(g.ctx, fromMQTT(p), session)}
}

type mqttBatch struct{ *ingest.Batch }

func (b mqttBatch) Add(child string, samples []holdfast.Sample, d mqtt.Delivery) error {
	return b.Batch.Add(child, samples, ingest.Delivery(d))
}

type mqttSessions struct{ *ingest.Sessions }

func (s mqttSessions) Open(ctx context.Context, p mqtt.Peer, clientID string, clean bool, expiry time.Duration) (mqtt.Session, bool, error) {
	o, err := s.Sessions.Open(ctx, ingest.DeviceClient(fromMQTT(p)), clientID, clean, expiry)
	return mqtt.Session{Name: o.Name, Received: o.Received}, o.Present, err
}

func (s mqttSessions) Close(ctx context.Context, p mqtt.Peer, clientID string, expiry time.Duration) error {
	return s.Sessions.Close(ctx, ingest.DeviceClient(fromMQTT(p)), clientID, expiry)
}

// thing is an enrolled device.
type thing struct {
	h    *house
	id   holdfast.DeviceID
	as   holdfast.AssignmentID
	dir  string
	http *http.Client
}

// code adds a device and makes its enrolment code.
func (h *house) code(spec custody.DeviceSpec) (custody.Device, identity.Code) {
	h.t.Helper()
	d := must(h.custody.AddDevice(h.t.Context(), h.admin, spec))(h.t).Device
	c, _, err := h.identity.MakeCode(h.t.Context(), d.ID, d.Assignment, identity.CodeOptions{Address: h.address})
	if err != nil {
		h.t.Fatal(err)
	}
	return d, c
}

func (h *house) enrolled(spec custody.DeviceSpec) *thing {
	h.t.Helper()
	d, code := h.code(spec)
	x := &thing{h: h, id: d.ID, as: d.Assignment, dir: filepath.Join(h.t.TempDir(), "identity")}
	i := must(client.Enrol(h.t.Context(), must(client.ParseCode(code.Text()))(h.t), x.dir))(h.t)
	if i.Device != d.ID {
		h.t.Fatalf("enrolled as %s, want %s", i.Device, d.ID)
	}
	x.reload()
	return x
}

func (h *house) device() *thing { return h.enrolled(custody.DeviceSpec{Label: "pump 1"}) }

// reload makes an HTTP client with the identity as it is on disk.
func (x *thing) reload() {
	x.h.t.Helper()
	x.http = &http.Client{Transport: &http.Transport{TLSClientConfig: x.tls()}}
	x.h.t.Cleanup(x.http.CloseIdleConnections)
}

func (x *thing) tls() *tls.Config {
	x.h.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(x.h.identity.CA())
	pair := must(tls.LoadX509KeyPair(filepath.Join(x.dir, "cert.pem"), filepath.Join(x.dir, "key.pem")))(x.h.t)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, ServerName: "localhost"}
}

func (x *thing) client() *client.Client {
	x.h.t.Helper()
	c := must(client.New(client.Options{Hub: x.h.url, Identity: x.dir}))(x.h.t)
	x.h.t.Cleanup(c.Close)
	return c
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	text   string
	doc    problem
}

func (x *thing) post(path, contentType string, body io.Reader, header ...string) reply {
	x.h.t.Helper()
	r := must(http.NewRequestWithContext(x.h.t.Context(), "POST", x.h.url+path, body))(x.h.t)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return readReply(x.h.t, must(x.http.Do(r))(x.h.t))
}

func readReply(t testing.TB, r *http.Response) reply {
	t.Helper()
	defer r.Body.Close()
	b := must(io.ReadAll(r.Body))(t)
	out := reply{status: r.StatusCode, header: r.Header, text: string(b)}
	if r.StatusCode/100 != 2 && r.Header.Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(b, &out.doc); err != nil || out.doc.Status != r.StatusCode || out.doc.Type != "about:blank" {
			t.Errorf("not a problem document: %s", b)
		}
	}
	return out
}

// readings returns what the hub holds of a stream.
func (h *house) readings(device holdfast.DeviceID, stream string) []holdfast.Reading {
	h.t.Helper()
	s, err := h.custody.StreamByName(h.t.Context(), device, stream)
	if holdfast.KindOf(err) == holdfast.NotFound && err != nil {
		return nil
	}
	if err != nil {
		h.t.Fatal(err)
	}
	var out []holdfast.Reading
	for r, err := range h.series.Scan(h.t.Context(), s.Assignment, s.ID, holdfast.Always) {
		if err != nil {
			h.t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// need finds outside programs, or ends the test aloud: as a failure, unless
// HOLDFAST_NO_TOOLS=1 says that they are left out on purpose.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("HOLDFAST_NO_TOOLS") == "1" {
			t.Skipf("%s is not installed and HOLDFAST_NO_TOOLS=1", p)
		}
		t.Fatalf("%s is not installed: install it, or set HOLDFAST_NO_TOOLS=1 to leave this test out", p)
	}
}

func shell(t *testing.T, dir, script string, env ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
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

// within fails if nothing comes in time.
func within(t testing.TB, d time.Duration, what string, c <-chan error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	select {
	case err := <-c:
		return err
	case <-ctx.Done():
		t.Fatalf("%s: nothing happened within %s", what, d)
		return nil
	}
}

// until waits for what another goroutine is about to make true.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(time.Minute); !so(); <-tick.C {
		if time.Now().After(limit) {
			t.Fatalf("not so: %s", what)
		}
	}
}

func atMQTT(p identity.Peer) mqtt.Peer {
	return mqtt.Peer{Device: p.Device, Assignment: p.Assignment, Fingerprint: p.Fingerprint, NotAfter: p.NotAfter, TLS12: p.TLS12}
}

func fromMQTT(p mqtt.Peer) identity.Peer {
	return identity.Peer{Device: p.Device, Assignment: p.Assignment, Fingerprint: p.Fingerprint, NotAfter: p.NotAfter, TLS12: p.TLS12}
}
