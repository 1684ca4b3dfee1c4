package main

import (
	"context"
	"errors"

	"github.com/holdfast-iot/holdfast/internal/bench"
	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
)

// diskPeers are those of figure P5.
func diskPeers() []bench.Maker {
	return []bench.Maker{diskOfVictoriaMetrics, diskOfInfluxDB, diskOfPostgreSQL}
}

// keeper is a database with nothing in it, whose disk use is asked.
type keeper struct {
	*Server
	form   corpus.Form
	send   func(ctx context.Context, load *corpus.Load, i int) error
	settle func(ctx context.Context) error
	verify func(ctx context.Context, c *corpus.Corpus, want map[corpus.Kind]corpus.Sum) error
	disk   func(ctx context.Context) (int64, error)
	stop   func() error
}

func diskOfVictoriaMetrics(ctx context.Context, _ *bench.Bench) (*bench.Side, error) {
	return diskSide(ctx, func(ctx context.Context) (*keeper, error) {
		v, err := StartVictoriaMetrics(ctx)
		if err != nil {
			return nil, err
		}
		return &keeper{v.Server, corpus.Numbers, func(ctx context.Context, load *corpus.Load, i int) error { return v.Write(ctx, load.Bodies[i]) },
			v.Settle, v.Verify, func(context.Context) (int64, error) { return v.Disk() }, v.Stop}, nil
	})
}

func diskOfInfluxDB(ctx context.Context, _ *bench.Bench) (*bench.Side, error) {
	return diskSide(ctx, func(ctx context.Context) (*keeper, error) {
		d, err := StartInfluxDB(ctx, true)
		if err != nil {
			return nil, err
		}
		return &keeper{d.Server, corpus.Texts, func(ctx context.Context, load *corpus.Load, i int) error { return d.Write(ctx, load.Bodies[i]) },
			d.Settle, d.Verify, func(context.Context) (int64, error) { return d.Disk() }, d.Stop}, nil
	})
}

func diskOfPostgreSQL(ctx context.Context, _ *bench.Bench) (*bench.Side, error) {
	return diskSide(ctx, func(ctx context.Context) (*keeper, error) {
		d, err := StartPostgreSQL(ctx)
		if err != nil {
			return nil, err
		}
		k := &keeper{d.Server, corpus.Rows, func(ctx context.Context, load *corpus.Load, i int) error { return d.Copy(ctx, load.Rows[i]) },
			d.Settle, d.Verify, d.TableBytes, d.Stop}
		if err := d.CreateReadings(ctx); err != nil {
			return nil, errors.Join(err, d.Stop())
		}
		return k, nil
	})
}

// diskSide makes a side whose every round starts fresh servers.
func diskSide(ctx context.Context, fresh func(context.Context) (*keeper, error)) (*bench.Side, error) {
	first, err := fresh(ctx) // to know whether it is installed
	if err != nil {
		return nil, err
	}
	if err := first.stop(); err != nil {
		return nil, err
	}
	return first.side(func(ctx context.Context, round int) (v bench.Values, err error) {
		v = bench.Values{}
		if err := diskRound(ctx, fresh, bench.MixedCorpus(round), false, "mixed", v); err != nil {
			return nil, err
		}
		return v, diskRound(ctx, fresh, bench.SlowCorpus(round), true, "slow", v)
	}, nil), nil
}

// diskRound fills a fresh server with a corpus and measures what it comes to; with
// growth also without what it takes that there are series at all.
func diskRound(ctx context.Context, fresh func(context.Context) (*keeper, error), c corpus.Corpus, growth bool, key string, v bench.Values) (err error) {
	k, err := fresh(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.stop()) }()
	var before int64
	if growth {
		first := bench.First(c)
		load := first.Load(k.form, first.Devices)
		if err := errors.Join(k.send(ctx, load, 0), k.settle(ctx)); err != nil {
			return err
		}
		if before, err = k.disk(ctx); err != nil {
			return err
		}
	}
	load := c.Load(k.form, bench.LinesPerRequest)
	if _, err := bench.Pour(ctx, bench.LineSenders, len(load.Bodies)+len(load.Rows), func(ctx context.Context, i int) error { return k.send(ctx, load, i) }); err != nil {
		return err
	}
	if err := k.settle(ctx); err != nil {
		return err
	}
	files, err := k.disk(ctx)
	if err != nil {
		return err
	}
	v[key] = float64(files) / float64(load.Points)
	if growth {
		v[key+"_readings"] = float64(files-before) / float64(load.Points)
	}
	all, err := k.Disk()
	if err != nil {
		return err
	}
	v[key+"_all"] = float64(all) / float64(load.Points)
	return k.verify(ctx, &c, load.Sums)
}
