package client

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// hub is a server that answers as a test wants, and a client that trusts it.
func hub(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	c, err := New(Options{Hub: s.URL, CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestProblemsBecomeErrors(t *testing.T) {
	for _, c := range []struct {
		status           int
		kind, body, want string
		as               holdfast.Kind
	}{
		{400, "application/problem+json", `{"detail":"bad name"}`, "bad name", holdfast.Invalid},
		{422, "application/problem+json", `{"detail":"validation failed","errors":[{"location":"body.name","message":"is required"},{"message":"x"}]}`,
			"validation failed: name is required; x", holdfast.Invalid},
		{401, "application/problem+json", `{}`, "the hub does not know who is asking: give an identity or a token of this hub", holdfast.Denied},
		{403, "text/plain; charset=utf-8", "present it\n", "present it", holdfast.Denied},
		{404, "application/json", `{"detail":"no such party"}`, "no such party", holdfast.NotFound},
		{409, "application/problem+json; charset=utf-8", `{"detail":"exists"}`, "exists", holdfast.Conflict},
		{413, "text/html", "<html>", "the hub answered 413 Request Entity Too Large", holdfast.TooLarge},
		{429, "application/problem+json", `not JSON`, "the hub answered 429 Too Many Requests", holdfast.Unavailable},
		{503, "", "", "the hub answered 503 Service Unavailable", holdfast.Unavailable},
		{500, "application/problem+json", `{"status":500}`, "the hub answered 500 Internal Server Error", holdfast.Internal},
		{302, "", "", "the hub's address answers with a redirect, which is not followed", holdfast.Internal},
		{400, "application/problem+json", `{"detail":"a\u001b[31mred\u0000 \n line ` + strings.Repeat("x", 600) + `"}`, "a[31mred line " + strings.Repeat("x", 486) + "...", holdfast.Invalid},
	} {
		asked := 0
		client := hub(t, func(w http.ResponseWriter, r *http.Request) {
			asked++
			w.Header().Set("Content-Type", c.kind)
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		})
		err := client.Do(t.Context(), "POST", "/v1/x", map[string]int{"a": 1}, nil)
		if err == nil || err.Error() != c.want || holdfast.KindOf(err) != c.as {
			t.Errorf("%d %s: %v (%s), want %s (%s)", c.status, c.body, err, holdfast.KindOf(err), c.want, c.as)
		}
		if asked != 1 {
			t.Errorf("%d: a POST was sent %d times", c.status, asked)
		}
	}
}

// A read is asked again when the hub says when, twice at most, and not when that
// is too long to wait.
func TestReadsAreRepeated(t *testing.T) {
	for _, c := range []struct {
		status, fails int
		after         string
		asked         int
		works         bool
	}{
		{503, 2, "0", 3, true},
		{429, 1, "0", 2, true},
		{503, 3, "0", 3, false},
		{503, 1, "3600", 1, false},
		{503, 1, time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), 2, true},
		{500, 1, "0", 1, false},
	} {
		asked := 0
		client := hub(t, func(w http.ResponseWriter, r *http.Request) {
			if asked++; asked <= c.fails {
				w.Header().Set("Retry-After", c.after)
				w.WriteHeader(c.status)
				return
			}
			io.WriteString(w, `{"a":7}`)
		})
		var out struct{ A int }
		err := client.Do(t.Context(), "GET", "/v1/x?b=c", nil, &out)
		if (err == nil) != c.works || asked != c.asked || c.works && out.A != 7 {
			t.Errorf("%+v: asked %d times, %v, %v", c, asked, out, err)
		}
	}
	// Whoever gives up waits no longer.
	ctx, cancel := context.WithCancel(t.Context())
	client := hub(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "9")
		w.WriteHeader(503)
		cancel()
	})
	start := time.Now()
	if err := client.Do(ctx, "GET", "/", nil, nil); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
}

func TestStream(t *testing.T) {
	var cut atomic.Bool
	client := hub(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("X-Query", r.URL.RawQuery)
		for i := range 1000 {
			fmt.Fprintf(w, "{\"i\":%d}\n", i)
		}
		if cut.Load() {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	body, header, err := client.Stream(t.Context(), "GET", "/v1/readings?a=1", url.Values{"b": {"2 3"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	all, err := io.ReadAll(body)
	if err != nil || strings.Count(string(all), "\n") != 1000 || header.Get("X-Query") != "a=1&b=2+3" {
		t.Errorf("%d bytes, query %s, %v", len(all), header.Get("X-Query"), err)
	}
	cut.Store(true)
	body, _, err = client.Stream(t.Context(), "GET", "/v1/readings", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadAll(body); err == nil {
		t.Error("a body that broke off ended as if it were whole")
	}
	if err := client.Do(t.Context(), "GET", "https://example.com/", nil, nil); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("another hub's path: %v", err)
	}
}

func TestWhoCantBeReached(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	old.Config.ErrorLog = log.New(io.Discard, "", 0)
	old.StartTLS()
	t.Cleanup(old.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: old.Certificate().Raw})
	for address, want := range map[string]string{
		strings.Replace(closed.URL, "http:", "https:", 1): "nothing listens there",
		strings.Replace(plain.URL, "http:", "https:", 1):  "HTTP",
		"https://nobody.invalid:1":                        "",
		old.URL:                                           "",
	} {
		c, err := New(Options{Hub: address, CA: ca})
		if err != nil {
			t.Fatal(err)
		}
		err = c.Do(t.Context(), "GET", "/", nil, nil)
		if err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
		c.Close()
	}
}

func TestOptions(t *testing.T) {
	for _, hub := range []string{"", "http://x", "x:1", "https://", "https://u:p@x", "https://x/y", "https://x?y", "https://x#y"} {
		if _, err := New(Options{Hub: hub, SystemRoots: true}); holdfast.KindOf(err) != holdfast.Invalid || err == nil {
			t.Errorf("%q was taken for a hub's address", hub)
		}
	}
	for _, o := range []Options{{}, {Token: "x"}, {Token: "hft1.a.b.c"}, {Token: "t", Identity: "i"}, {CA: []byte("x")},
		{CA: []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")}} {
		o.Hub = "https://hub.example:8443"
		if _, err := New(o); holdfast.KindOf(err) != holdfast.Invalid || err == nil {
			t.Errorf("%+v was taken: %v", o, err)
		}
	}
	if _, err := New(Options{Hub: "https://x", Identity: t.TempDir()}); holdfast.KindOf(err) != holdfast.NotFound || err == nil {
		t.Errorf("an empty folder was taken: %v", err)
	}
}
