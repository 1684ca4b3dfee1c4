package api

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
)

// Liveness is the answer of /healthz: that there is one.
type Liveness struct {
	Alive bool `json:"alive"`
}

// Readiness is the answer of /readyz: whether readings are acknowledged now, and
// which of the things that takes hold. It goes to anybody, so it tells names alone.
type Readiness struct {
	Ready  bool            `json:"ready"`
	Checks map[string]bool `json:"checks"`
	Detail string          `json:"detail,omitempty" doc:"Which checks don't hold, in words."`

	After time.Duration `json:"-"` // when to ask again; 0: soon
}

// health registers what supervisors, scrapers and strangers ask for, and what
// answers every other address.
func (a *API) health() {
	a.plain("GET /healthz", rule{}, func(w http.ResponseWriter, _ *http.Request) {
		state(w, http.StatusOK, Liveness{Alive: true})
	})
	a.plain("GET /readyz", rule{}, func(w http.ResponseWriter, r *http.Request) {
		answer, status := a.Ready(r.Context()), http.StatusOK
		if !answer.Ready {
			status = http.StatusServiceUnavailable
			w.Header().Set("Retry-After", strconv.Itoa(int(cmp.Or(answer.After, retryAfter).Seconds())))
		}
		state(w, status, answer)
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

// state writes what a supervisor asked for; nobody may keep it for later.
func state(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}
