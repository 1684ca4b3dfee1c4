package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/issuer"
)

type loginCmd struct {
	Hub        string        `help:"The hub's address, https://HOST:8443." placeholder:"URL"`
	Data       string        `help:"The running hub of this data folder." placeholder:"DIR" type:"path"`
	CA         string        `name:"ca" help:"Trust the authorities in this PEM file for the hub, or the system's." placeholder:"FILE|system"`
	Issuer     string        `help:"Where to log in, if the hub believes several." placeholder:"URL" env:"-"`
	Use        string        `help:"owners or staff, if the hub believes an issuer for both." enum:",owners,staff" default:"" placeholder:"USE" env:"-"`
	IssuerCA   string        `name:"issuer-ca" help:"Trust the authorities in this PEM file for the issuer." placeholder:"FILE" type:"path" env:"-"`
	Invitation string        `help:"Link the login to the party of this invitation; - reads it from standard input." placeholder:"CODE" env:"-"`
	Out        string        `required:"" help:"Write the token to this file, which only you can read. An older token in it is replaced." placeholder:"FILE" type:"path" env:"-"`
	Wait       time.Duration `help:"How long to wait for the browser." default:"5m" env:"-"`
}

func (*loginCmd) Help() string {
	return `Prints an address to open in a browser of this machine, waits until you have logged in there, and writes the token that the issuer gives into a file of mode 0600, for --token.
Nothing else is kept: no password, no refresh token. The token ends when the issuer says so, a day later at most; then log in again.

Example:
  holdfast login --hub https://HOST:8443 --ca hub-ca.pem --out staff.token
  holdfast party list --token staff.token --hub https://HOST:8443 --ca hub-ca.pem`
}

func (c *loginCmd) Run(a *app) error {
	hub, err := c.connect(a, "")
	if err != nil {
		return err
	}
	defer hub.Close()
	known, err := all[api.Issuer](a, hub, "/v1/issuers")
	if err != nil {
		return err
	}
	at, err := c.choose(known)
	if err != nil {
		return err
	}
	if err := replaceable(c.Out); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(a.ctx, c.Wait)
	defer cancel()
	token, until, err := c.logIn(ctx, a, at)
	if err != nil {
		return err
	}
	if c.Invitation != "" {
		if err := c.link(a, token); err != nil {
			return err
		}
	}
	if err := writeToken(c.Out, token); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Logged in at %s. The token is in %s, until %s.\n", cell(at.URL), c.Out, when(until))
	return nil
}

// connect makes a client of the hub, with a token or as nobody.
func (c *loginCmd) connect(a *app, token string) (*client.Client, error) {
	o := client.Options{Hub: c.Hub, Token: token}
	if err := trustFlag(a.ctx, &o, c.CA); err != nil {
		return nil, err
	}
	if c.Data != "" {
		if o.Hub == "" {
			r, err := readRunning(c.Data)
			if err != nil {
				return nil, err
			}
			o.Hub, o.AnyName = reachable(r.API), true
		}
		if c.CA == "" {
			text, err := os.ReadFile(filepath.Join(c.Data, "admin", "ca.pem"))
			if err != nil {
				return nil, fileError("certificate", err)
			}
			o.CA = text
		}
	}
	if o.Hub == "" {
		return nil, usagef("say which hub: --hub https://HOST:8443")
	}
	return client.New(o)
}

func (c *loginCmd) choose(known []api.Issuer) (api.Issuer, error) {
	var fit []api.Issuer
	for _, i := range known {
		if (c.Issuer == "" || c.Issuer == i.URL) && (c.Use == "" || c.Use == i.Use) {
			fit = append(fit, i)
		}
	}
	switch {
	case len(known) == 0:
		return api.Issuer{}, holdfast.Errorf(holdfast.NotFound, "the hub believes no issuer: serve --issuers names them")
	case len(fit) == 0:
		return api.Issuer{}, holdfast.Errorf(holdfast.NotFound, "the hub does not believe this issuer")
	case len(fit) > 1:
		var names []string
		for _, i := range fit {
			names = append(names, cell(i.URL)+" ("+i.Use+")")
		}
		return api.Issuer{}, usagef("say where to log in with --issuer, and as what with --use: %s", strings.Join(names, ", "))
	}
	return fit[0], nil
}

