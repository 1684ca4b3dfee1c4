package api

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
)

// health registers what supervisors, scrapers and strangers ask for, and what
// answers every other address.
func (a *API) health() {
	a.plain("GET /healthz", rule{}, func(w http.ResponseWriter, _ *http.Request) { text(w, "ok\n") })
	a.plain("GET /readyz", rule{}, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		if err := a.Ready(ctx); err != nil {
			a.Logger.WarnContext(ctx, "not ready", "error", err)
			a.refuse(w, r, holdfast.Errorf(holdfast.Unavailable, "the hub can't do its work now"))
			return
		}
		text(w, "ready\n")
	})
	a.plain("GET /v1/ca.pem", rule{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-pem-file")
		w.Write(a.Identity.CAPEM())
	})
	a.plain("/.well-known/est/", rule{}, a.Identity.EST().ServeHTTP)
	a.plain("GET /openapi.json", rule{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		w.Write(a.spec)
	})
	a.plain("GET /metrics", rule{}, a.scrape())
	a.plain("/", rule{}, a.unknown)
}

func (a *API) scrape() http.HandlerFunc {
	if a.Gatherer == nil {
		return a.unknown
	}
	h := promhttp.HandlerFor(a.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 30 * time.Second})
	return func(w http.ResponseWriter, r *http.Request) {
		if by := callerOf(r.Context()); !by.Can(access.ScopeMetrics) && by.Role != access.Administrator {
			a.refuse(w, r, holdfast.Errorf(holdfast.Denied, "this needs a credential with the scope %s", access.ScopeMetrics))
			return
		}
		h.ServeHTTP(w, r)
	}
}

func text(w http.ResponseWriter, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte(s))
}
