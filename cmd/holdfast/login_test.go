package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/issuer"
	"github.com/holdfast-iot/holdfast/internal/issuer/issuertest"
	"github.com/holdfast-iot/holdfast/internal/server"
)

// people is a hub with an issuer for owners and staff, and its commands.
type people struct {
	t        *testing.T
	provider *issuertest.Provider
	data     string
	dir      string
}

func startPeople(t *testing.T) *people {
	t.Helper()
	p := &people{t: t, provider: issuertest.Start(t), dir: t.TempDir()}
	p.data = filepath.Join(p.dir, "data")
	if _, err := server.Init(t.Context(), p.data, server.InitOptions{Organisation: "Acme", Hosts: []string{"localhost", "127.0.0.1"}, RootKey: filepath.Join(p.dir, "root.key")}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.dir, "issuers.json")
	text := fmt.Sprintf(`{"issuers": [
		{"url": %[1]q, "ca": %[2]q, "audience": "app", "use": "owners"},
		{"url": %[1]q, "ca": %[2]q, "audience": "hub-staff", "client": "cli", "use": "staff", "administrators": {"claim": "sub", "values": ["zoe"]}}]}`, p.provider.URL, p.provider.CA)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	issuers, err := readIssuers(file)
	if err != nil {
		t.Fatal(err)
	}
	p.serve(issuers)
	return p
}

