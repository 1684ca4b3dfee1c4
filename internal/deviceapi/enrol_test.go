package deviceapi

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// The client reads exactly the codes that the hub writes.
func FuzzCodesAreReadAlike(f *testing.F) {
	code := identity.Code{Host: "hub.example", Port: 8444, Device: holdfast.DeviceID{1}, Secret: [16]byte{2}, CA: [32]byte{3}}
	f.Add(code.Text())
	code.Host, code.Port = "2001:db8::1", 1
	f.Add(code.Text())
	code.Host = "192.0.2.7"
	f.Add(code.Text())
	f.Add(strings.ToUpper(code.Text()))
	f.Add("hf1:")
	f.Add("hf1:" + strings.Repeat("a", 70) + strings.TrimPrefix(code.Text(), "hf1:192.0.2.7"))
	f.Fuzz(func(t *testing.T, text string) {
		want, err := identity.ParseCode(text)
		got, gotErr := client.ParseCode(text)
		if err != nil {
			// The hub's names are in certificates and so stricter; a device may be given
			// any that can be dialled.
			return
		}
		if gotErr != nil {
			t.Fatalf("the client does not read a code: %v", gotErr)
		}
		if got.Address != want.Address() || got.Device != want.Device || got.Secret != want.SecretText() || got.CA != want.CA {
			t.Error("the client reads a code otherwise")
		}
	})
}

func TestEnrolWritesAnIdentity(t *testing.T) {
	h := build(t, Options{})
	d, code := h.code(custody.DeviceSpec{Label: "pump"})
	dir := filepath.Join(t.TempDir(), "a", "b")
	i := must(client.Enrol(t.Context(), must(client.ParseCode(code.Text()))(t), dir))(t)
	if i.Device != d.ID || i.Dir != dir || i.Hub.Device != h.url || i.Hub.MQTT != "" || i.NotAfter.Before(i.NotBefore) {
		t.Errorf("%+v", i)
	}
	for name, mode := range map[string]fs.FileMode{"key.pem": 0o600, "cert.pem": 0o644, "ca.pem": 0o644, "hub.json": 0o644} {
		info := must(os.Stat(filepath.Join(dir, name)))(t)
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	if entries := must(os.ReadDir(dir))(t); len(entries) != 4 {
		t.Errorf("%d files", len(entries))
	}
	if again := must(client.LoadIdentity(dir))(t); again != i {
		t.Errorf("loaded %+v, want %+v", again, i)
	}
	// A second run leaves it as it is, and asks nobody.
	before := must(os.ReadFile(filepath.Join(dir, "cert.pem")))(t)
	if _, err := client.Enrol(t.Context(), must(client.ParseCode(code.Text()))(t), dir); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("a second enrolment: %v", err)
	}
	if string(must(os.ReadFile(filepath.Join(dir, "cert.pem")))(t)) != string(before) {
		t.Error("the certificate was changed")
	}
	// The code belongs to that key now.
	other := filepath.Join(t.TempDir(), "other")
	if _, err := client.Enrol(t.Context(), must(client.ParseCode(code.Text()))(t), other); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("the code again, with another key: %v", err)
	}
	secret := strings.Split(code.Text(), "/")[2]
	if strings.Contains(h.log.String(), secret) {
		t.Error("the secret is in the log")
	}
}

