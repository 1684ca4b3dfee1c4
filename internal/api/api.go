// Package api is the HTTP API of people and programs: the listener on port 8443.
//
// It translates and authenticates; it decides nothing. Who asks is package
// access's word, what may be read is package query's, and a path, a status and a
// format are this package's. Each file holds one word of the hub.
//
// It promises that no route but those in open (route.go) answers a caller who is
// not authenticated; that what a caller may not know is refused like what does
// not exist; that a refusal never repeats what was sent; that a body is bounded
// before it is read, and a stream ends when its credential does; and that no name
// and no payload stands in a log line or a metric label.
//
// It keeps nothing. docs/api.md is its page for users, /openapi.json its
// description for programs.
package api

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/alarm"
	"github.com/holdfast-iot/holdfast/internal/archive"
	"github.com/holdfast-iot/holdfast/internal/backup"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/handover"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/outbox"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/recovery"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/timeline"
	"github.com/holdfast-iot/holdfast/internal/twin"
)

// Measure says how much there is of a stream, without its values: package series.
type Measure interface {
	Extent(ctx context.Context, a holdfast.AssignmentID, s holdfast.StreamID, since int64) (series.Extent, error)
}

// Deps is what an API stands on.
type Deps struct {
	Access   *access.Access
	Custody  *custody.Custody
	Identity *identity.Identity
	Grants   *grant.Register
	Query    *query.Query
	Measure  Measure
	Erasure  *erasure.Gate
	Ledger   *ledger.Ledger
	Archive  *archive.Archive
	Backups  *backup.Keeper // nil: there are no backups

	// Suspended says why a caller is refused, whoever he is, on a hub that was restored;
	// the zero principal is who shows no credential. Nil: nobody is.
	Suspended func(access.Principal) error
	Desk      *handover.Desk // default: one over the keepers above
	Timeline  *timeline.Timeline
	Alarms    *alarm.Alarms   // nil: there are none
	Outbox    *outbox.Outbox  // nil: there are no webhooks
	Twin      *twin.Store     // nil: there are no commands and no state
	Recovery  *recovery.Store // nil: nobody can be dealt shares

	Prometheus Prometheus                                   // nil: its API is not there
	Ending     <-chan struct{}                              // closed when the hub ends: feeds say so; may be nil
	Gatherer   prometheus.Gatherer                          // of /metrics; nil: there are none
	Ready      func(ctx context.Context) Readiness          // default: it is
	Doctor     func(ctx context.Context) ([]Finding, error) // default: nothing is wrong
	Logger     *slog.Logger                                 // default: nothing is logged

	// Addresses returns HOST:PORT of this listener, for invitations, and of the
	// devices', for enrolment codes; what is empty, and a nil Addresses, is the hub's
	// first host with port 8443 or 8444.
	Addresses func() (api, devices string)
	Version   string // of this program

	Limits Limits
}

// Limits bound what callers may cost; a zero is its default.
type Limits struct {
	PerSecond    float64       // requests of one credential, default 100
	Burst        int           // requests of one credential at once, default 400
	Streams      int           // readings and exports under way, default 64
	OwnStreams   int           // of them, of one credential, default 8; one party has at most a quarter of all
	Feeds        int           // live feeds, default 4096
	OwnFeeds     int           // of them, of one credential, default 64; one party has at most a quarter of all
	StreamStall  time.Duration // how long a stream waits for its reader, default 1 minute
	ErasureWait  time.Duration // how long a request waits for an erasure, default and most 60 s
	OpenRequests float64       // requests without a credential, by address and second, default 5
	Changes      float64       // changes of one owner, with all credentials, per second, default 1 after the first 200
}

func (l Limits) orDefaults() Limits {
	set := func(f *float64, v float64) {
		if *f <= 0 {
			*f = v
		}
	}
	setInt := func(i *int, v int) {
		if *i <= 0 {
			*i = v
		}
	}
	set(&l.PerSecond, 100)
	set(&l.OpenRequests, 5)
	set(&l.Changes, 1)
	setInt(&l.Burst, 400)
	setInt(&l.Streams, 64)
	setInt(&l.OwnStreams, 8)
	setInt(&l.Feeds, 4096)
	setInt(&l.OwnFeeds, 64)
	if l.StreamStall <= 0 {
		l.StreamStall = time.Minute
	}
	if l.ErasureWait <= 0 || l.ErasureWait > time.Minute {
		l.ErasureWait = time.Minute
	}
	return l
}

