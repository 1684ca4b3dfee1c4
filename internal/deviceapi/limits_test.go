package deviceapi

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// dial opens a connection as x, without HTTP.
func (x *thing) dial() *tls.Conn {
	x.h.t.Helper()
	c := must(tls.Dial("tcp", x.h.address, x.tls()))(x.h.t)
	x.h.t.Cleanup(func() { c.NetConn().Close() })
	return c
}

// request writes a request by hand and returns how to read the answer.
func request(t testing.TB, c net.Conn, head, body string) func() reply {
	t.Helper()
	must(io.WriteString(c, head+"\r\n\r\n"+body))(t)
	in := bufio.NewReader(c)
	return func() reply {
		t.Helper()
		return readReply(t, must(http.ReadResponse(in, nil))(t))
	}
}

const oneReading = `[{"n":"s","v":1}]`

func head(length int) string {
	return fmt.Sprintf("POST /v1/data HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d", length)
}

// closed reports the end of a connection that says nothing more.
func closed(c net.Conn) <-chan error {
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	}()
	return ended
}

// A revoked device's connections end within a second: the idle one, and the one
// in the middle of a request, whose readings are not taken.
func TestRevocationCutsConnections(t *testing.T) {
	h := build(t, Options{})
	x, other := h.device(), h.enrolled(custody.DeviceSpec{Label: "other"})
	idle, busy, bystander := x.dial(), x.dial(), other.dial()
	for _, c := range []net.Conn{idle, bystander} {
		if r := request(t, c, head(len(oneReading)), oneReading)(); r.status != 204 {
			t.Fatalf("%d %s", r.status, r.text)
		}
	}
	request(t, busy, head(len(oneReading)), oneReading[:5])
	until(t, "both are known", func() bool { return h.identity.Connected(x.id) == 2 })
	endings := []<-chan error{closed(idle), closed(busy)}
	if err := h.identity.Revoke(t.Context(), x.id, "lost"); err != nil {
		t.Fatal(err)
	}
	for i, ended := range endings {
		within(t, 10*time.Second, fmt.Sprintf("connection %d of a revoked device", i), ended)
	}
	if got := h.readings(x.id, "s"); len(got) != 1 {
		t.Errorf("%d readings, want 1", len(got))
	}
	if r := request(t, bystander, head(len(oneReading)), oneReading)(); r.status != 204 {
		t.Errorf("another device: %d %s", r.status, r.text)
	}
	until(t, "none is known", func() bool { return h.identity.Connected(x.id) == 0 })
	if _, err := x.client().Send(t.Context(), holdfast.Sample{Stream: "s", Value: holdfast.NumberValue(2)}); holdfast.KindOf(err) != holdfast.Denied ||
		!strings.Contains(err.Error(), "enrol again") {
		t.Errorf("the client of a revoked device is told: %v", err)
	}
}

// A revocation that comes between the two questions, who it is and what is to be
// done when it is revoked, is not missed: nothing of that request is taken.
func TestRevokedInBetween(t *testing.T) {
	h := build(t, Options{})
	x := h.device()
	h.api.d.Identity = hasty{h.identity, func() {
		if err := h.identity.Revoke(t.Context(), x.id, "lost"); err != nil {
			t.Error(err)
		}
	}}
	c := x.dial()
	request(t, c, head(len(oneReading)), oneReading)
	within(t, 30*time.Second, "the connection", closed(c))
	if got := h.readings(x.id, "s"); len(got) != 0 {
		t.Errorf("%d readings of a revoked device", len(got))
	}
}

// hasty lets something happen before each Track.
type hasty struct {
	Identity
	first func()
}

func (h hasty) Track(p identity.Peer, cut func(error)) func() {
	h.first()
	return h.Identity.Track(p, cut)
}

// A connection that has ended is not tracked any more.
func TestConnectionsAreForgotten(t *testing.T) {
	h := build(t, Options{})
	x := h.device()
	for range 3 {
		c := x.dial()
		if r := request(t, c, head(len(oneReading))+"\r\nConnection: close", oneReading)(); r.status != 204 {
			t.Fatal(r.status)
		}
		within(t, 30*time.Second, "the end of the connection", closed(c))
	}
	until(t, "none is known", func() bool { return h.identity.Connected(x.id) == 0 })
}

