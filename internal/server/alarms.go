package server

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/alarm"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// expressions gives alarms the engine of the Prometheus API. Alarms are opened before
// it: erasures that a crash interrupted are finished before anything is read.
type expressions struct{ *Server }

func (e expressions) Check(expr string) error { return e.promql.Check(expr) }

func (e expressions) Evaluate(ctx context.Context, who access.Principal, p holdfast.Purpose, expr string, at time.Time) ([]alarm.Sample, error) {
	all, err := e.promql.Evaluate(ctx, who, p, expr, at)
	out := make([]alarm.Sample, len(all))
	for i, s := range all {
		out[i] = alarm.Sample{Labels: s.Labels, Value: s.Value}
	}
	return out, err
}

func (s *Server) openAlarms(ctx context.Context) (err error) {
	s.alarms, err = alarm.Open(ctx, alarm.Deps{
		Catalog: s.stores.catalog, Vault: s.stores.vault, Ledger: s.ledger, Outbox: s.outbox, Acting: s.access.Acting, Expressions: expressions{s},
		Read: func(ctx context.Context, r query.Request) (*query.Result, error) { return s.query.Read(ctx, r) },
	}, alarm.Options{Log: s.log})
	return err
}
