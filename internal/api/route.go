package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
)

// openRoutes are those that answer a caller who is not authenticated, each with
// the reason. There is no other way to be on no credential.
func openRoutes() map[string]string {
	return map[string]string{
		"GET /healthz":                "a supervisor asks whether the process lives; it says nothing else",
		"GET /readyz":                 "a supervisor asks whether it can work; it says nothing else",
		"GET /v1/ca.pem":              "whom to trust is needed before a credential is",
		"GET /v1/invitations":         "the form for an invitation: whoever opens it has no credential yet",
		"GET /v1/issuers":             "whoever wants to log in has no credential yet; the addresses are public",
		"POST /v1/invitations/redeem": "the invitation is the credential",
		"GET /v1/erasures/{id}":       "the random id is the capability: who erased himself has no credential left",
		"/.well-known/est/":           "identity judges enrolment itself",
		ledgerCheckpoint:              "the ledger is public: hashes that say nothing about anybody",
		ledgerTile:                    "as the checkpoint",
		ledgerRenewals:                "whoever kept a checkpoint of an earlier name learns the newer ones",
	}
}

// rule is what a route asks of its caller.
type rule struct {
	needs access.Scopes // of the credential; 0: none beyond being one
	roles []access.Role // who may ask; none: everybody
	body  int64         // most bytes of a body in JSON; 0: the route reads its own, or has none
	file  bool          // the body is a file with a parser of its own
	slow  bool          // the handler moves its own deadlines
	asks  bool          // it changes nothing, whatever its method

	leaving bool // a party whose erasure waits may ask, too
	settles bool // what it does needs a settled credential, or is worth more with one: a code is looked at
}

// codeHeader has a code of the caller's second factor.
const codeHeader = "Holdfast-Code"

// route is one operation.
type route struct {
	method, path string
	summary      string
	rule
	status int  // of success, if not 200 or 204
	raw    bool // the handler reads the body's bytes itself
}

func (r route) pattern() string { return r.method + " " + r.path }

// reads and writes are rules for routes with a body in JSON or none.
func reads(roles ...access.Role) rule {
	return rule{needs: access.ScopeRead, roles: roles, body: maxBody}
}

func writes(roles ...access.Role) rule {
	return rule{needs: access.ScopeWrite, roles: roles, body: maxBody}
}

// settling is writes where a code of a second factor makes a difference.
func settling(roles ...access.Role) rule {
	r := writes(roles...)
	r.settles = true
	return r
}

// nothing is an answer without content.
type nothing struct{}

// reply is an answer in JSON.
type reply[T any] struct{ Body T }

// handle registers an operation in JSON. The handler gets who asks.
func handle[I, O any](a *API, r route, h func(ctx context.Context, by access.Principal, in *I) (*O, error)) {
	a.rules[r.pattern()] = r.rule
	huma.Register(a.huma, a.operation(r), func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, callerOf(ctx), in)
		if err != nil {
			p := problemOf(err)
			a.report(ctx, p, err)
			return nil, p
		}
		return out, nil
	})
}

// stream registers an operation whose handler reads the request and writes the
// answer itself. Until it has written, an error becomes a problem; after that it
// breaks the answer off.
func stream[I any](a *API, r route, media []string, h func(w http.ResponseWriter, req *http.Request, by access.Principal, in *I) error) {
	a.rules[r.pattern()] = r.rule
	op := a.operation(r)
	ok := &huma.Response{Description: "The answer, as it is made.", Content: map[string]*huma.MediaType{}}
	for _, m := range media {
		ok.Content[m] = &huma.MediaType{}
	}
	op.Responses["200"] = ok
	huma.Register(a.huma, op, func(_ context.Context, in *I) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(c huma.Context) {
			req, w := humago.Unwrap(c)
			if req.Method == http.MethodHead { // what nobody gets must not be on record as given
				a.refuse(w, req, problem(http.StatusMethodNotAllowed, "this is asked with "+r.method))
				return
			}
			if err := h(w, req, callerOf(req.Context()), in); err != nil {
				a.refuse(w, req, err)
			}
		}}, nil
	})
}

// plain registers a route that is not part of the described API.
func (a *API) plain(pattern string, r rule, h http.HandlerFunc) {
	a.rules[pattern] = r
	routes{a}.HandleFunc(pattern, h)
}

