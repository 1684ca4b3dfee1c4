package server

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/outbox"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// house is a hub in a temporary folder that a test can stop and start.
type house struct {
	t       testing.TB
	dir     string
	rootKey string
	logger  *slog.Logger // nil: nothing is logged
	ground  *Ground      // nil: this machine
	mail    *outbox.Mail // nil: it sends none
	asking  api.Limits
	*Server
}

func newHouse(t testing.TB) *house {
	t.Helper()
	return newHouseOn(t, nil)
}

func newHouseOn(t testing.TB, g *Ground) *house {
	t.Helper()
	h := &house{t: t, dir: filepath.Join(t.TempDir(), "data"), rootKey: filepath.Join(t.TempDir(), "root.key"), ground: g}
	if _, err := Init(t.Context(), h.dir, InitOptions{Organisation: "Acme Plants", Hosts: []string{"localhost"}, RootKey: h.rootKey}); err != nil {
		t.Fatal(err)
	}
	h.start()
	t.Cleanup(func() { h.halt() })
	return h
}

func (h *house) start() {
	h.t.Helper()
	s, err := Open(h.t.Context(), Config{Data: h.dir, ListenAPI: "127.0.0.1:0", ListenDevice: "127.0.0.1:0", ListenMQTT: "127.0.0.1:0", Logger: h.logger, Ground: h.ground, Mail: h.mail, People: h.asking})
	if err != nil {
		h.t.Fatalf("open: %v", err)
	}
	h.Server = s
}

// halt drops the hub as a crash does: nothing is told to finish.
func (h *house) halt() {
	if h.Server != nil {
		h.stores.close()
		h.Server = nil
	}
}

func (h *house) admin() access.Principal {
	h.t.Helper()
	op, err := h.custody.Operating(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return access.Principal{Settled: true, Credential: holdfast.NewID[holdfast.CredentialID](), Party: op, Role: access.Administrator,
		Scopes: access.ScopeRead | access.ScopeWrite, NotAfter: time.Now().Add(time.Hour)}
}

func (h *house) person(name string) access.Principal {
	h.t.Helper()
	p, err := h.custody.AddParty(h.t.Context(), h.admin().Credential, name, custody.Person)
	if err != nil {
		h.t.Fatal(err)
	}
	return access.Principal{Settled: true, Credential: holdfast.NewID[holdfast.CredentialID](), Party: p.ID, Role: access.Owner,
		Scopes: access.ScopeRead | access.ScopeWrite, NotAfter: time.Now().Add(time.Hour)}
}

func (h *house) device(owner holdfast.PartyID, label string) identity.Peer {
	h.t.Helper()
	d, err := h.custody.AddDevice(h.t.Context(), h.admin().Credential, custody.DeviceSpec{Label: label, Owner: owner})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.peer(d.Device)
}

func (h *house) peer(d custody.Device) identity.Peer {
	return identity.Peer{Device: d.ID, Assignment: d.Assignment, NotAfter: time.Now().Add(time.Hour)}
}

func (h *house) send(p identity.Peer, samples ...holdfast.Sample) error {
	b := h.ingest.Batch(h.t.Context(), p, "")
	if err := b.Add("", samples, ingest.Delivery{}); err != nil {
		return err
	}
	done := make(chan error, 1)
	b.Commit(func(err error) { done <- err })
	return <-done
}

func (h *house) mustSend(p identity.Peer, samples ...holdfast.Sample) {
	h.t.Helper()
	if err := h.send(p, samples...); err != nil {
		h.t.Fatalf("send: %v", err)
	}
}

// read returns what who may read of a stream.
func (h *house) read(who access.Principal, p identity.Peer, stream string) ([]holdfast.Reading, error) {
	res, err := h.query.Read(h.t.Context(), query.Request{Who: who, Selection: query.Selection{Device: p.Device, Stream: stream}, Span: holdfast.Always})
	if err != nil {
		return nil, err
	}
	defer res.Close()
	var out []holdfast.Reading
	for row, err := range res.Rows {
		if err != nil {
			return nil, err
		}
		out = append(out, row.Reading)
	}
	return out, nil
}

func (h *house) erase(who access.Principal, s holdfast.Scope) []byte {
	h.t.Helper()
	e, err := h.Server.erasure.Ask(h.t.Context(), who, s)
	if err != nil {
		h.t.Fatalf("ask: %v", err)
	}
	if err := h.Server.erasure.Once(h.t.Context()); err != nil {
		h.t.Fatalf("erase: %v", err)
	}
	e, err = h.Server.erasure.Erasure(context.Background(), e.ID)
	if err != nil || e.State != "done" {
		h.t.Fatalf("erasure is %s: %v", e.State, err)
	}
	return e.Certificate
}

// find reports which files of the data folder and the root key hold a pattern.
func (h *house) find(patterns map[string][]byte) (hits []string) {
	h.t.Helper()
	for _, root := range []string{h.dir, filepath.Dir(h.rootKey)} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for name, p := range patterns {
				if bytes.Contains(b, p) {
					hits = append(hits, name+" in "+path)
				}
			}
			return nil
		})
		if err != nil {
			h.t.Fatal(err)
		}
	}
	return hits
}

func number(stream string, at time.Time, v float64) holdfast.Sample {
	return holdfast.Sample{Stream: stream, Time: at.UnixNano(), Timed: true, Value: holdfast.NumberValue(v), Literal: true}
}