// Who is not an enrolled device gets nowhere but to EST.
func TestWhoIsNoDevice(t *testing.T) {
	h := build(t, Options{})
	x := h.device()
	pool := x509.NewCertPool()
	pool.AddCert(h.identity.CA())
	nobody := &thing{h: h, http: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}}
	t.Cleanup(nobody.http.CloseIdleConnections)
	for _, path := range []string{"/v1/data", "/write", "/api/v2/write", "/nowhere"} {
		if r := nobody.post(path, "", strings.NewReader(oneReading)); r.status != 401 || r.doc.Title != "denied" {
			t.Errorf("nobody at %s: %d %s", path, r.status, r.text)
		}
	}
	r := must(nobody.http.Get(h.url + "/.well-known/est/cacerts"))(t)
	r.Body.Close()
	if r.StatusCode != 200 {
		t.Errorf("EST: %d", r.StatusCode)
	}
	// A person's certificate is no device's.
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	csr := must(x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key))(t)
	der, _, _, err := h.identity.SignCredential(t.Context(), holdfast.NewID[holdfast.CredentialID](), csr, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	person := &thing{h: h, http: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}}}}
	t.Cleanup(person.http.CloseIdleConnections)
	if r := person.post("/v1/data", "", strings.NewReader(oneReading)); r.status != 403 {
		t.Errorf("a person: %d %s", r.status, r.text)
	}
	if got := h.readings(x.id, "s"); len(got) > 0 {
		t.Error("somebody's reading was taken")
	}
}

// A body that dawdles is given up, however it is announced; the others don't
// notice, and what it held is given back.
func TestSlowBodies(t *testing.T) {
	h := build(t, Options{BodyTimeout: 500 * time.Millisecond, MaxInflightBytes: 1, MaxBody: 1 << 20}) // 2 MiB
	x := h.device()
	// Five announce 1 MiB each, which together is beyond the budget, and send little.
	var answers []func() reply
	for range 5 {
		answers = append(answers, request(t, x.dial(), head(1<<20), strings.Repeat(" ", 1000)))
	}
	if r := x.post("/v1/data", "", strings.NewReader(oneReading)); r.status != 204 {
		t.Errorf("another request meanwhile: %d %s", r.status, r.text)
	}
	for _, answer := range answers {
		if r := answer(); r.status != 400 || !strings.Contains(r.doc.Detail, "did not arrive") {
			t.Errorf("%d %s", r.status, r.text)
		}
	}
	if !h.api.bytes.TryAcquire(int64(h.api.o.MaxInflightBytes)) {
		t.Error("bytes of requests that have ended are still counted")
	}
}

// A header that dawdles ends the connection, and so does silence.
func TestSlowHeaders(t *testing.T) {
	s := build(t, Options{}).api.Server(nil)
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= 0 || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 {
		t.Fatal("a deadline is missing")
	}
	s.ReadHeaderTimeout = 100 * time.Millisecond
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	for _, said := range []string{"", "POST /v1/data HTTP/1.1\r\nHost: x\r\nX-Slow: "} {
		c := must(net.Dial("tcp", l.Addr().String()))(t)
		defer c.Close()
		must(io.WriteString(c, said))(t)
		within(t, 30*time.Second, "a connection that says "+said, closed(c))
	}
}

// The budget of bytes refuses what goes beyond it, for now.
func TestTheBudgetOfBytes(t *testing.T) {
	h := build(t, Options{MaxBody: 1 << 20})
	x := h.device()
	held := int64(h.api.o.MaxInflightBytes)
	if !h.api.bytes.TryAcquire(held) {
		t.Fatal("the budget is not free")
	}
	if r := x.post("/v1/data", "", strings.NewReader(oneReading)); r.status != 503 || r.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", r.status, r.text)
	}
	h.api.bytes.Release(held)
	if r := x.post("/v1/data", "", strings.NewReader(oneReading)); r.status != 204 {
		t.Errorf("%d %s", r.status, r.text)
	}
}

