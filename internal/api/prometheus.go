package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/holdfast-iot/holdfast/internal/access"
)

// Prometheus answers the Prometheus query API: package promapi.
type Prometheus interface {
	// Routes are the patterns that it answers.
	Routes() []string
	// Answer answers a request of one of them; it sets headers and writes nothing. live
	// fails once the caller's credential is none. still, if not nil, fails once the body
	// may not be given out any more; done is called when it was. fault is for the
	// operator's log.
	Answer(w http.ResponseWriter, r *http.Request, pattern string, who access.Principal, live func() error) (
		status int, body []byte, still func(context.Context) error, done func(), fault error)
}

// prometheus serves it under the paths that its clients know. Who asks is found out
// as everywhere; only the answers are Prometheus' own.
func (a *API) prometheus() {
	if a.Prometheus == nil {
		return
	}
	for _, pattern := range a.Prometheus.Routes() {
		a.plain(pattern, rule{needs: access.ScopeRead, slow: true, asks: true}, func(w http.ResponseWriter, r *http.Request) {
			a.answerPrometheus(w, r, pattern)
		})
	}
}

func (a *API) answerPrometheus(w http.ResponseWriter, r *http.Request, pattern string) {
	by := callerOf(r.Context())
	live := func() error { return a.Access.Live(by) }
	status, body, still, done, fault := a.Prometheus.Answer(w, r, pattern, by, live)
	defer done()
	if fault != nil && r.Context().Err() == nil {
		a.Logger.ErrorContext(r.Context(), "request failed", "route", pattern, "error", fault)
	}
	out := newSink(w, r, a.Limits.StreamStall)
	if still != nil {
		defer out.watch(r.Context(), func(ctx context.Context) error { return cmp.Or(live(), still(ctx)) })()
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	for piece := range slices.Chunk(body, 16<<10) {
		if _, err := out.Write(piece); err != nil {
			return // the reader has gone, or was cut off
		}
	}
	out.end() // likewise
}
