package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/archive"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/timeline"
)

// house is a hub with its API: the operating organisation Acme with a pump, Anna
// with a watch, Ben with a scale, and an institute that would like to read.
type house struct {
	*querytest.House
	*API
	t        testing.TB
	registry *prometheus.Registry
	log      *lockedBuffer
	first    access.AdministratorIdentity

	// Tokens, by who holds them.
	admin, anna, ben, reader, institute, fleet, scraper string

	annaID, benID, instituteID holdfast.PartyID
	pump, watch, scale         custody.Device
}

// Names that must reach neither a log nor a metric, nor anybody who may not know
// them.
const (
	annaName = "Anna Achternaam"
	benName  = "Ben Bijnaam"
)

func build(t testing.TB, l Limits) *house {
	t.Helper()
	h := &house{House: querytest.Build(t), t: t, log: new(lockedBuffer), registry: prometheus.NewRegistry()}
	ctx := t.Context()
	authority, err := identity.Create(ctx, identity.Deps{Catalog: h.House.Catalog, Vault: h.Vault, Ledger: h.House.Ledger}, []string{"127.0.0.1"}, identity.Options{})
	h.must(err)
	keeper, err := access.Open(ctx, access.Deps{Catalog: h.House.Catalog, Vault: h.Vault, Ledger: h.House.Ledger, Authority: authority, Operating: h.House.Custody.Operating}, access.Options{})
	h.must(err)
	h.House.Query = query.New(h.House.Custody, h.Register, h.Series, query.Options{Now: h.Now, Recheck: time.Nanosecond, Permissions: keeper})
	logger := slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	none := func(context.Context, holdfast.Scope) error { return nil } // no MQTT here
	cut := func(context.Context) error { return nil }                  // the files' bytes are other tests'
	gone, err := erasure.Open(ctx, erasure.Deps{Arrival: func() int64 { return time.Now().UnixNano() },
		Catalog: h.House.Catalog, Vault: h.Vault, Ledger: h.House.Ledger, Series: h.Series, Grants: h.Register, Custody: h.House.Custody, Logger: logger,
		Places: erasure.Places{
			Connections: authority.Erase, Credentials: keeper.Erase, Grants: h.Register.Erase, Sessions: none, Wills: none, Ledger: h.House.Ledger.Erase, Memory: h.Series.Forget, Twins: none, Journal: cut, Catalog: cut,
			Readings: func(ctx context.Context, s holdfast.Scope) error {
				s.Before = 0
				_, err := h.Series.Erase(ctx, s)
				return err
			},
			Messages: none, Alarms: none, Custody: h.House.Custody.Erase,
		},
	})
	h.must(err)
	running, stop := context.WithCancel(context.Background())
	var erasing sync.WaitGroup
	erasing.Go(func() { gone.Run(running) })
	t.Cleanup(func() { stop(); erasing.Wait() })
	h.API, err = New(Deps{
		Access: keeper, Custody: h.House.Custody, Identity: authority, Grants: h.Register, Query: h.House.Query, Measure: h.Series, Erasure: gone,
		Ledger: h.House.Ledger, Archive: archive.New(h.House.Query, h.House.Custody, h.Register, h.House.Ledger),
		Timeline: timeline.New(timeline.Deps{Custody: h.House.Custody, Query: h.House.Query, Series: h.Series, Ingest: h.Gate, Erasure: gone}),
		Gatherer: h.registry, Logger: logger, Limits: l,
	})
	h.must(err)
	for _, c := range h.API.Metrics() {
		h.must(h.registry.Register(c))
	}
	h.people(keeper)
	h.things()
	return h
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) people(keeper *access.Access) {
	h.t.Helper()
	ctx := h.t.Context()
	var err error
	h.first, err = keeper.CreateAdministrator(ctx, h.Acme, "the first")
	h.must(err)
	by := access.Principal{Settled: true, Credential: h.first.ID, Party: h.Acme, Role: access.Administrator, Scopes: access.ScopeRead | access.ScopeWrite | access.ScopeMetrics}
	token := func(s access.Spec) string {
		m, err := keeper.Add(ctx, by, s, nil)
		h.must(err)
		return m.Token
	}
	owner := func(name string) (string, holdfast.PartyID) {
		p, err := h.House.Custody.AddParty(ctx, by.Credential, name, custody.Person)
		h.must(err)
		code, _, err := keeper.Invite(ctx, by, p.ID)
		h.must(err)
		m, err := keeper.Redeem(ctx, access.Redemption{Code: code, From: "192.0.2.1"})
		h.must(err)
		return m.Token, p.ID
	}
	h.Purpose("study")
	h.admin = token(access.Spec{Label: "desk", Party: h.Acme, Role: access.Administrator})
	h.anna, h.annaID = owner(annaName)
	h.ben, h.benID = owner(benName)
	institute, err := h.House.Custody.AddParty(ctx, by.Credential, "Institute", custody.Organisation)
	h.must(err)
	h.instituteID = institute.ID
	code, _, err := keeper.Invite(ctx, by, institute.ID)
	h.must(err)
	_, err = keeper.Redeem(ctx, access.Redemption{Code: code, From: "192.0.2.1"})
	h.must(err)
	study, err := keeper.Add(ctx, access.Principal{Settled: true, Credential: h.first.ID, Party: institute.ID, Role: access.Owner, Scopes: access.ScopeRead | access.ScopeWrite},
		access.Spec{Label: "study", Party: institute.ID, Role: access.Program, Purposes: []holdfast.Purpose{"study"}}, nil)
	h.must(err)
	h.institute = study.Token
	h.fleet = token(access.Spec{Label: "fleet", Party: h.Acme, Role: access.Program, Purposes: []holdfast.Purpose{holdfast.Operation}})
	h.scraper = token(access.Spec{Label: "scraper", Party: h.Acme, Role: access.Program, Scopes: access.ScopeMetrics})
	h.reader = token(access.Spec{Label: "auditor", Party: h.Acme, Role: access.Administrator, Scopes: access.ScopeRead})
}

