package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/witness"
)

// seen is a witness's memory.
type seen struct {
	mu sync.Mutex
	of map[string][]byte
}

func (s *seen) Last(origin string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[origin], nil
}

func (s *seen) Remember(origin string, signed []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[origin] = signed
	return nil
}

// aWitness runs one for a log.
func aWitness(t *testing.T, log string) (*witness.Client, string) {
	t.Helper()
	secret, verifier, err := checkpoint.NewCosigner("witness.example/w")
	if err != nil {
		t.Fatal(err)
	}
	key, err := checkpoint.ParseCosigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	s, err := witness.NewServer(key, []string{log}, &seen{of: map[string][]byte{}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	c, err := witness.ParseClient(srv.URL + " " + verifier)
	if err != nil {
		t.Fatal(err)
	}
	return c, verifier
}

// A running hub publishes on its clock, has that cosigned, and serves it to anybody,
// as far as it is published and no further. A client that is not ours agrees.
func TestLedgerIsPublishedAndWitnessed(t *testing.T) {
	h := newHouse(t)
	for i := range 300 {
		h.person(fmt.Sprintf("person %d", i))
	}
	w, verifier := aWitness(t, h.ledger.VerifierKey())
	h.halt()
	s, err := Open(t.Context(), Config{Data: h.dir, ListenAPI: "127.0.0.1:0", ListenDevice: "127.0.0.1:0", ListenMQTT: "127.0.0.1:0",
		Checkpoints: time.Second, Witnesses: []*witness.Client{w}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ready, ended := make(chan Addresses, 1), make(chan error, 1)
	go func() { ended <- s.Run(ctx, func(at Addresses) { ready <- at }) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	at := strings.Replace((<-ready).API, "127.0.0.1", "localhost", 1)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(s.identity.CAPEM())
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}}
	get := func(path string, status int) []byte {
		t.Helper()
		r, err := c.Get(at + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != status {
			t.Fatalf("GET %s: %d, %v", path, r.StatusCode, err)
		}
		if cache := r.Header.Get("Cache-Control"); status == 200 && strings.Contains(path, "/tile/") != strings.Contains(cache, "immutable") {
			t.Errorf("GET %s is to be cached as %q", path, cache)
		}
		return b
	}
	key, err := checkpoint.ParseWitness(verifier)
	if err != nil {
		t.Fatal(err)
	}
	// The first tick has the people, a later one an event of its time.
	kept := cosigned(t, func() []byte { return get("/ledger/checkpoint", 200) }, s.ledger.VerifierKey(), key, 300)
	if _, err := s.custody.AddParty(ctx, holdfast.NewID[holdfast.CredentialID](), "late", custody.Person); err != nil {
		t.Fatal(err)
	}
	head := cosigned(t, func() []byte { return get("/ledger/checkpoint", 200) }, s.ledger.VerifierKey(), key, kept.Size+1)

	if tile := get("/ledger/tile/0/000", 200); len(tile) != 256*32 {
		t.Errorf("a full tile has %d bytes", len(tile))
	}
	if b := get("/ledger/tile/entries/000", 200); len(b) != 256*34 {
		t.Errorf("a full bundle has %d bytes", len(b))
	}
	get("/ledger/tile/1/000.p/1", 200)
	for _, none := range []string{"0/999", "0/000.p/0", "0/000.p/256", "0/0", "0/x000/000", "64/000", "1/000.p/200", "entries/777", "data/000", "2/000", "0/000.p/-1", "0"} {
		get("/ledger/tile/"+none, 404)
	}
	if head.Size%256 < 240 {
		get(fmt.Sprintf("/ledger/tile/0/%03d.p/%d", head.Size/256, head.Size%256), 200)
	}
	get("/ledger/renewals", 200)
	outsider(t, at, s.ledger.VerifierKey(), verifier, s.identity.CAPEM(), kept.Note)
}

// cosigned waits for a checkpoint of at least so many leaves with a cosignature.
func cosigned(t *testing.T, get func() []byte, log string, w *checkpoint.Witness, least uint64) checkpoint.Checkpoint {
	t.Helper()
	for late := time.After(time.Minute); ; {
		signed := get()
		c, err := checkpoint.Parse(signed, log)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := checkpoint.Cosigned(signed, w)[w.Name()]; ok && c.Size >= least {
			return c
		}
		select {
		case <-late:
			t.Fatalf("the last checkpoint is %q", signed)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// outsider has Tessera's client check the log.
func outsider(t *testing.T, at, key, witness string, ca, old []byte) {
	t.Helper()
	program := os.Getenv("HOLDFAST_TESSERA")
	if program == "" {
		t.Log("SKIPPED: HOLDFAST_TESSERA does not name the program of internal/ledger/outside (./test builds it): no foreign verifier was asked")
		return
	}
	dir := t.TempDir()
	for name, b := range map[string][]byte{"ca.pem": ca, "old": old} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(key, old string) ([]byte, error) {
		return exec.CommandContext(t.Context(), program, "--url", at+"/ledger/", "--key", key, "--witness", witness, "--ca", filepath.Join(dir, "ca.pem"), "--old", old).CombinedOutput()
	}
	out, err := run(key, filepath.Join(dir, "old"))
	if err != nil || !bytes.Contains(out, []byte("cosigned it")) || !bytes.Contains(out, []byte("are those of the checkpoint")) || !bytes.Contains(out, []byte("it begins with")) {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
	if out, err := run(strings.Replace(key, "holdfast/", "holdfast/x", 1), filepath.Join(dir, "old")); err == nil {
		t.Errorf("under another key: %s", out)
	}
}

// A catalog that was put back is not served; the ledger gets a new name, and the hub
// goes on.
func TestServeRefusesACatalogThatWasPutBack(t *testing.T) {
	h := newHouse(t)
	h.person("first")
	if _, err := h.ledger.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.halt()
	catalog := filepath.Join(h.dir, catalogDir)
	copied := filepath.Join(t.TempDir(), "catalog")
	if err := os.CopyFS(copied, os.DirFS(catalog)); err != nil {
		t.Fatal(err)
	}
	open := func() error {
		s, err := Open(t.Context(), Config{Data: h.dir, ListenAPI: "127.0.0.1:0", ListenDevice: "127.0.0.1:0", ListenMQTT: "127.0.0.1:0"})
		if err == nil {
			h.Server = s
		}
		return err
	}
	if _, err := RenewLedger(t.Context(), Config{Data: h.dir}, nil, false); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("a ledger in order was renewed: %v", err)
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.custody.Operating(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := h.ledger.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	before := h.ledger.VerifierKey()
	h.halt()
	if err := errors.Join(os.RemoveAll(catalog), os.CopyFS(catalog, os.DirFS(copied))); err != nil {
		t.Fatal(err)
	}
	if err := open(); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "holdfast ledger renew --data "+h.dir) {
		t.Fatalf("served: %v", err)
	}
	r, err := RenewLedger(t.Context(), Config{Data: h.dir}, nil, false)
	if err != nil || !strings.HasSuffix(r.Origin, "/2") || r.Verifier == before {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	h.person("after")
	if _, err := h.ledger.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, err := h.ledger.Verify(t.Context()); err != nil || len(r.Faults) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := os.Remove(filepath.Join(h.dir, ledgerFile)); err != nil {
		t.Fatal(err)
	}
	h.halt()
	if err := open(); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("served without the head outside: %v", err)
	}
}