// An answer that is lost costs nothing: the key is kept, and the code gives a
// certificate for it again.
func TestALostAnswer(t *testing.T) {
	h := build(t, Options{})
	_, code := h.code(custody.DeviceSpec{Label: "pump"})
	c := must(client.ParseCode(code.Text()))(t)
	dir := t.TempDir()
	var lose http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "simpleenroll") {
			h.api.ServeHTTP(w, r)
			return
		}
		h.api.ServeHTTP(discard{http.Header{}}, r) // it is done,
		panic(http.ErrAbortHandler)                // and nobody hears of it
	})
	h.around.Store(&lose)
	if _, err := client.Enrol(t.Context(), c, dir); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Fatalf("a lost answer: %v", err)
	}
	key := must(os.ReadFile(filepath.Join(dir, "key.pem")))(t)
	if _, err := client.LoadIdentity(dir); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("half an identity: %v", err)
	}
	h.around.Store(nil)
	must(client.Enrol(t.Context(), c, dir))(t)
	if string(must(os.ReadFile(filepath.Join(dir, "key.pem")))(t)) != string(key) {
		t.Error("another key was made")
	}
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// A hub that is not the code's learns nothing: not the secret, not even that
// somebody would have asked.
func TestEnrolTrustsThePinAlone(t *testing.T) {
	real, false := build(t, Options{}), build(t, Options{})
	_, code := real.code(custody.DeviceSpec{Label: "pump"})
	asked := 0
	var listen http.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ })
	false.around.Store(&listen)
	c := must(client.ParseCode(code.Text()))(t)
	c.Address = false.address
	dir := filepath.Join(t.TempDir(), "identity")
	if _, err := client.Enrol(t.Context(), c, dir); holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), "authority") {
		t.Errorf("%v", err)
	}
	if asked > 0 {
		t.Errorf("the false hub was asked %d times", asked)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("something was written")
	}
	// The right hub under a name that its certificate lacks.
	if err := real.identity.SetHosts(t.Context(), []string{"hub.example"}); err != nil {
		t.Fatal(err)
	}
	c.Address = real.address
	if _, err := client.Enrol(t.Context(), c, dir); holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), "hub.example") {
		t.Errorf("a name that the certificate lacks: %v", err)
	}
}

// An address that the certificate lacks is taken only where that is asked for, and
// from the identity's authority alone.
func TestAnyName(t *testing.T) {
	h, other := build(t, Options{}), build(t, Options{})
	x := h.device()
	for _, hub := range []*house{h, other} {
		if err := hub.identity.SetHosts(t.Context(), []string{"hub.example"}); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(hub *house, o client.Options) error {
		o.Hub, o.Identity = hub.url, x.dir
		c := must(client.New(o))(t)
		defer c.Close()
		return c.Do(t.Context(), "GET", "/.well-known/est/csrattrs", nil, nil)
	}
	if err := ask(h, client.Options{}); holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), "hub.example") {
		t.Errorf("another name: %v", err)
	}
	if err := ask(h, client.Options{AnyName: true}); err != nil {
		t.Errorf("any name: %v", err)
	}
	if err := ask(other, client.Options{AnyName: true}); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("any name of another hub: %v", err)
	}
	if err := ask(h, client.Options{AnyName: true, Pin: h.identity.CAPin()}); err != nil {
		t.Errorf("any name by a pin: %v", err)
	}
	if err := ask(other, client.Options{AnyName: true, Pin: h.identity.CAPin()}); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("any name of another hub by a pin: %v", err)
	}
	// A device's certificate makes no server.
	pair := x.tls().Certificates[0]
	l := must(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}}))(t)
	s := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	if err := ask(&house{url: "https://" + l.Addr().String()}, client.Options{AnyName: true}); err == nil || holdfast.KindOf(err) == holdfast.NotFound {
		t.Errorf("a device as a server: %v", err)
	}
}

// A token's pin is trusted in the same way.
func TestATokensPin(t *testing.T) {
	h := build(t, Options{})
	token := "hft1." + holdfast.NewID[holdfast.CredentialID]().String() + "." + strings.Repeat("A", 43)
	pin := h.identity.CAPin()
	hex := func(b [32]byte) string {
		const digits = "0123456789abcdef"
		var s strings.Builder
		for _, c := range b {
			s.WriteByte(digits[c>>4])
			s.WriteByte(digits[c&15])
		}
		return s.String()
	}
	ask := func(o client.Options) error {
		o.Hub = h.url
		c, err := client.New(o)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Do(t.Context(), "GET", "/.well-known/est/csrattrs", nil, nil)
	}
	if err := ask(client.Options{Token: token + "." + hex(pin)}); err != nil {
		t.Errorf("the hub's pin: %v", err)
	}
	if err := ask(client.Options{Token: token + "." + hex(sha256.Sum256(nil))}); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("another's pin: %v", err)
	}
	if err := ask(client.Options{Token: token}); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("no pin and no CA: %v", err)
	}
	if err := ask(client.Options{Token: token, CA: h.identity.CAPEM()}); err != nil {
		t.Errorf("no pin, but a CA: %v", err)
	}
	if err := ask(client.Options{Token: token, SystemRoots: true}); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("the system's authorities: %v", err)
	}
}

