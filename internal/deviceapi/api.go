package deviceapi

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/budget"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/twin"
)

// Identity says who is at the other end, tells of revocations, and enrols.
type Identity interface {
	Peer(ctx context.Context, cs tls.ConnectionState) (identity.Peer, error)
	Track(p identity.Peer, cut func(reason error)) (forget func())
	// Credential says whose a certificate is that is a person's or a program's.
	Credential(ctx context.Context, cs tls.ConnectionState) (holdfast.CredentialID, [32]byte, error)
	EST() http.Handler
}

// Gate takes readings in.
type Gate interface {
	Batch(ctx context.Context, p identity.Peer, session string) *ingest.Batch
}

// Custody says what a line protocol tag means to a device.
type Custody interface {
	Route(ctx context.Context, id holdfast.DeviceID) (*custody.Route, error)
	Child(ctx context.Context, gateway holdfast.DeviceID, name string) (holdfast.DeviceID, error)
}

// MQTT serves connections that were taken over from HTTP, until they end.
type MQTT interface {
	ServeConn(ctx context.Context, nc net.Conn, cs tls.ConnectionState)
}

// Twin has what is for a device, and takes what it says of it.
type Twin interface {
	Poll(ctx context.Context, p identity.Peer, child string, after holdfast.CommandID, most time.Duration) ([]twin.Command, error)
	Result(ctx context.Context, p identity.Peer, child, id string, payload []byte) error
	DesiredFor(ctx context.Context, p identity.Peer, child string, have int64, most time.Duration) (twin.Desired, error)
	Report(ctx context.Context, p identity.Peer, child string, c twin.Change) (version int64, err error)
}

// Deps is what an API stands on. Without MQTT there is no /mqtt, without Twin there
// are no commands and no state.
type Deps struct {
	Identity Identity
	Gate     Gate
	Custody  Custody
	MQTT     MQTT
	Twin     Twin
}

// Options bound what devices may take. The zero value of each field means the
// default that stands beside it.
type Options struct {
	Logger *slog.Logger // nothing is logged
	Now    func() int64 // ns since 1970; the system's clock. Relative SenML times count from it

	MaxBody     int           // 4 MiB, of a body as sent and again as decompressed
	MaxReadings int           // 10,000 of one request
	BodyTimeout time.Duration // 60 s for a body to arrive

	MaxRequests      int     // 512 at once; more are asked to come again
	MaxWaits         int     // 2,048 requests that wait for commands or state, at once
	MaxInflightBytes int     // 32 MiB of bodies being read and taken in, all devices together
	MaxPerDevice     int     // 8 requests of one device at once
	PerSecond        float64 // 100 requests of one device a second; negative: no limit
	Burst            int     // 500

	// Quota says what a device may send; nil: nothing is bounded.
	Quota func(*custody.Route) *budget.Allowance
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = func() int64 { return time.Now().UnixNano() }
	}
	if o.Quota == nil {
		o.Quota = func(*custody.Route) *budget.Allowance { return nil }
	}
	if o.BodyTimeout <= 0 {
		o.BodyTimeout = time.Minute
	}
	for _, d := range []struct {
		field *int
		value int
	}{{&o.MaxBody, 4 << 20}, {&o.MaxReadings, 10_000}, {&o.MaxRequests, 512}, {&o.MaxWaits, 2_048}, {&o.MaxInflightBytes, 32 << 20}, {&o.MaxPerDevice, 8}, {&o.Burst, 500}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if o.PerSecond == 0 {
		o.PerSecond = 100
	}
	o.MaxInflightBytes = max(o.MaxInflightBytes, 2*o.MaxBody) // one body, twice if compressed
	return o
}

// API is the handler of the devices' listener. Server serves it.
type API struct {
	d       Deps
	o       Options
	mux     *http.ServeMux
	routes  []string
	busy    *semaphore.Weighted // requests
	waits   *semaphore.Weighted // requests that wait for something to do
	bytes   *semaphore.Weighted // of bodies
	budgets *budgets
	door    *door
	metrics metrics

	warnings rate.Sometimes
}

