package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

func TestListenersSpeakModernTLS(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	address, peers := h.broker(tls.VersionTLS13)
	c := d.clientTLS()
	c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		conn, err := tls.Dial("tcp", address, c)
		if err != nil {
			t.Fatal(err)
		}
		<-peers
		cs := conn.ConnectionState()
		conn.Close()
		if cs.Version != tls.VersionTLS13 || cs.CurveID != tls.X25519MLKEM768 || cs.DidResume {
			t.Errorf("version %x, curve %s, resumed %v", cs.Version, cs.CurveID, cs.DidResume)
		}
	}
	c.MaxVersion = tls.VersionTLS12
	mustRefuse(t, address, c)

	address, peers = h.broker(tls.VersionTLS12)
	conn, err := tls.Dial("tcp", address, c)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if p := <-peers; !p.TLS12 {
		t.Error("the broker did not note TLS 1.2")
	}
	c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
	mustRefuse(t, address, c)
	c.MaxVersion = tls.VersionTLS11
	c.MinVersion = tls.VersionTLS10
	mustRefuse(t, address, c)
}

func TestBrokerRefusesWhoIsNobody(t *testing.T) {
	h, other := build(t), build(t)
	address, _ := h.broker(tls.VersionTLS13)
	nobody := h.device().clientTLS()
	mustRefuse(t, address, nobody)
	stranger := other.enrolled().clientTLS()
	stranger.RootCAs = nobody.RootCAs
	mustRefuse(t, address, stranger)
	expired := h.enrolled()
	h.advance(deviceLife + time.Hour)
	mustRefuse(t, address, expired.clientTLS())
}