// One device can't have all of the hub: not by many requests at once, not by many
// in a row. Another one is served meanwhile.
func TestABusyDevice(t *testing.T) {
	h := build(t, Options{MaxPerDevice: 2, PerSecond: 0.001, Burst: 5})
	x, other := h.device(), h.enrolled(custody.DeviceSpec{Label: "other"})
	for range 2 {
		request(t, x.dial(), head(len(oneReading)), "[")
	}
	until(t, "both are known", func() bool { return h.identity.Connected(x.id) == 2 })
	until(t, "both are inside", func() bool {
		h.api.budgets.mu.Lock()
		defer h.api.budgets.mu.Unlock()
		b := h.api.budgets.of[x.id]
		return b != nil && b.inside == 2
	})
	if r := x.post("/v1/data", "", strings.NewReader(oneReading)); r.status != 429 || r.header.Get("Retry-After") == "" {
		t.Errorf("a third request at once: %d %s", r.status, r.text)
	}
	if r := other.post("/v1/data", "", strings.NewReader(oneReading)); r.status != 204 {
		t.Errorf("another device: %d %s", r.status, r.text)
	}
	statuses := map[int]int{}
	for range 8 {
		statuses[other.post("/v1/data", "", strings.NewReader(oneReading)).status]++
	}
	if statuses[204] != 4 || statuses[429] != 4 {
		t.Errorf("a burst of five, one of them used: %v", statuses)
	}
}

// Requests beyond the limit of all devices are asked to come again.
func TestABusyHub(t *testing.T) {
	h := build(t, Options{MaxRequests: 1})
	x := h.device()
	if !h.api.busy.TryAcquire(1) {
		t.Fatal("not free")
	}
	if r := x.post("/v1/data", "", strings.NewReader(oneReading)); r.status != 503 {
		t.Errorf("%d %s", r.status, r.text)
	}
	h.api.busy.Release(1)
	if r := x.post("/v1/data", "", strings.NewReader(oneReading)); r.status != 204 {
		t.Errorf("%d %s", r.status, r.text)
	}
}

// Many devices at once, over connections of their own and shared ones.
func TestManyAtOnce(t *testing.T) {
	h := build(t, Options{})
	const devices, requests = 4, 50
	var wg sync.WaitGroup
	for d := range devices {
		x := h.enrolled(custody.DeviceSpec{Label: fmt.Sprint("device ", d)})
		wg.Go(func() {
			for i := range requests {
				if r := x.post("/v1/data", "", strings.NewReader(fmt.Sprintf(`[{"n":"s","v":%d,"t":%d}]`, i, 1772366400+i))); r.status != 204 {
					t.Errorf("%d %s", r.status, r.text)
				}
			}
			if got := len(h.readings(x.id, "s")); got != requests {
				t.Errorf("%d readings", got)
			}
		})
	}
	wg.Wait()
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(h.api.Metrics()...)
	counted := map[string]float64{}
	for _, family := range must(metrics.Gather())(t) {
		for _, m := range family.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				labels += l.GetValue() + "|"
			}
			counted[labels] = m.GetCounter().GetValue()
		}
	}
	if counted["POST /v1/data|2xx|"] != devices*requests {
		t.Errorf("counted %v", counted)
	}
}

// Served by another server than its own, the API refuses: a revocation could not
// cut the connection.
func TestAnotherServer(t *testing.T) {
	h := build(t, Options{})
	x := h.device()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	s := &http.Server{Handler: h.api, TLSConfig: h.identity.DeviceTLS(tls.VersionTLS13)}
	done := make(chan error)
	go func() { done <- s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { s.Close(); <-done })
	x.h = &house{t: t, url: "https://" + l.Addr().String(), identity: h.identity}
	if r := x.post("/v1/data", "", strings.NewReader(oneReading)); r.status != 500 || r.doc.Detail != "" {
		t.Errorf("%d %s", r.status, r.text)
	}
}

// Each kind of error has its status, and what is ours stays here.
func TestKindsHaveStatuses(t *testing.T) {
	for kind, want := range map[holdfast.Kind]int{holdfast.Internal: 500, holdfast.Invalid: 400, holdfast.Denied: 403, holdfast.NotFound: 404,
		holdfast.Conflict: 409, holdfast.TooLarge: 413, holdfast.Unavailable: 503} {
		if got := status(fmt.Errorf("wrapped: %w", holdfast.Errorf(kind, "x"))); got != want {
			t.Errorf("%s: %d, want %d", kind, got, want)
		}
	}
	if status(errors.New("x")) != 500 || status(errNobody) != 401 || status(fmt.Errorf("x: %w", errPace)) != 429 {
		t.Error("the others")
	}
}