func (a *API) operation(r route) huma.Operation {
	op := huma.Operation{
		OperationID: operationID(r), Method: r.method, Path: r.path, Summary: r.summary, DefaultStatus: r.status,
		Tags:         []string{strings.Split(strings.TrimPrefix(r.path, "/v1/"), "/")[0]},
		MaxBodyBytes: -1, BodyReadTimeout: -1, // both are the guard's
		SkipValidateBody: r.raw,
		Responses:        map[string]*huma.Response{"default": a.problemResponse()},
		Security:         []map[string][]string{{"token": {}}, {"certificate": {}}},
	}
	if openRoutes()[r.pattern()] != "" {
		op.Security = []map[string][]string{}
	}
	return op
}

func operationID(r route) string {
	words := strings.FieldsFunc(strings.TrimPrefix(r.path, "/v1"), func(c rune) bool { return strings.ContainsRune("/{}", c) })
	return strings.ToLower(r.method) + "-" + strings.Join(words, "-")
}

// routes is the mux as huma and plain see it: whatever is registered is guarded.
type routes struct{ a *API }

func (m routes) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.a.ServeHTTP(w, r) }

func (m routes) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	if _, ok := m.a.rules[pattern]; !ok {
		panic("api: no rule for " + pattern)
	}
	m.a.mux.HandleFunc(pattern, m.a.guard(pattern, h))
}

type contextKey int

const (
	callerKey contextKey = iota
	routeKey
	linkKey
)

// Routes returns the patterns of every route, sorted: there is no other way to be
// one than through here, which panics on a route without a rule.
func (a *API) Routes() []string { return slices.Sorted(maps.Keys(a.rules)) }

// callerOf returns who asks; on an open route, nobody.
func callerOf(ctx context.Context) access.Principal {
	p, _ := ctx.Value(callerKey).(access.Principal)
	return p
}

func routeOf(ctx context.Context) string {
	s, _ := ctx.Value(routeKey).(string)
	return s
}

// guard stands before a handler: who asks, how often, and for what.
func (a *API) guard(pattern string, h http.HandlerFunc) http.HandlerFunc {
	r := a.rules[pattern]
	free := openRoutes()[pattern] != ""
	return func(w http.ResponseWriter, req *http.Request) {
		ctx := context.WithValue(req.Context(), routeKey, pattern)
		var by access.Principal
		var err error
		if free {
			if err = a.admitToOpen(req); err == nil && !strings.HasPrefix(pattern, "GET ") {
				err = a.suspended(by)
			}
		} else if by, err = a.admit(req); err == nil {
			if err = a.suspended(by); err == nil {
				err = r.allows(by)
			}
			if err == nil {
				err = a.pace(req, by, r)
			}
			if code := req.Header.Get(codeHeader); err == nil && r.settles && code != "" && !by.Settled {
				by, err = a.Access.Show(req.Context(), by, code)
			}
			if other := forOf(req); err == nil && other != "" {
				by, err = a.standIn(req.Context(), by, pattern, other)
			}
		}
		req = req.WithContext(context.WithValue(ctx, callerKey, by))
		if err == nil && r.body > 0 {
			var body []byte
			if body, err = readJSON(w, req, r.body, r.file); err == nil {
				req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			}
		}
		if err != nil {
			a.refuse(w, req, err)
			return
		}
		if r.slow {
			c := http.NewResponseController(w)
			c.SetReadDeadline(time.Time{}) // an error is a writer without deadlines, as in tests
			c.SetWriteDeadline(time.Now().Add(3 * time.Minute))
		}
		h(w, req)
	}
}

// suspended refuses who may not come in before a restore is confirmed.
func (a *API) suspended(by access.Principal) error {
	if a.Suspended == nil {
		return nil
	}
	if err := a.Suspended(by); err != nil {
		return problemOf(err).retry(suspendedRetry)
	}
	return nil
}

// suspendedRetry is when to ask a suspended hub again: a person has to look first, so
// that a client tells its user now instead of waiting.
const suspendedRetry = 5 * time.Minute

func (a *API) admit(req *http.Request) (access.Principal, error) {
	by, err := a.Access.Authenticate(req.Context(), req)
	switch {
	case holdfast.KindOf(err) == holdfast.Denied:
		return by, unauthenticated()
	case errors.Is(err, access.ErrTooMany):
		return by, tooMany("too many failed attempts from this address", time.Minute)
	case err != nil:
		return by, err
	}
	if !meet(req.Context(), by.Party) {
		return by, tooMany("the party of this credential has too many connections: close some", time.Second)
	}
	if after := a.callers.wait(string(by.Credential[:])); after > 0 {
		return by, tooMany("this credential asks too often", after)
	}
	return by, nil
}