// API is the handler of port 8443.
type API struct {
	Deps
	mux         *http.ServeMux
	huma        huma.API
	rules       map[string]rule // by pattern
	spec        []byte          // openapi.json
	origins     *http.CrossOriginProtection
	callers     *rates
	guests      *rates
	readers     *rates // of the ledger's tiles
	changes     *rates
	streams     *slots[holdfast.CredentialID]
	sharing     *slots[holdfast.PartyID] // the same streams, by party
	feedSlots   *slots[holdfast.CredentialID]
	feedParties *slots[holdfast.PartyID]
	delays      *delays
	metrics     *metrics
}

// New builds the API.
func New(d Deps) (*API, error) {
	if d.Access == nil || d.Custody == nil || d.Identity == nil || d.Grants == nil || d.Query == nil || d.Measure == nil ||
		d.Erasure == nil || d.Ledger == nil || d.Archive == nil || d.Timeline == nil {
		return nil, errors.New("api: a keeper is not wired")
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Ready == nil {
		d.Ready = func(context.Context) Readiness { return Readiness{Ready: true} }
	}
	if d.Desk == nil {
		d.Desk = handover.New(handover.Deps{Custody: d.Custody, Identity: d.Identity, Grants: d.Grants, Erasure: d.Erasure, Logger: d.Logger})
	}
	if d.Addresses == nil {
		d.Addresses = func() (string, string) { return "", "" }
	}
	if d.Doctor == nil {
		d.Doctor = func(context.Context) ([]Finding, error) { return nil, nil }
	}
	if d.Version == "" {
		d.Version = "(devel)"
	}
	d.Limits = d.Limits.orDefaults()
	a := &API{
		Deps: d, mux: http.NewServeMux(), rules: map[string]rule{}, origins: http.NewCrossOriginProtection(),
		callers: newRates(d.Limits.PerSecond, d.Limits.Burst), guests: newRates(d.Limits.OpenRequests, int(10*d.Limits.OpenRequests)),
		changes:     newRates(d.Limits.Changes, int(200*d.Limits.Changes)),
		readers:     newRates(tilesPerSecond, 10*tilesPerSecond),
		streams:     newSlots[holdfast.CredentialID](d.Limits.Streams, d.Limits.OwnStreams, "this credential has too many streams under way: end one first"),
		sharing:     newSlots[holdfast.PartyID](d.Limits.Streams, max(d.Limits.OwnStreams, d.Limits.Streams/4), "this party has too many streams under way: end one first"),
		feedSlots:   newSlots[holdfast.CredentialID](d.Limits.Feeds, d.Limits.OwnFeeds, "this credential has too many feeds: end one first"),
		feedParties: newSlots[holdfast.PartyID](d.Limits.Feeds, max(d.Limits.OwnFeeds, d.Limits.Feeds/4), "this party has too many feeds: end one first"),
		delays:      newDelays(), metrics: newMetrics(),
	}
	a.metrics.count = a.streams.count
	a.origins.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.refuse(w, r, holdfast.Errorf(holdfast.Denied, "a page of another origin can't ask for this"))
	}))
	a.huma = humago.New(routes{a}, config(d.Version))
	for _, register := range []func(){
		a.health, a.doctor, a.parties, a.invitations, a.tokens, a.sessions, a.factor, a.permissions, a.profiles, a.devices, a.units, a.claims, a.purposes, a.grants, a.groups, a.holds, a.retention,
		a.readings, a.exports, a.erasures, a.rekeys, a.record, a.tiles, a.me, a.members, a.transfers, a.releases, a.joint, a.prometheus, a.feeds, a.alarms, a.webhooks, a.deliveries, a.recovery,
	} {
		register()
	}
	a.assignments()
	if a.Backups != nil {
		a.backups()
	}
	if a.Twin != nil {
		a.commands()
		a.twins()
	}
	a.decisions()
	return a, a.describe()
}

// config is huma's: one media type in, no pages, no links, errors as ours.
func config(version string) huma.Config {
	c := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{Title: "Holdfast", Version: version,
				Description: "The API of a Holdfast hub for people and programs. Every error is a problem document (RFC 9457)."},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"token":       {Type: "http", Scheme: "bearer", Description: "A token of the hub."},
					"certificate": {Type: "mutualTLS", Description: "A client certificate of the hub's authority."},
				},
			},
		},
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{cleaned},
	}
	return c
}

