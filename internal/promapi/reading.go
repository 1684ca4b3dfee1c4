package promapi

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// sample is a value at a millisecond.
type sample struct {
	t int64
	f float64
}

// window is what was said of some readings.
type window struct {
	start, first, last    int64 // ms
	count                 uint64
	sum, least, most      float64
	firstValue, lastValue float64
}

const windowBytes = 80

// stream is what was read of one.
type stream struct {
	samples []sample // readings, or means of the windows that a grant gives out in place of them
	windows []window
}

// reading is what one selector reads: of each stream readings, or windows.
type reading struct {
	*storage
	start, end int64 // ms, both included
	window     time.Duration
	of         map[holdfast.StreamID]*stream
	left       int64 // bytes that were borrowed and not used yet
}

// read reads all streams of some series: those that are read alike together, so that
// they stand on one disclosure of each owner.
func (r *reading) read(ctx context.Context, some []*entry) error {
	alike := map[time.Duration]map[holdfast.StreamID]bool{}
	for _, n := range some {
		for _, s := range n.streams {
			if alike[s.Every] == nil {
				alike[s.Every] = map[holdfast.StreamID]bool{}
			}
			alike[s.Every][s.StreamID] = true
			r.of[s.StreamID] = &stream{}
		}
	}
	for every, only := range alike {
		var err error
		switch {
		case every > 0:
			err = r.means(ctx, only, every)
		case r.window > 0:
			err = r.windows(ctx, only)
		default:
			err = r.readings(ctx, only)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// rows gives the rows of a request, each with the stream it is of.
func (r *reading) rows(ctx context.Context, only map[holdfast.StreamID]bool, req query.Request, size int64, take func(*stream, *query.Row) bool) error {
	result, err := r.storage.read(ctx, only, req)
	if err != nil {
		return err
	}
	defer result.Close()
	var source *query.Source
	var to *stream
	for row, err := range result.Rows {
		if err != nil {
			return err
		}
		if row.Source != source {
			source, to = row.Source, r.of[row.StreamID]
		}
		if to == nil || !take(to, &row) {
			continue
		}
		if r.left -= size; r.left < 0 {
			const page = 256 << 10
			if err := r.loan.Grow(page); err != nil {
				return err
			}
			r.left += page
		}
	}
	return nil
}

func (r *reading) readings(ctx context.Context, only map[holdfast.StreamID]bool) error {
	return r.rows(ctx, only, query.Request{Span: spanOf(r.start, r.end)}, pointBytes, func(s *stream, row *query.Row) bool {
		f, ok := float(row.Value)
		return ok && s.add(sample{milliOf(row.Time), f})
	})
}

// add appends a sample; of those of one millisecond the last stays.
func (s *stream) add(p sample) bool {
	if n := len(s.samples); n > 0 && s.samples[n-1].t == p.t {
		s.samples[n-1] = p
		return false
	}
	s.samples = append(s.samples, p)
	return true
}

// means reads what a grant lets out as windows only: the mean of each, at its end.
func (r *reading) means(ctx context.Context, only map[holdfast.StreamID]bool, every time.Duration) error {
	span := spanOf(r.start, r.end)
	span.From = max(span.From, math.MinInt64+int64(every)) - int64(every)
	req := query.Request{Span: span, Every: every, Aggregates: []query.Aggregate{query.Mean}}
	return r.rows(ctx, only, req, pointBytes, func(s *stream, row *query.Row) bool {
		v, ok := row.Window.Value(query.Mean)
		f, isNumber := float(v)
		at := milliOf(row.Window.End)
		return ok && isNumber && at >= r.start && at <= r.end && s.add(sample{at, f})
	})
}

func (r *reading) windows(ctx context.Context, only map[holdfast.StreamID]bool) error {
	req := query.Request{
		Span: spanOf(r.start, r.end), Every: r.window,
		Aggregates: []query.Aggregate{query.Sum, query.Min, query.Max, query.First, query.Last},
	}
	return r.rows(ctx, only, req, windowBytes, func(s *stream, row *query.Row) bool {
		w := window{start: milliOf(row.Window.Start), count: row.Window.Count}
		first, last := row.Window.Ends()
		w.first, w.last = milliOf(first), milliOf(last)
		for i, to := range []*float64{&w.sum, &w.least, &w.most, &w.firstValue, &w.lastValue} {
			if v, ok := row.Window.Value(req.Aggregates[i]); ok {
				*to, _ = float(v)
			}
		}
		s.windows = append(s.windows, w)
		return true
	})
}

// float is a value as PromQL knows values. Every NaN is the usual one: some others mean
// to the engine that a series has ended.
func float(v holdfast.Value) (float64, bool) {
	switch v.Type() {
	case holdfast.Number:
		if math.IsNaN(v.Number()) {
			return math.NaN(), true
		}
		return v.Number(), true
	case holdfast.Integer:
		return float64(v.Integer()), true
	case holdfast.Boolean:
		if v.Boolean() {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

// samples is what was read of a series, in the form that was asked for.
func (r *reading) samples(n *entry, f form) []sample {
	var all []sample
	for _, s := range n.streams {
		of := r.of[s.StreamID]
		switch {
		case f == number && s.Every > 0:
			for _, p := range of.samples {
				all = append(all, sample{p.t, 1})
			}
		case len(n.streams) == 1 && of.windows == nil:
			return of.samples
		default:
			all = append(all, of.samples...)
			for i := range of.windows {
				all = of.windows[i].samples(all, f)
			}
		}
	}
	if len(n.streams) == 1 {
		return all
	}
	slices.SortStableFunc(all, func(a, b sample) int { return int(max(-1, min(1, a.t-b.t))) })
	return together(all, f)
}

// together puts those of one millisecond into one.
func together(all []sample, f form) []sample {
	out := all[:0]
	for _, p := range all {
		n := len(out) - 1
		switch {
		case n < 0 || out[n].t != p.t:
			out = append(out, p)
		case f == sum || f == number:
			out[n].f += p.f
		case f == least:
			out[n].f = min(out[n].f, p.f)
		case f == most:
			out[n].f = max(out[n].f, p.f)
		default:
			out[n] = p
		}
	}
	return out
}

// samples appends what a form says of a window. Where the first reading stands on the
// start of the window it is apart from the others: see form.
func (w *window) samples(all []sample, f form) []sample {
	switch f {
	case latest:
		return append(all, sample{w.last, w.lastValue})
	case points:
		if w.first < w.last {
			all = append(all, sample{w.first, w.firstValue})
		}
		return append(all, sample{w.last, w.lastValue})
	}
	whole := map[form]float64{sum: w.sum, number: float64(w.count), least: w.least, most: w.most}[f]
	if w.first != w.start || w.first == w.last {
		return append(all, sample{w.last, whole})
	}
	switch f {
	case sum:
		return append(all, sample{w.first, w.firstValue}, sample{w.last, w.sum - w.firstValue})
	case number:
		return append(all, sample{w.first, 1}, sample{w.last, float64(w.count - 1)})
	}
	return append(all, sample{w.first, w.firstValue}, sample{w.last, whole})
}