// pace bounds what one party may change: all of it stays, in the catalog and on the
// record. The hub's own people are not held up.
func (a *API) pace(req *http.Request, by access.Principal, r rule) error {
	if r.asks || req.Method == http.MethodGet || req.Method == http.MethodHead || by.Role == access.Administrator {
		return nil
	}
	if after := a.changes.wait(string(by.Party[:])); after > 0 {
		return tooMany("this party changes too much at once", after)
	}
	return nil
}

// admitToOpen counts who reads an open route with a credential for that, not for his
// address: a regulator who follows a thousand erasures is no stranger. One that
// counts no more does not keep its holder out.
func (a *API) admitToOpen(req *http.Request) error {
	shown := req.Header.Get("Authorization") != "" || req.TLS != nil && len(req.TLS.PeerCertificates) > 0
	if req.Method == http.MethodGet && shown {
		if by, err := a.Access.Authenticate(req.Context(), req); err == nil {
			if after := a.callers.wait(string(by.Credential[:])); after > 0 {
				return tooMany("this credential asks too often", after)
			}
			return nil
		}
	}
	return a.admitGuest(req)
}

// admitGuest lets supervisors ask as often as they like: what they get costs
// nothing.
func (a *API) admitGuest(req *http.Request) error {
	if req.URL.Path == "/healthz" || req.URL.Path == "/readyz" {
		return nil
	}
	limit := a.guests
	if strings.HasPrefix(req.URL.Path, "/ledger/") {
		limit = a.readers
	}
	if after := limit.wait(addressOf(req)); after > 0 {
		return tooMany("too many requests without a credential from this address", after)
	}
	return nil
}

func (r rule) allows(by access.Principal) error {
	if by.Leaving && !r.leaving {
		return holdfast.Errorf(holdfast.Denied, "all of this party waits to be erased: it can be looked at and undone (holdfast erasure list, holdfast erasure undo), nothing else")
	}
	if len(r.roles) > 0 && !slices.Contains(r.roles, by.Role) {
		var wanted []string
		for _, role := range r.roles {
			wanted = append(wanted, possessive(role))
		}
		return holdfast.Errorf(holdfast.Denied, "this needs %s; this one is %s", strings.Join(wanted, " or "), possessive(by.Role))
	}
	if r.needs != 0 && !by.Can(r.needs) {
		return holdfast.Errorf(holdfast.Denied, "this needs a credential with the scope %s", r.needs)
	}
	return nil
}

func possessive(r access.Role) string {
	switch r {
	case access.Owner:
		return "an owner's own credential"
	case access.Administrator:
		return "an administrator's"
	case access.Auditor:
		return "an auditor's"
	}
	return "a program's"
}

// ServeHTTP answers every request of the listener.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	out := &answer{ResponseWriter: w}
	setHeaders(out.Header())
	_, pattern := a.mux.Handler(r)
	defer func() {
		fault := recover()
		if fault != nil && r.Context().Err() != nil {
			fault = http.ErrAbortHandler // the caller has gone in the middle of an answer
		}
		if fault != nil && fault != http.ErrAbortHandler {
			a.Logger.ErrorContext(r.Context(), "request failed", "route", pattern, "panic", fmt.Sprintf("%T", fault), "stack", string(debug.Stack()))
			if out.status == 0 {
				a.refuse(out, r, problem(http.StatusInternalServerError, ""))
				fault = nil
			} else {
				fault = http.ErrAbortHandler
			}
		}
		a.metrics.done(pattern, cmpOr(out.status, http.StatusOK), began)
		if fault != nil {
			panic(fault)
		}
	}()
	a.origins.Handler(a.mux).ServeHTTP(out, r)
}

func cmpOr(a, b int) int {
	if a != 0 {
		return a
	}
	return b
}

// setHeaders forbids browsers what no answer of an API needs.
func setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// answer is a ResponseWriter that knows whether it has begun.
type answer struct {
	http.ResponseWriter
	status int
}

func (w *answer) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *answer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController find flush and deadlines.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// unknown answers what no route does. Who is not known hears that first.
func (a *API) unknown(w http.ResponseWriter, r *http.Request) {
	var methods []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := a.mux.Handler(other); pattern != "/" {
			methods = append(methods, m)
		}
	}
	if len(methods) > 0 {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		a.refuse(w, r, problem(http.StatusMethodNotAllowed, "this is asked with "+strings.Join(methods, " or ")))
		return
	}
	a.refuse(w, r, holdfast.Errorf(holdfast.NotFound, "there is nothing at this address"))
}
