package main

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bench"
	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
)

// remainer is a peer of figure ERASURE.
type remainer struct {
	*Server
	stop   func() error
	form   corpus.Form
	send   func(ctx context.Context, load *corpus.Load, i int) error
	flush  func(ctx context.Context) error // what was sent is in files
	refuse func(ctx context.Context, first int) error
	finish func(ctx context.Context) error
}

func remainsPeers() []bench.Maker {
	return []bench.Maker{
		func(ctx context.Context, _ *bench.Bench) (*bench.Side, error) {
			return remainsSide(ctx, remainsOfPostgreSQL)
		},
		func(ctx context.Context, _ *bench.Bench) (*bench.Side, error) {
			return remainsSide(ctx, remainsOfVictoriaMetrics)
		},
	}
}

func remainsOfPostgreSQL(ctx context.Context) (*remainer, error) {
	s, err := StartPostgreSQL(ctx)
	if err != nil {
		return nil, err
	}
	r := &remainer{Server: s.Server, stop: s.Stop, form: corpus.Rows,
		send:  func(ctx context.Context, load *corpus.Load, i int) error { return s.Copy(ctx, load.Rows[i]) },
		flush: s.Settle,
		refuse: func(ctx context.Context, first int) error {
			return s.Exec(ctx, `DELETE FROM reading WHERE series >= $1 AND series < $2`, first, first+bench.RemainsDevices)
		},
		finish: func(ctx context.Context) error {
			return errors.Join(s.Exec(ctx, `VACUUM reading`), s.Exec(ctx, `CHECKPOINT`))
		},
	}
	if err := s.CreateReadings(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return r, nil
}

func remainsOfVictoriaMetrics(ctx context.Context) (*remainer, error) {
	v, err := StartVictoriaMetrics(ctx)
	if err != nil {
		return nil, err
	}
	return &remainer{Server: v.Server, stop: v.Stop, form: corpus.Numbers,
		send: func(ctx context.Context, load *corpus.Load, i int) error { return v.Write(ctx, load.Bodies[i]) },
		flush: func(ctx context.Context) error {
			if err := v.Flush(ctx); err != nil {
				return err
			}
			select { // until what is in memory is written, which it does each five seconds
			case <-time.After(12 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		refuse: func(ctx context.Context, first int) error {
			for i := range bench.RemainsDevices {
				match := `{device="` + corpus.Name(first+i) + `"}`
				if _, err := v.at.get(ctx, "/api/v1/admin/tsdb/delete_series", url.Values{"match[]": {match}}); err != nil {
					return err
				}
			}
			return nil
		},
		finish: v.Settle,
	}, nil
}

func remainsSide(ctx context.Context, fresh func(context.Context) (*remainer, error)) (*bench.Side, error) {
	first, err := fresh(ctx) // to know whether it is installed
	if err != nil {
		return nil, err
	}
	if err := first.stop(); err != nil {
		return nil, err
	}
	return first.side(func(ctx context.Context, round int) (bench.Values, error) { return remainsRound(ctx, fresh, round) }, nil), nil
}

func remainsRound(ctx context.Context, fresh func(context.Context) (*remainer, error), round int) (v bench.Values, err error) {
	r, err := fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	var left *bench.Remains
	for owner := range bench.RemainsOwners {
		if owner == bench.RemainsErased {
			if left, err = bench.NewRemains(r.data); err != nil {
				return nil, err
			}
		}
		c := bench.RemainsCorpus(round, owner)
		load := c.Load(r.form, bench.LinesPerRequest)
		if _, err := bench.Pour(ctx, bench.LineSenders, len(load.Bodies)+len(load.Rows), func(ctx context.Context, i int) error { return r.send(ctx, load, i) }); err != nil {
			return nil, err
		}
		if err := r.flush(ctx); err != nil {
			return nil, err
		}
		if owner == bench.RemainsErased {
			if err := left.Came(r.data); err != nil {
				return nil, err
			}
		}
	}
	began := time.Now()
	if err := r.refuse(ctx, bench.RemainsErased*bench.RemainsDevices); err != nil {
		return nil, err
	}
	refused := time.Since(began)
	if err := r.finish(ctx); err != nil {
		return nil, err
	}
	v = bench.Values{"refused": refused.Seconds(), "done": time.Since(began).Seconds()}
	if err := left.Left(v, r.data); err != nil {
		return nil, err
	}
	if least := float64(bench.RemainsDevices * bench.RemainsSteps / 10); v["came"] < least {
		return nil, holdfast.Errorf(holdfast.Internal, "%s had written only %g bytes of the owner's readings before it was to delete them", r.Name, v["came"])
	}
	return v, nil
}