func TestServerCertificateIsAlwaysFresh(t *testing.T) {
	h := build(t)
	address := listen(t, h.PeopleTLS(), h.EST())
	chain := func(server string) []*x509.Certificate {
		t.Helper()
		c := h.device().clientTLS()
		c.ServerName = server
		conn, err := tls.Dial("tcp", address, c)
		if err != nil {
			t.Fatalf("as %s at %s: %v", server, h.time().Format(time.DateOnly), err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates
	}
	first := chain("hub.example")
	if len(first) != 2 || spkiHash(first[1]) != h.CAPin() {
		t.Fatal("the pinned authority does not come with the server's certificate")
	}
	for _, host := range testHosts {
		if got := chain(host)[0]; !bytes.Equal(got.Raw, first[0].Raw) {
			t.Errorf("%s: another certificate at once", host)
		}
	}
	for range 30 { // a hub that runs for ten months
		h.advance(10 * 24 * time.Hour)
		if left := chain("localhost")[0].NotAfter.Sub(h.time()); left < serverLife/3-time.Hour {
			t.Errorf("%s left", left)
		}
	}
	h.advance(-100 * 24 * time.Hour) // the clock is set right
	if c := chain("localhost")[0]; c.NotBefore.Before(h.CA().NotBefore) {
		t.Error("older than its authority")
	}
	if err := h.SetHosts(t.Context(), []string{"new.example"}); err != nil {
		t.Fatal(err)
	}
	chain("new.example")
	h.restart()
	if !slices.Equal(h.Hosts(), []string{"new.example"}) {
		t.Errorf("hosts %v", h.Hosts())
	}
}

// visit sends one EST request.
func visit(t *testing.T, c *tls.Config, method, url, user, password, body string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	tr := &http.Transport{TLSClientConfig: c}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(r)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func TestESTAnswersWithoutTellingMuch(t *testing.T) {
	h := build(t)
	d, revoked := h.device(), h.enrolled()
	est := "https://" + listen(t, h.DeviceTLS(tls.VersionTLS13), h.EST()) + "/.well-known/est/"
	anonymous := d.clientTLS()
	csr := base64.StdEncoding.EncodeToString(csrOf(t, d.key, ""))
	secret := d.code.SecretText()
	for _, v := range []struct {
		method, path, user, password, body string
		want                               int
	}{
		{"GET", "cacerts", "", "", "", 200},
		{"GET", "csrattrs", "", "", "", 204},
		{"POST", "cacerts", "", "", "", 405},
		{"GET", "simpleenroll", d.id.String(), secret, "", 405},
		{"POST", "serverkeygen", d.id.String(), secret, csr, 404},
		{"POST", "simpleenroll", "", "", csr, 401},
		{"POST", "simpleenroll", d.id.String(), "wrong", csr, 401},
		{"POST", "simpleenroll", "robert", secret, csr, 401},
		{"POST", "simpleenroll", d.id.String(), secret, "", 400},
		{"POST", "simpleenroll", d.id.String(), secret, "!!", 400},
		{"POST", "simpleenroll", d.id.String(), secret, strings.Repeat("A", maxRequest+1), 413},
		{"POST", "simplereenroll", "", "", csr, 403},
		{"POST", "simplereenroll", d.id.String(), secret, csr, 403},
		{"POST", "simpleenroll", d.id.String(), secret, csr, 200},
	} {
		status, body, header := visit(t, anonymous, v.method, est+v.path, v.user, v.password, v.body)
		if status != v.want {
			t.Errorf("%s %s %.30q: %d %s, want %d", v.method, v.path, v.body, status, body, v.want)
		}
		if status == 401 && !strings.HasPrefix(header.Get("WWW-Authenticate"), "Basic") {
			t.Errorf("%s: 401 without a challenge", v.path)
		}
		if strings.Contains(body, secret) || status >= 400 && strings.Contains(body, d.id.String()) {
			t.Errorf("%s %s: %s", v.method, v.path, body)
		}
	}

	if err := h.Revoke(t.Context(), revoked.id, "stolen"); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := visit(t, revoked.clientTLS(), "GET", est+"cacerts", "", "", ""); status != 0 {
		t.Errorf("a revoked device got past the handshake: %d", status)
	}
	for range 12 {
		visit(t, anonymous, "POST", est+"simpleenroll", d.id.String(), "wrong", csr)
	}
	if status, _, header := visit(t, anonymous, "POST", est+"simpleenroll", d.id.String(), "wrong", csr); status != 429 || header.Get("Retry-After") == "" {
		t.Errorf("after many failures: %d", status)
	}
}

func TestESTRenewsOverTLS(t *testing.T) {
	h := build(t)
	for name, c := range map[string]*tls.Config{"devices": h.DeviceTLS(tls.VersionTLS13), "people": h.PeopleTLS()} {
		est := "https://" + listen(t, c, h.EST()) + "/.well-known/est/"
		d, revoked := h.enrolled(), h.enrolled()
		if err := h.Revoke(t.Context(), revoked.id, "stolen"); err != nil {
			t.Fatal(err)
		}
		h.advance(deviceLife + 24*time.Hour)
		csr := base64.StdEncoding.EncodeToString(csrOf(t, newKey(t), ""))
		if status, body, _ := visit(t, d.clientTLS(), "POST", est+"simplereenroll", "", "", csr); status != 200 {
			t.Errorf("%s: an expired device: %d %s", name, status, body)
		}
		if status, body, _ := visit(t, revoked.clientTLS(), "POST", est+"simplereenroll", "", "", csr); status != 0 && status != 403 {
			t.Errorf("%s: a revoked device: %d %s", name, status, body)
		}
	}
}

func TestESTLimitsRequestsByAddress(t *testing.T) {
	h := build(t)
	est := h.EST()
	get := func(from string) int {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "/.well-known/est/csrattrs", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = from
		w := &answer{header: http.Header{}}
		est.ServeHTTP(w, r)
		return w.status
	}
	for n := range 200 {
		if s := get(fmt.Sprintf("[2001:db8::%x]:1000", n)); s != 204 {
			t.Fatalf("request %d: %d", n, s)
		}
	}
	if s := get("[2001:db8::ffff]:1"); s != 429 {
		t.Errorf("one network's 201st request: %d", s)
	}
	if s := get("[2001:db8:0:1::1]:1"); s != 204 {
		t.Errorf("another network: %d", s)
	}
	h.advance(time.Second)
	if s := get("[2001:db8::1]:1"); s != 204 {
		t.Errorf("a second later: %d", s)
	}
}

type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(p []byte) (int, error) { return len(p), nil }
func (a *answer) WriteHeader(s int)           { a.status = s }

func FuzzRequest(f *testing.F) {
	csr := csrOf(f, newKey(f), "name")
	f.Add(csr)
	f.Add([]byte(base64.StdEncoding.EncodeToString(csr)))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"))
	f.Add([]byte("0"))
	f.Fuzz(func(t *testing.T, body []byte) {
		der, err := decodeRequest(body)
		if err == nil {
			_, err = readRequest(der)
		}
		if err != nil && holdfast.KindOf(err) != holdfast.Invalid {
			t.Fatal(err)
		}
	})
}
