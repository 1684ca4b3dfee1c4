package main

import (
	"context"

	"github.com/holdfast-iot/holdfast/internal/bench"
	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
)

// side is a peer as a side of a figure.
func (s *Server) side(round func(ctx context.Context, round int) (bench.Values, error), close func() error) *bench.Side {
	return &bench.Side{Name: s.Name, Version: s.Version, Year: s.Year, Round: round, Close: close}
}

// copyRows gives points to a COPY.
type copyRows struct {
	rows   []corpus.Point
	at     int
	values [3]any
}

func newCopyRows(rows []corpus.Point) *copyRows { return &copyRows{rows: rows, at: -1} }

func (r *copyRows) Next() bool { r.at++; return r.at < len(r.rows) }
func (r *copyRows) Err() error { return nil }

func (r *copyRows) Values() ([]any, error) {
	p := &r.rows[r.at]
	r.values = [3]any{p.Series, p.Millis, p.Value}
	return r.values[:], nil
}
