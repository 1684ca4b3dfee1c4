package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/holdfast-iot/holdfast"
)

// Problem is an error as callers get it (RFC 9457). It says what is wrong and what
// would help, and never repeats what was sent.
type Problem struct {
	Type   string  `json:"type" doc:"Always about:blank: title and status say it all."`
	Title  string  `json:"title" doc:"The kind: invalid, denied, not found, conflict, too large, unavailable or internal."`
	Status int     `json:"status"`
	Detail string  `json:"detail,omitempty"`
	Errors []Fault `json:"errors,omitempty" doc:"Each thing that is wrong with the request."`

	after time.Duration
}

// Fault is one thing that is wrong with a request.
type Fault struct {
	Message  string `json:"message"`
	Location string `json:"location" doc:"A path like body.purposes[0] or query.limit."`
}

// status is the one table from kinds to statuses. What has no kind of its own
// (nobody authenticated, a limit of rates, HTTP's own) is made by its name below.
func status(k holdfast.Kind) int {
	switch k {
	case holdfast.Invalid:
		return http.StatusBadRequest
	case holdfast.Denied:
		return http.StatusForbidden
	case holdfast.NotFound:
		return http.StatusNotFound
	case holdfast.Conflict:
		return http.StatusConflict
	case holdfast.TooLarge:
		return http.StatusRequestEntityTooLarge
	case holdfast.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// kindOf is the kind that a status of HTTP itself stands for.
func kindOf(status int) holdfast.Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return holdfast.Denied
	case http.StatusNotFound:
		return holdfast.NotFound
	case http.StatusRequestEntityTooLarge:
		return holdfast.TooLarge
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return holdfast.Unavailable
	}
	if status >= 500 {
		return holdfast.Internal
	}
	return holdfast.Invalid
}

const retryAfter = 5 * time.Second

// problemOf translates an error. A fault of ours says nothing of itself.
func problemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	e, ok := errors.AsType[*holdfast.Error](err)
	if !ok && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		return problem(http.StatusServiceUnavailable, "it took too long").retry(retryAfter)
	}
	if !ok || e.Kind == holdfast.Internal {
		return problem(http.StatusInternalServerError, "")
	}
	p := problem(status(e.Kind), e.Error())
	if e.Kind == holdfast.Unavailable {
		p.after = retryAfter
	}
	return p
}

func problem(status int, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: kindOf(status).String(), Status: status, Detail: detail}
}

func unauthenticated() *Problem {
	return problem(http.StatusUnauthorized, "who asks is not known: a client certificate of this hub, or a token of it or of an issuer that it knows as Authorization: Bearer ..., is missing, revoked or expired")
}

func tooMany(detail string, after time.Duration) *Problem {
	return problem(http.StatusTooManyRequests, detail).retry(after)
}

func (p *Problem) retry(after time.Duration) *Problem {
	p.after = after
	return p
}

// Error makes a Problem an error; GetStatus, GetHeaders and ContentType are what
// huma asks of one.
func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

func (p *Problem) GetStatus() int { return p.Status }

func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.after > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.after+time.Second-1)/time.Second)))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="holdfast"`)
	}
	return h
}

func (p *Problem) ContentType(string) string { return "application/problem+json" }

// refuse answers with err, unless an answer has begun.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	a.report(r.Context(), p, err)
	if t, ok := w.(*answer); ok && t.status != 0 {
		panic(http.ErrAbortHandler) // the reader must see that it broke off
	}
	for k, v := range p.GetHeaders() {
		w.Header()[k] = v
	}
	w.Header().Del("Content-Disposition")
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// report puts what the caller doesn't get into the operator's log. A caller who
// has gone is no fault.
func (a *API) report(ctx context.Context, p *Problem, err error) {
	if p.Status == http.StatusInternalServerError && ctx.Err() == nil {
		a.Logger.ErrorContext(ctx, "request failed", "route", routeOf(ctx), "error", err)
	}
}

// maxFaults bounds a problem about a body that is wrong all over.
const maxFaults = 20

// cleaned turns huma's errors, which quote values, field names and parsers, into
// problems. Texts that come from the schema stay; of all else only the place does.
func cleaned(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := problem(m.Status, "the request is not as it should be")
	switch m.Status {
	case http.StatusRequestEntityTooLarge:
		p.Detail = "the body is too large"
	case http.StatusUnsupportedMediaType:
		p.Detail = "send JSON, with Content-Type: application/json"
	case http.StatusRequestTimeout:
		p.Detail = "the body did not come in time"
	}
	for _, e := range m.Errors {
		if e == nil || len(p.Errors) == maxFaults {
			continue
		}
		f := Fault{Message: "can't be read", Location: e.Location}
		switch {
		case e.Message == "unexpected property":
			f.Message, f.Location = "has a field that is not known here", parent(e.Location)
		case e.Message == "unknown query parameter":
			f.Message, f.Location = "has a parameter that is not known here", "query"
		case strings.HasPrefix(e.Message, "expected ") || strings.HasPrefix(e.Message, "required "):
			f.Message = e.Message
		}
		p.Errors = append(p.Errors, f)
	}
	return p, nil
}

// parent is a location without its last step, which the caller made up.
func parent(location string) string {
	root, _, _ := strings.Cut(location, ".")
	return root
}

// problemResponse describes every error in openapi.json.
func (a *API) problemResponse() *huma.Response {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	return &huma.Response{Description: "What is wrong (RFC 9457).", Content: map[string]*huma.MediaType{
		"application/problem+json": {Schema: schema},
	}}
}