// describe makes openapi.json, once: it is the same for everybody.
func (a *API) describe() error {
	spec := a.huma.OpenAPI()
	delete(spec.Components.Schemas.Map(), "ErrorModel") // nobody gets one: see cleaned
	a.describePlain(spec)
	var err error
	if a.spec, err = json.Marshal(spec); err != nil {
		return fmt.Errorf("describe api: %w", err)
	}
	return nil
}

// describePlain adds the routes that huma does not serve.
func (a *API) describePlain(spec *huma.OpenAPI) {
	schema := func(t reflect.Type) *huma.Schema { return spec.Components.Schemas.Schema(t, true, t.Name()) }
	content := func(media string, s *huma.Schema) map[string]*huma.MediaType {
		return map[string]*huma.MediaType{media: {Schema: s}}
	}
	text := &huma.Schema{Type: huma.TypeString}
	for _, p := range []struct {
		route
		media string
		answer,
		body *huma.Schema
	}{
		{route{method: "POST", path: "/v1/invitations/redeem", summary: "Make one's own credential with an invitation, once.", status: http.StatusCreated},
			"application/json", schema(reflect.TypeFor[NewCredential]()), schema(reflect.TypeFor[Redemption]())},
		{route{method: "GET", path: "/v1/ca.pem", summary: "The hub's authority.", status: http.StatusOK}, "application/x-pem-file", text, nil},
		{route{method: "GET", path: "/healthz", summary: "Does the process live?", status: http.StatusOK}, "application/json", schema(reflect.TypeFor[Liveness]()), nil},
		{route{method: "GET", path: "/readyz", summary: "Are readings acknowledged now? 503 with the same body if not.", status: http.StatusOK}, "application/json", schema(reflect.TypeFor[Readiness]()), nil},
		{route{method: "GET", path: "/ledger/checkpoint", summary: "The ledger's published head (C2SP tlog-checkpoint).", status: http.StatusOK}, "text/plain", text, nil},
		{route{method: "GET", path: "/ledger/tile/{tile}", summary: "A tile or entries of the published ledger (C2SP tlog-tiles): LEVEL/N[.p/W] or entries/N[.p/W].", status: http.StatusOK},
			"application/octet-stream", &huma.Schema{Type: huma.TypeString, Format: "binary"}, nil},
		{route{method: "GET", path: "/ledger/renewals", summary: "What the first entries of the ledger's later names say.", status: http.StatusOK},
			"application/json", schema(reflect.TypeFor[[]ledger.Opening]()), nil},
		{route{method: "GET", path: "/metrics", summary: "Metrics, with the scope metrics.", status: http.StatusOK}, "text/plain", text, nil},
	} {
		op := a.operation(p.route)
		op.Responses[strconv.Itoa(p.status)] = &huma.Response{Description: http.StatusText(p.status), Content: content(p.media, p.answer)}
		if p.body != nil {
			op.RequestBody = &huma.RequestBody{Required: true, Content: content("application/json", p.body)}
		}
		spec.AddOperation(&op)
	}
}

// Metrics returns the collectors of this package.
func (a *API) Metrics() []prometheus.Collector {
	return append(a.metrics.collectors(), a.delays.seconds)
}

// Server returns an HTTP server for h with the timeouts of this listener; it holds
// 4,096 connections: 512 of one party, and 1,024 of nobody that it has authenticated,
// 256 of those from one place. A handler that streams moves its own deadlines.
func Server(t *tls.Config, h http.Handler, logger *slog.Logger) *http.Server {
	return newServer(newDoor(), t, h, logger)
}

func newServer(d *door, t *tls.Config, h http.Handler, logger *slog.Logger) *http.Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	s := &http.Server{
		Handler:           h,
		TLSConfig:         t,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          log.New(serverLog{logger}, "", 0),
	}
	d.guard(s, logger)
	return s
}

// serverLog keeps net/http's lines, which may quote what a client sent, out of the
// operator's log: only that there was one is said.
type serverLog struct{ to *slog.Logger }

func (l serverLog) Write(p []byte) (int, error) {
	l.to.Debug("a connection of the API ended early")
	return len(p), nil
}