// A renewal has a new key; the old certificate works until the new one is used;
// whatever interrupts it leaves an identity that works.
func TestRenew(t *testing.T) {
	h := build(t, Options{})
	x := h.device()
	read := func(name string) string { return string(must(os.ReadFile(filepath.Join(x.dir, name)))(t)) }
	works := func() {
		t.Helper()
		if _, err := x.client().Send(t.Context(), holdfast.Sample{Stream: "s", Value: holdfast.NumberValue(1), Literal: true}); err != nil {
			t.Error(err)
		}
	}
	works()
	oldKey, oldCert := read("key.pem"), read("cert.pem")
	oldTLS := x.tls()

	// Interrupted before the answer: the old one works, the new key is kept.
	var fail http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.api.ServeHTTP(discard{http.Header{}}, r)
		panic(http.ErrAbortHandler)
	})
	h.around.Store(&fail)
	if _, err := client.Renew(t.Context(), "", x.dir); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Fatalf("%v", err)
	}
	h.around.Store(nil)
	next := read("key.next.pem")
	works()

	i := must(client.Renew(t.Context(), "", x.dir))(t)
	if i.Device != x.id || read("key.pem") != next || read("key.pem") == oldKey || read("cert.pem") == oldCert {
		t.Error("not renewed with the key that was kept")
	}
	if entries := must(os.ReadDir(x.dir))(t); len(entries) != 4 {
		t.Errorf("%d files are left", len(entries))
	}

	// Interrupted between the two renames: key new, certificate old.
	newCert := read("cert.pem")
	for name, text := range map[string]string{"cert.pem": oldCert, "cert.next.pem": newCert} {
		if err := os.WriteFile(filepath.Join(x.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	works()
	if read("cert.pem") != newCert {
		t.Error("the renewal was not ended")
	}

	// The new one was used: the old one is superseded.
	old := &http.Client{Transport: &http.Transport{TLSClientConfig: oldTLS}}
	defer old.CloseIdleConnections()
	if r, err := old.Post(h.url+"/v1/data", "", strings.NewReader(oneReading)); err == nil {
		r.Body.Close()
		t.Errorf("the superseded certificate: %d", r.StatusCode)
	}
	if fresh := must(client.RenewIfDue(t.Context(), "", x.dir))(t); fresh.NotAfter != i.NotAfter {
		t.Error("renewed although it was not due")
	}
	if !i.Due(i.NotAfter) || i.Due(i.NotBefore) {
		t.Error("when a renewal is due")
	}
}

// Nothing but a hub's answer makes an identity.
func TestEnrolWithAPeculiarHub(t *testing.T) {
	h := build(t, Options{})
	for name, answer := range map[string]http.HandlerFunc{
		"says nothing":  func(w http.ResponseWriter, _ *http.Request) {},
		"says 202":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) },
		"is a web site": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) },
		"sends us elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://example.com/", http.StatusFound)
		},
		"gives another's certificate": func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path, r.Method = "/.well-known/est/cacerts", "GET"
			h.api.ServeHTTP(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, code := h.code(custody.DeviceSpec{Label: "pump " + name})
			var around http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "simpleenroll") {
					answer(w, r)
					return
				}
				h.api.ServeHTTP(w, r)
			})
			h.around.Store(&around)
			defer h.around.Store(nil)
			dir := t.TempDir()
			if _, err := client.Enrol(t.Context(), must(client.ParseCode(code.Text()))(t), dir); err == nil {
				t.Error("no error")
			}
			if _, err := os.Stat(filepath.Join(dir, "cert.pem")); err == nil {
				t.Error("a certificate was written")
			}
		})
	}
}

// An identity of another hub is told so.
func TestAnotherHubsIdentity(t *testing.T) {
	h, other := build(t, Options{}), build(t, Options{})
	x := h.device()
	send := func(o client.Options) error {
		c := must(client.New(o))(t)
		defer c.Close()
		_, err := c.Send(t.Context(), holdfast.Sample{Stream: "s", Value: holdfast.NumberValue(1)})
		return err
	}
	err := send(client.Options{Hub: other.url, Identity: x.dir})
	if holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), "another hub") {
		t.Errorf("%v", err)
	}
	err = send(client.Options{Hub: other.url, Identity: x.dir, CA: other.identity.CAPEM()})
	if holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := x.client().Send(ctx, holdfast.Sample{Stream: "s", Value: holdfast.NumberValue(1)}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