// New makes an API.
func New(d Deps, o Options) *API {
	o = o.withDefaults()
	a := &API{
		d: d, o: o, mux: http.NewServeMux(),
		busy: semaphore.NewWeighted(int64(o.MaxRequests)), waits: semaphore.NewWeighted(int64(o.MaxWaits)), bytes: semaphore.NewWeighted(int64(o.MaxInflightBytes)),
		budgets: newBudgets(o), door: newDoor(), metrics: newMetrics(), warnings: rate.Sometimes{Interval: time.Second},
	}
	a.handle("/.well-known/est/", d.Identity.EST())
	a.handle("POST /v1/data", a.device(a.data))
	a.handle("POST /write", a.device(a.lines))
	a.handle("POST /api/v2/write", a.device(a.lines))
	a.handle("POST /query", a.device(a.influxQuery))
	a.handle("GET /ping", a.device(a.influxPing))
	if d.Twin != nil {
		a.handle("GET /v1/commands", a.waiting(a.commands))
		a.handle("POST /v1/commands/{id}/result", a.device(a.result))
		a.handle("GET /v1/desired", a.waiting(a.desired))
		a.handle("PUT /v1/reported", a.device(a.reported))
		a.handle("PATCH /v1/reported", a.device(a.reported))
	}
	if d.MQTT != nil {
		a.handle("GET /mqtt", http.HandlerFunc(a.socket))
	}
	a.handle("/", a.device(func(w http.ResponseWriter, r *http.Request, _ identity.Peer) error {
		return holdfast.Errorf(holdfast.NotFound, "devices send by POST to /v1/data, /write or /api/v2/write, and ask with GET for /v1/commands and /v1/desired")
	}))
	return a
}

func (a *API) handle(pattern string, h http.Handler) {
	a.mux.Handle(pattern, h)
	a.routes = append(a.routes, pattern)
}

// Routes returns the patterns of every route.
func (a *API) Routes() []string { return slices.Clone(a.routes) }

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := &answer{ResponseWriter: w}
	_, route := a.mux.Handler(r)
	defer func() {
		if v := recover(); v != nil {
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				// Neither the value nor the request is logged: either could hold content.
				a.o.Logger.ErrorContext(r.Context(), "deviceapi: a request panicked", "route", route, "stack", string(debug.Stack()))
			}
			a.metrics.count(route, http.StatusInternalServerError)
			panic(http.ErrAbortHandler) // ends the connection, quietly
		}
		a.metrics.count(route, answer.status)
	}()
	a.mux.ServeHTTP(answer, r)
}

// answer remembers the status.
type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// peer says which device asks, or answers that it is none.
func (a *API) peer(w http.ResponseWriter, r *http.Request) (identity.Peer, bool) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		a.problem(w, r, errNobody)
		return identity.Peer{}, false
	}
	p, err := a.d.Identity.Peer(r.Context(), *r.TLS)
	if err == nil {
		err = a.follow(r, p)
	}
	if err != nil {
		a.problem(w, r, err)
	}
	return p, err == nil
}

// device lets devices in that are who they say, not too often, not too many.
func (a *API) device(next func(http.ResponseWriter, *http.Request, identity.Peer) error) http.Handler {
	return a.within(a.busy, next)
}

// waiting is device for requests that wait: they take no place of those that bring
// readings.
func (a *API) waiting(next func(http.ResponseWriter, *http.Request, identity.Peer) error) http.Handler {
	return a.within(a.waits, next)
}

func (a *API) within(places *semaphore.Weighted, next func(http.ResponseWriter, *http.Request, identity.Peer) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := a.peer(w, r)
		if !ok {
			return
		}
		leave, err := a.budgets.enter(p.Device, time.Now())
		if err != nil {
			a.metrics.refuse("pace")
			a.problem(w, r, err)
			return
		}
		defer leave()
		if !places.TryAcquire(1) {
			a.metrics.refuse("requests")
			a.problem(w, r, holdfast.Errorf(holdfast.Unavailable, "the hub has too many requests at once: try again"))
			return
		}
		defer places.Release(1)
		if err := next(w, r, p); err != nil {
			a.problem(w, r, err)
		}
	})
}