func (p *people) serve(issuers []issuer.Config) {
	p.t.Helper()
	s, err := server.Open(p.t.Context(), server.Config{Data: p.data, ListenAPI: "127.0.0.1:0", ListenDevice: "127.0.0.1:0", ListenMQTT: "127.0.0.1:0",
		Issuers: issuers, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		p.t.Fatal(err)
	}
	running, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.Run(running, func(server.Addresses) { close(ready) }) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Errorf("serve: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		p.t.Fatal(err)
	}
}

func (p *people) file(name string) string { return filepath.Join(p.dir, name) }

// do runs a command and returns what it printed.
func (p *people) do(want int, args ...string) string {
	p.t.Helper()
	var out, faults bytes.Buffer
	a := &app{ctx: p.t.Context(), stdout: &out, stderr: &faults, stdin: strings.NewReader("")}
	if code := run(a, args); code != want {
		p.t.Fatalf("holdfast %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, &out, &faults)
	}
	return out.String() + faults.String()
}

func (p *people) as(token string, args ...string) []string {
	return append(args, "--token", p.file(token), "--data", p.data, "--ca", filepath.Join(p.data, "admin", "ca.pem"))
}

var address = regexp.MustCompile(`https://\S+/authorize\?\S+`)

// browser opens the first address that a command prints.
type browser struct {
	p    *people
	once sync.Once
	text bytes.Buffer
	also func(*url.URL) // before it goes on
	done chan struct{}
}

func (b *browser) Write(text []byte) (int, error) {
	b.text.Write(text)
	if at := address.FindString(b.text.String()); at != "" {
		b.once.Do(func() { go b.open(at) })
	}
	return len(text), nil
}

func (b *browser) open(at string) {
	defer close(b.done)
	pem, err := os.ReadFile(b.p.provider.CA)
	if err != nil {
		b.p.t.Error(err)
		return
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer c.CloseIdleConnections()
	if b.also != nil {
		u, err := url.Parse(at)
		if err != nil {
			b.p.t.Error(err)
			return
		}
		b.also(u)
	}
	r, err := c.Get(at)
	if err != nil {
		b.p.t.Error(err)
		return
	}
	defer r.Body.Close()
	if page, err := io.ReadAll(r.Body); err != nil || !strings.Contains(string(page), "Logged in") {
		b.p.t.Errorf("the browser shows %q, %v", page, err)
	}
}

// logIn logs a person in with the browser.
func (p *people) logIn(client string, c issuertest.Claims, also func(*url.URL), args ...string) (out string, code int) {
	p.t.Helper()
	p.provider.Person(client, c)
	b := &browser{p: p, done: make(chan struct{}), also: also}
	var stdout bytes.Buffer
	a := &app{ctx: p.t.Context(), stdout: &stdout, stderr: b, stdin: strings.NewReader("")}
	code = run(a, append([]string{"login", "--data", p.data, "--issuer", p.provider.URL, "--issuer-ca", p.provider.CA, "--wait", "20s"}, args...))
	<-b.done
	return stdout.String() + b.text.String(), code
}

// Where one issuer serves owners and staff, the person says which he is.
func TestLoginOfOwnersAndStaff(t *testing.T) {
	p := startPeople(t)
	p.do(exitUsage, "login", "--data", p.data, "--issuer-ca", p.provider.CA, "--out", p.file("x"))
	p.do(exitFailed, "login", "--data", p.data, "--issuer", "https://elsewhere.example", "--out", p.file("x"))

	p.do(exitDone, "party", "add", "Ada", "--kind", "person", "--data", p.data)
	var invited api.Invited
	if err := json.Unmarshal([]byte(p.do(exitDone, "party", "invite", "Ada", "--data", p.data, "-o", "json")), &invited); err != nil {
		t.Fatal(err)
	}
	// Somebody who found the port and guesses at the answer changes nothing.
	meddle := func(u *url.URL) {
		back := u.Query().Get("redirect_uri")
		for _, q := range []string{"?code=x&state=wrong", "?code=x", "?error=denied", "/../?code=x"} {
			r, err := http.Get(back + q)
			if err != nil {
				t.Error(err)
				continue
			}
			r.Body.Close()
			if r.StatusCode != http.StatusNotFound {
				t.Errorf("%s is answered %d", q, r.StatusCode)
			}
		}
	}
	out, code := p.logIn("app", issuertest.Claims{"sub": "ada"}, meddle, "--use", "owners", "--invitation", invited.Link, "--out", p.file("ada.login"))
	if code != exitDone || !strings.Contains(out, "The login is linked") {
		t.Fatalf("exit %d: %s", code, out)
	}
	if info, err := os.Stat(p.file("ada.login")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if token, err := os.ReadFile(p.file("ada.login")); err != nil || strings.Contains(out, strings.TrimSpace(string(token))) {
		t.Errorf("the token is printed, or not there: %v", err)
	}
	if list := p.do(exitDone, p.as("ada.login", "session", "list")...); !strings.Contains(list, "link") || !strings.Contains(list, p.provider.URL) {
		t.Errorf("%s", list)
	}

	// Staff's token is the access token, for the hub's audience. The file is replaced.
	for range 2 {
		if out, code := p.logIn("cli", issuertest.Claims{"sub": "zoe"}, nil, "--use", "staff", "--out", p.file("zoe.login")); code != exitDone {
			t.Fatalf("exit %d: %s", code, out)
		}
	}
	if out := p.do(exitDone, p.as("zoe.login", "party", "list")...); !strings.Contains(out, "Ada") {
		t.Errorf("staff see %s", out)
	}
	// What else a file holds is not written over.
	if err := os.WriteFile(p.file("diary"), []byte("dear diary"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.do(exitUsage, "login", "--data", p.data, "--use", "staff", "--issuer-ca", p.provider.CA, "--out", p.file("diary"))

	// An answer that belongs to another login is refused.
	out, code = p.logIn("app", issuertest.Claims{"sub": "ada", "nonce": "another"}, nil, "--use", "owners", "--out", p.file("other.login"))
	if _, err := os.Stat(p.file("other.login")); code != exitFailed || !strings.Contains(out, "not to this login") || err == nil {
		t.Errorf("exit %d: %s", code, out)
	}
	leftovers, err := filepath.Glob(p.file(".login-*"))
	if err != nil || len(leftovers) > 0 {
		t.Errorf("left: %v, %v", leftovers, err)
	}
}

// Whoever takes an account over by a reset takes nothing out for a week, unless he has
// the owner's second factor; staff read what the owner says yes to.
func TestNewCredentialsCantUndo(t *testing.T) {
	p := startPeople(t)
	admin := []string{"--data", p.data}
	p.do(exitDone, append([]string{"party", "add", "Ada", "--kind", "person"}, admin...)...)
	p.do(exitDone, append([]string{"device", "add", "watch", "--owner", "Ada"}, admin...)...)
	invite := func(out string) {
		t.Helper()
		var v api.Invited
		if err := json.Unmarshal([]byte(p.do(exitDone, append([]string{"party", "invite", "Ada", "-o", "json"}, admin...)...)), &v); err != nil {
			t.Fatal(err)
		}
		p.do(exitDone, "party", "redeem", v.Link, "--data", p.data, "--out", p.file(out))
	}
	invite("ada.token")
	var f api.NewFactor
	if err := json.Unmarshal([]byte(p.do(exitDone, p.as("ada.token", "factor", "add", "-o", "json")...)), &f); err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	code := func(d time.Duration) string {
		c, err := totp.GenerateCode(f.Secret, at.Add(d))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	p.do(exitDone, p.as("ada.token", "factor", "confirm", code(0))...)

	invite("reset.token")
	refusal := "the credential is not settled"
	erase := func(more ...string) []string {
		return p.as("reset.token", append([]string{"erase", "watch", "--yes", "--certificate", p.file("cert")}, more...)...)
	}
	if out := p.do(exitFailed, erase()...); !strings.Contains(out, refusal) {
		t.Errorf("%s", out)
	}
	if out := p.do(exitFailed, p.as("reset.token", "export", "Ada", p.file("export"))...); !strings.Contains(out, refusal) {
		t.Errorf("%s", out)
	}
	if out := p.do(exitFailed, erase("--code", code(0))...); !strings.Contains(out, "used already") {
		t.Errorf("a replayed code: %s", out)
	}

	// Staff ask; the reset can't say yes; Ada can, and takes it back.
	var asked api.Permission
	if err := json.Unmarshal([]byte(p.do(exitDone, append([]string{"permission", "ask", "Ada", "--reason", "it stands still", "--device", "watch", "-o", "json"}, admin...)...)), &asked); err != nil {
		t.Fatal(err)
	}
	p.do(exitFailed, append([]string{"permission", "approve", asked.ID}, admin...)...)
	if out := p.do(exitFailed, p.as("reset.token", "permission", "approve", asked.ID)...); !strings.Contains(out, refusal) {
		t.Errorf("%s", out)
	}
	if out := p.do(exitDone, p.as("ada.token", "permission", "list")...); !strings.Contains(out, "it stands still") {
		t.Errorf("%s", out)
	}
	p.do(exitDone, p.as("ada.token", "permission", "approve", asked.ID)...)
	p.do(exitDone, p.as("reset.token", "permission", "end", asked.ID)...)
	if out := p.do(exitDone, append([]string{"permission", "list"}, admin...)...); !strings.Contains(out, "ended") {
		t.Errorf("%s", out)
	}
	if out := p.do(exitDone, p.as("ada.token", "ledger", "show")...); !strings.Contains(out, "permission asked") || !strings.Contains(out, "permission ended") {
		t.Errorf("%s", out)
	}

	p.do(exitDone, erase("--code", code(30*time.Second))...)
	p.do(exitDone, p.as("ada.token", "session", "end", "--others")...)
	p.do(exitFailed, p.as("reset.token", "device", "list")...)
}
