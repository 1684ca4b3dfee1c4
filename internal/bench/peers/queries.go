package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast/internal/bench"
	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
)

// queriesOfVictoriaMetrics is the peer of figure P7.
func queriesOfVictoriaMetrics(ctx context.Context, _ *bench.Bench) (_ *bench.Side, err error) {
	v, err := StartVictoriaMetrics(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.Stop())
		}
	}()
	c := bench.QueryCorpus()
	load := c.Load(corpus.Numbers, bench.LinesPerRequest)
	if _, err := bench.Pour(ctx, bench.LineSenders, len(load.Bodies), func(ctx context.Context, i int) error { return v.Write(ctx, load.Bodies[i]) }); err != nil {
		return nil, err
	}
	if err := v.Settle(ctx); err != nil {
		return nil, err
	}
	if err := v.Verify(ctx, &c, load.Sums); err != nil {
		return nil, err
	}
	from, to := bench.QueryHour()
	metric := corpus.Temperature.Stream()
	raw := func(ctx context.Context, device int) (int, error) {
		text, err := v.Export(ctx, fmt.Sprintf("%s{device=%q}", metric, corpus.Name(device)), from, to)
		_, values, _ := bytes.Cut(text, []byte(`"values":[`))
		values, _, _ = bytes.Cut(values, []byte(`]`))
		return bytes.Count(values, []byte(",")) + 1, err
	}
	minutes := func(ctx context.Context, device int) (int, error) {
		text, err := v.Range(ctx, fmt.Sprintf("avg_over_time(%s{device=%q}[1m])", metric, corpus.Name(device)), from.Add(time.Minute), to, time.Minute)
		_, values, _ := bytes.Cut(text, []byte(`"values":[`))
		return bytes.Count(values, []byte(`["`)) + bytes.Count(values, []byte(`,"`)), err
	}
	fleet := func(ctx context.Context) (float64, error) {
		return v.Value(ctx, fmt.Sprintf("avg(avg_over_time(%s[1h]))", metric), to)
	}
	want := load.Sums[corpus.Temperature]
	return v.side(func(ctx context.Context, round int) (bench.Values, error) {
		return bench.AskAll(ctx, raw, minutes, fleet, want)
	}, v.Stop), nil
}