func (h *house) things() {
	h.t.Helper()
	now := time.Now().Truncate(time.Second)
	h.pump = h.Device(custody.DeviceSpec{Label: "pump-1"})
	h.watch = h.Device(custody.DeviceSpec{Label: "watch", Owner: h.annaID})
	h.scale = h.Device(custody.DeviceSpec{Label: "scale", Owner: h.benID})
	for i := range 10 {
		at := now.Add(time.Duration(i-20) * time.Second)
		h.Send(h.pump, querytest.At("temperature", at, holdfast.NumberValue(20.5+float64(i))), querytest.At("state", at, holdfast.TextValue("ok, \"fine\"")))
		h.Send(h.watch, querytest.At("pulse", at, holdfast.NumberValue(61+float64(i))))
		h.Send(h.scale, querytest.At("weight", at, holdfast.NumberValue(80.25)))
	}
}

// got is an answer.
type got struct {
	t      testing.TB
	what   string
	status int
	header http.Header
	body   string
}

// ask sends a request in process. body is JSON if it is a string, a reader is sent
// as it is with the media type before the first space of what.
func (h *house) ask(token, method, path, body string) got {
	h.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return h.do(token, r)
}

func (h *house) do(token string, r *http.Request) got {
	h.t.Helper()
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if fault := recover(); fault != nil && fault != http.ErrAbortHandler {
				h.t.Errorf("%s %s panics: %v", r.Method, r.URL.Path, fault)
			}
		}()
		h.ServeHTTP(w, r)
	}()
	return got{h.t, r.Method + " " + r.URL.Path, w.Code, w.Result().Header, w.Body.String()}
}

func (g got) is(status int) got {
	g.t.Helper()
	if g.status != status {
		g.t.Fatalf("%s answers %d, want %d: %s", g.what, g.status, status, g.body)
	}
	return g
}

// shows and hides say what must and must not stand in an answer.
func (g got) shows(texts ...string) got {
	g.t.Helper()
	for _, s := range texts {
		if !strings.Contains(g.body, s) {
			g.t.Errorf("%s does not show %q: %s", g.what, s, g.body)
		}
	}
	return g
}

func (g got) hides(texts ...string) got {
	g.t.Helper()
	for _, s := range texts {
		if strings.Contains(g.body, s) {
			g.t.Errorf("%s shows %q: %s", g.what, s, g.body)
		}
	}
	return g
}

func (g got) into(v any) {
	g.t.Helper()
	if err := json.Unmarshal([]byte(g.body), v); err != nil {
		g.t.Fatalf("%s: %v: %s", g.what, err, g.body)
	}
}

// problem checks that an answer is one of ours and returns it.
func (g got) problem() Problem {
	g.t.Helper()
	var p Problem
	d := json.NewDecoder(strings.NewReader(g.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		g.t.Fatalf("%s answers %d with no problem document: %v: %s", g.what, g.status, err, g.body)
	}
	if p.Status != g.status || p.Type != "about:blank" || p.Title == "" || g.header.Get("Content-Type") != "application/problem+json" {
		g.t.Errorf("%s: not a problem document of ours: %s: %s", g.what, g.header.Get("Content-Type"), g.body)
	}
	return p
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

var _ io.Writer = (*lockedBuffer)(nil)
