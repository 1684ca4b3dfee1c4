package main

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bench"
	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
)

// linePeers are those of figure P6.
func linePeers() []bench.Maker {
	return []bench.Maker{linesOfVictoriaMetrics, linesOfInfluxDB, linesOfPostgreSQL}
}

func linesOfVictoriaMetrics(ctx context.Context, _ *bench.Bench) (*bench.Side, error) {
	v, err := StartVictoriaMetrics(ctx)
	if err != nil {
		return nil, err
	}
	return v.side(linesRound(v.Server, corpus.Numbers, func(ctx context.Context, load *corpus.Load, i int) error {
		return v.Write(ctx, load.Bodies[i])
	}, v.Verify), v.Stop), nil
}

func linesOfInfluxDB(ctx context.Context, _ *bench.Bench) (*bench.Side, error) {
	d, err := StartInfluxDB(ctx, false)
	if err != nil {
		return nil, err
	}
	return d.side(linesRound(d.Server, corpus.Texts, func(ctx context.Context, load *corpus.Load, i int) error {
		return d.Write(ctx, load.Bodies[i])
	}, d.Verify), d.Stop), nil
}

func linesOfPostgreSQL(ctx context.Context, _ *bench.Bench) (*bench.Side, error) {
	d, err := StartPostgreSQL(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.CreateReadings(ctx); err != nil {
		return nil, err
	}
	return d.side(linesRound(d.Server, corpus.Rows, func(ctx context.Context, load *corpus.Load, i int) error {
		return d.Copy(ctx, load.Rows[i])
	}, d.Verify), d.Stop), nil
}

// linesRound warms a peer up before its first round, loads it, and compares what it
// has with what was sent.
func linesRound(s *Server, form corpus.Form, send func(ctx context.Context, load *corpus.Load, i int) error,
	verify func(ctx context.Context, c *corpus.Corpus, want map[corpus.Kind]corpus.Sum) error) func(context.Context, int) (bench.Values, error) {
	return func(ctx context.Context, round int) (bench.Values, error) {
		if round == 0 {
			c := bench.LinesCorpus(bench.WarmUp)
			load := c.Load(form, bench.LinesPerRequest)
			if _, err := bench.Pour(ctx, 1, len(load.Bodies)+len(load.Rows), func(ctx context.Context, i int) error { return send(ctx, load, i) }); err != nil {
				return nil, err
			}
		}
		c := bench.LinesCorpus(round)
		load := c.Load(form, bench.LinesPerRequest)
		v, err := bench.Ingest(ctx, load, s.PID(), func(ctx context.Context, i int) error { return send(ctx, load, i) })
		if err != nil {
			return nil, err
		}
		return v, patiently(ctx, func() error { return verify(ctx, &c, load.Sums) })
	}
}

// patiently asks again for a while: what a peer acknowledged may show up later, in
// VictoriaMetrics sometimes after many seconds.
func patiently(ctx context.Context, verify func() error) error {
	patience, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := verify()
		if err == nil {
			return nil
		}
		select {
		case <-patience.Done():
			return err
		case <-time.After(time.Second):
		}
	}
}

// differs says that a peer does not have what it acknowledged.
func differs(name string, k corpus.Kind, count, mean float64, want corpus.Sum) error {
	return holdfast.Errorf(holdfast.Internal, "%s has %.0f readings of %s with the mean %v, %d with %v were sent", name, count, k, mean, want.Count, want.Mean())
}

// Verify compares what there is of a corpus with what was sent.
func (v *VictoriaMetrics) Verify(ctx context.Context, c *corpus.Corpus, want map[corpus.Kind]corpus.Sum) error {
	if err := v.Flush(ctx); err != nil {
		return err
	}
	at := c.To().Add(time.Second)
	span := fmt.Sprintf("%ds", int(at.Sub(c.From).Seconds())+1)
	for k, w := range want {
		count, err := v.Value(ctx, fmt.Sprintf("sum(count_over_time(%s[%s]))", k.Stream(), span), at)
		if err != nil {
			return err
		}
		total, err := v.Value(ctx, fmt.Sprintf("sum(sum_over_time(%s[%s]))", k.Stream(), span), at)
		if err != nil {
			return err
		}
		if !w.Close(count, total/count) {
			return differs(v.Name, k, count, total/count, w)
		}
	}
	return nil
}

// Verify compares what there is of a corpus with what was sent; of texts the
// number.
func (i *InfluxDB) Verify(ctx context.Context, c *corpus.Corpus, want map[corpus.Kind]corpus.Sum) error {
	for k, w := range want {
		what := fmt.Sprintf("count(%s), mean(%[1]s)", k)
		if k == corpus.State {
			what = fmt.Sprintf("count(%s)", k)
		}
		row, err := i.Row(ctx, fmt.Sprintf("SELECT %s FROM %s WHERE time >= %dms AND time < %dms", what, corpus.Measurement,
			c.From.UnixMilli()-1000, c.To().UnixMilli()+1000))
		if err != nil {
			return err
		}
		if row = append(row, w.Mean()); !w.Close(row[0], row[1]) {
			return differs(i.Name, k, row[0], row[1], w)
		}
	}
	return nil
}

// Verify compares what there is of a corpus with what was sent.
func (s *PostgreSQL) Verify(ctx context.Context, c *corpus.Corpus, want map[corpus.Kind]corpus.Sum) error {
	for i, k := range c.Kinds {
		row, err := s.Numbers(ctx, `SELECT count(*)::float8, avg(value) FROM reading WHERE series % $1 = $2 AND ts >= $3 AND ts < $4`,
			len(c.Kinds), i, c.From.UnixMilli()-1000, c.To().UnixMilli()+1000)
		if err != nil {
			return err
		}
		if w := want[k]; !w.Close(row[0], row[1]) {
			return differs(s.Name, k, row[0], row[1], w)
		}
	}
	return nil
}
