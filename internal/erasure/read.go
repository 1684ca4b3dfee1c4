package erasure

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Erasure returns one erasure. Whoever knows its random id may ask: an owner who
// erased himself has no credential left to ask with.
func (g *Gate) Erasure(ctx context.Context, id holdfast.ErasureID) (Erasure, error) {
	all, err := g.list(ctx, `id = $1`, id)
	if err != nil {
		return Erasure{}, err
	}
	if len(all) == 0 {
		return Erasure{}, holdfast.Errorf(holdfast.NotFound, "there is no such erasure")
	}
	return all[0], nil
}

// Erasures returns all of them, oldest first; an owner's own only.
func (g *Gate) Erasures(ctx context.Context, by access.Principal) ([]Erasure, error) {
	switch by.Role {
	case access.Administrator, access.Auditor:
		return g.list(ctx, `1 = 1`)
	case access.Owner:
		return g.list(ctx, `party = $1`, by.Party)
	}
	return nil, holdfast.Errorf(holdfast.Denied, "only owners and administrators see erasures")
}

// Wait returns when the erasure is done, or ctx ends.
func (g *Gate) Wait(ctx context.Context, id holdfast.ErasureID) error {
	g.mu.RLock()
	ended := g.done[id]
	g.mu.RUnlock()
	if ended == nil {
		return nil
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Undone returns the erasures that are under way, oldest first: not those that wait
// for their window to end, or for somebody's approval.
func (g *Gate) Undone(ctx context.Context) ([]Erasure, error) {
	return g.list(ctx, `state IN ($1, $2)`, Asked, Destroyed)
}

// UnderWay returns the erasures of a party that refuse something of which the keys still
// live, oldest first: they were asked for and not carried out yet, or may be undone.
func (g *Gate) UnderWay(ctx context.Context, party holdfast.PartyID) ([]Erasure, error) {
	if g.holding.Load() == 0 {
		return nil, nil
	}
	return g.list(ctx, `party = $1 AND state IN ($2, $3)`, party, Asked, Waiting)
}

// list reads erasures in the order in which they were asked.
func (g *Gate) list(ctx context.Context, where string, args ...any) ([]Erasure, error) {
	var out []Erasure
	var boxes [][]byte
	err := g.Catalog.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT id, party, state, plan_sealed, certificate FROM erasure WHERE `+where+` ORDER BY number`, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e Erasure
			var box []byte
			if err := rows.Scan(&e.ID, &e.Party, &e.State, &box, &e.Certificate); err != nil {
				return err
			}
			if e.State == incomplete {
				e.State, e.Incomplete = Done, true
			}
			out, boxes = append(out, e), append(boxes, box)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read erasures: %w", err)
	}
	for i := range out {
		plain, err := g.Vault.OpenField(ctx, vault.Hub, "erasure", out[i].ID[:], "plan", boxes[i])
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(plain, &out[i].Plan); err != nil {
			return nil, fmt.Errorf("decode erasure %s: %w", out[i].ID, err)
		}
	}
	return out, nil
}

func (g *Gate) sealPlan(ctx context.Context, e Erasure) ([]byte, error) {
	plain, err := json.Marshal(e.Plan)
	if err != nil {
		return nil, err
	}
	return g.Vault.SealField(ctx, vault.Hub, "erasure", e.ID[:], "plan", plain)
}

// save writes down how far an erasure has come.
func (g *Gate) save(ctx context.Context, e Erasure, more func(*sql.Tx) error) error {
	box, err := g.sealPlan(ctx, e)
	if err != nil {
		return err
	}
	state := e.State
	if e.Incomplete {
		state = incomplete
	}
	return g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if more != nil {
			if err := more(tx); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `UPDATE erasure SET state = $1, plan_sealed = $2, certificate = $3 WHERE id = $4`, state, box, e.Certificate, e.ID)
		return err
	})
}

type metrics struct {
	asked, finished prometheus.Counter
	seconds         prometheus.Histogram
	expired         prometheus.Counter
	lastExpiry      prometheus.Gauge
}

func newMetrics() metrics {
	return metrics{
		asked:      prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_erasures_asked_total", Help: "Erasures asked for."}),
		finished:   prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_erasures_done_total", Help: "Erasures with a certificate."}),
		expired:    prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_retention_keys_destroyed_total", Help: "Keys of a stream's month or day destroyed by age."}),
		lastExpiry: prometheus.NewGauge(prometheus.GaugeOpts{Name: "holdfast_retention_last_run_timestamp_seconds", Help: "When the last run of retention since the start ended."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "holdfast_erasure_key_seconds",
			Help: "Seconds from asking to the destruction of the keys.", Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}}),
	}
}

// Metrics returns the collectors of this package.
func (g *Gate) Metrics() []prometheus.Collector {
	return []prometheus.Collector{g.metrics.asked, g.metrics.finished, g.metrics.seconds, g.metrics.expired, g.metrics.lastExpiry,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "holdfast_erasure_oldest_unpurged_seconds",
			Help: "How long ago the oldest erasure was asked for of which ciphertext is still there; 0: none is."}, func() float64 { return g.oldest().Seconds() })}
}

// oldest is how long ago the oldest erasure began that has no certificate.
func (g *Gate) oldest() (age time.Duration) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, at := range g.undone {
		age = max(age, time.Since(at))
	}
	return age
}