// logIn is the authorization code flow for programs on a person's machine (RFC 8252):
// a browser of his, a redirect to this machine, and PKCE (RFC 7636), so that nobody
// who sees the code can use it.
func (c *loginCmd) logIn(ctx context.Context, a *app, at api.Issuer) (token string, until time.Time, err error) {
	web, err := c.web()
	if err != nil {
		return "", until, err
	}
	ctx = oidc.ClientContext(ctx, web)
	p, err := oidc.NewProvider(ctx, at.URL)
	if err != nil {
		return "", until, holdfast.Errorf(holdfast.Unavailable, "the issuer can't be reached or is another one: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", until, fmt.Errorf("listen for the browser: %w", err)
	}
	flow := oauth2.Config{ClientID: at.Client, Endpoint: p.Endpoint(), Scopes: at.Scopes, RedirectURL: "http://" + l.Addr().String() + "/callback"}
	state, nonce, verifier := rand.Text(), rand.Text(), oauth2.GenerateVerifier()
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier), oidc.Nonce(nonce)}
	if at.Audience != at.Client {
		options = append(options, oauth2.SetAuthURLParam("resource", at.Audience)) // RFC 8707
	}
	fmt.Fprintf(a.stderr, "Open this in a browser of this machine:\n\n  %s\n\n", flow.AuthCodeURL(state, options...))
	code, err := awaitCode(ctx, l, state)
	if err != nil {
		return "", until, err
	}
	got, err := flow.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		return "", until, holdfast.Errorf(holdfast.Denied, "the issuer gave no token for the login")
	}
	id, _ := got.Extra("id_token").(string)
	checked, err := p.VerifierContext(ctx, &oidc.Config{ClientID: at.Client}).Verify(ctx, id)
	if err != nil || subtle.ConstantTimeCompare([]byte(checked.Nonce), []byte(nonce)) != 1 {
		return "", until, holdfast.Errorf(holdfast.Denied, "the issuer's answer is not to this login")
	}
	if at.Audience == at.Client {
		return id, checked.Expiry, nil
	}
	if !issuer.Looks(got.AccessToken) {
		return "", until, holdfast.Errorf(holdfast.Invalid, "the issuer's access token is not a JWT: the hub can't check it")
	}
	return got.AccessToken, got.Expiry, nil
}

// web speaks to the issuer.
func (c *loginCmd) web() (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.IssuerCA != "" {
		text, err := os.ReadFile(c.IssuerCA)
		if err != nil {
			return nil, fileError("certificate", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(text) {
			return nil, usagef("--issuer-ca holds no certificate in PEM")
		}
	}
	return &http.Client{Transport: t, Timeout: 30 * time.Second}, nil
}

// awaitCode takes one answer of the browser: the one to this login.
func awaitCode(ctx context.Context, l net.Listener, state string) (string, error) {
	type answer struct {
		code string
		err  error
	}
	answers := make(chan answer, 1)
	give := func(r answer) {
		select {
		case answers <- r:
		default: // there is one
		}
	}
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 32 << 10, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.URL.Path != "/callback" || r.Method != http.MethodGet || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1 {
			http.NotFound(w, r) // another page's doing: the login goes on
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if q.Get("code") == "" {
			give(answer{err: holdfast.Errorf(holdfast.Denied, "the issuer refused the login")})
			fmt.Fprintln(w, "The login was refused. This page can be closed.")
			return
		}
		give(answer{code: q.Get("code")})
		fmt.Fprintln(w, "Logged in. This page can be closed.")
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	var got answer
	select {
	case got = <-answers:
	case <-ctx.Done():
		got.err = holdfast.Errorf(holdfast.Unavailable, "nobody logged in in time")
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if s.Shutdown(closing) != nil {
		s.Close()
	}
	<-ended
	return got.code, got.err
}

// link shows an invitation together with the login.
func (c *loginCmd) link(a *app, token string) error {
	hub, err := c.connect(a, token)
	if err != nil {
		return err
	}
	defer hub.Close()
	code := secretArg(a, c.Invitation)
	if _, after, ok := strings.Cut(code, "#"); ok {
		code = after
	}
	var n api.NewCredential
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/invitations/redeem", api.Redemption{Code: code}, &n); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "The login is linked: credential %s.\n", n.ID)
	return nil
}

// replaceable refuses to write over anything but an older login.
func replaceable(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fileError("token", err)
	}
	if !issuer.Looks(strings.TrimSpace(string(text))) {
		return usagef("%s is there already and is no login: name another file", path)
	}
	return nil
}

// writeToken writes the token whole or not at all, for its owner's eyes.
func writeToken(path, token string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".login-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write token: %w", err)
	}
	_, err = f.WriteString(token + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write token: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
