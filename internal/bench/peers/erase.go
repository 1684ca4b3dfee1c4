package main

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bench"
	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
)

// eraseOfPostgreSQL is the peer of figure P8: it deletes as many rows as the
// largest owner has readings, and gives their space back.
func eraseOfPostgreSQL(ctx context.Context, _ *bench.Bench) (_ *bench.Side, err error) {
	s, err := StartPostgreSQL(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.CreateReadings(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s.side(func(ctx context.Context, round int) (bench.Values, error) {
		c := bench.EraseCorpus(round)
		load := c.Load(corpus.Rows, bench.LinesPerRequest)
		if _, err := bench.Pour(ctx, bench.LineSenders, len(load.Rows), func(ctx context.Context, i int) error { return s.Copy(ctx, load.Rows[i]) }); err != nil {
			return nil, err
		}
		if err := s.Settle(ctx); err != nil {
			return nil, err
		}
		if n, err := s.Numbers(ctx, `SELECT count(*)::float8 FROM reading`); err != nil || n[0] != float64(load.Points) {
			return nil, errors.Join(err, holdfast.Errorf(holdfast.Internal, "PostgreSQL does not have the %d rows that it copied", load.Points))
		}
		began := time.Now()
		if err := s.Exec(ctx, `DELETE FROM reading WHERE series < $1`, c.Devices); err != nil {
			return nil, err
		}
		deleted := time.Since(began)
		if err := s.Exec(ctx, `VACUUM reading`); err != nil {
			return nil, err
		}
		v := bench.Values{"refused_big": deleted.Seconds(), "dead_big": time.Since(began).Seconds()}
		if n, err := s.Numbers(ctx, `SELECT count(*)::float8 FROM reading`); err != nil || n[0] != 0 {
			return nil, errors.Join(err, holdfast.Errorf(holdfast.Internal, "PostgreSQL still has rows"))
		}
		return v, nil
	}, s.Stop), nil
}
