package promapi

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	promstorage "github.com/prometheus/prometheus/storage"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

func drawn(t *testing.T) *rand.Rand {
	t.Helper()
	return rand.New(rand.NewPCG(testseed.Of(t), 5))
}

// plain is Prometheus' own view of some series: every sample, however it is asked.
type plain []*series

func (p plain) Querier(int64, int64) (promstorage.Querier, error) {
	return &plainQuerier{plain: p}, nil
}

type plainQuerier struct {
	querier
	plain plain
}

func (q *plainQuerier) Close() error { return nil }

func (q *plainQuerier) Select(_ context.Context, _ bool, hints *promstorage.SelectHints, ms ...*labels.Matcher) promstorage.SeriesSet {
	var all []promstorage.Series
	for _, s := range q.plain {
		if n := (&entry{labels: s.labels}); n.matches(ms) {
			all = append(all, s)
		}
	}
	return &set{rest: all}
}

// The same readings give the same answers through the hub, rolled up or not, as
// Prometheus' engine gives over all of the samples.
func TestAnswersAreThoseOfPrometheus(t *testing.T) {
	r := drawn(t)
	h := querytest.Build(t)
	e := New(h.Query, h.Custody, Options{Lookback: 40 * time.Minute})
	base := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	var oracle plain
	for n := range 5 {
		d := h.Device(custody.DeviceSpec{Label: fmt.Sprintf("unit-%d", n)})
		for _, name := range []string{"flow", "steps", "open", "sharp"} {
			s := &series{labels: labels.FromStrings(labels.MetricName, name, labelDevice, d.Label, labelOwner, "Acme", labelStream, name)}
			var out []holdfast.Sample
			every := time.Duration(1+r.IntN(600)) * time.Second
			at := base.Add(time.Duration(r.IntN(3600)) * time.Second)
			for at.Before(base.Add(36 * time.Hour)) {
				v := value(r, name)
				f, _ := float(v)
				s.samples = append(s.samples, sample{at.UnixMilli(), f})
				out = append(out, querytest.At(name, at, v))
				at = at.Add(every)
				switch {
				case name == "sharp": // stands on the starts of windows
					at = at.Truncate(time.Minute).Add(time.Minute)
				case name == "open" || r.IntN(3) > 0:
					at = at.Truncate(time.Second).Add(time.Duration(1+r.IntN(998)) * time.Millisecond)
				}
				if r.IntN(200) == 0 {
					at = at.Add(time.Duration(r.IntN(5)) * time.Hour)
				}
			}
			oracle = append(oracle, s)
			for len(out) > 0 {
				k := min(len(out), 1000)
				h.Send(d, out[:k]...)
				out = out[k:]
			}
			if r.IntN(2) == 0 {
				h.Roll()
			}
		}
	}
	// min and max may count a reading that stands on the start of the range: they are
	// asked of a series whose readings don't.
	expressions := []string{
		`flow`, `{__name__=~"flow|steps|sharp"}`, `sum by (device) (sharp)`, `timestamp(sharp)`, `steps offset 2h`, `open == 1`, `absent(flow{device="none"})`, `flow @ 1793500000`,
		`rate(steps[1h])`, `quantile_over_time(0.9, flow[2h])`, `stddev_over_time(sharp[3h])`, `changes(open[4h])`, `deriv(flow[90m])`,
		`sum_over_time(steps[1h])`, `sum_over_time(flow[3h])`, `sum_over_time(sharp[2h])`, `avg_over_time(flow[1h])`, `avg_over_time(sharp[30m])`, `avg_over_time(steps[2h] offset 1h)`,
		`count_over_time(flow[1h])`, `count_over_time(sharp[7h])`, `count_over_time(open[11m])`, `present_over_time(sharp[1h])`, `last_over_time(flow[4h])`, `absent_over_time(flow{device="none"}[1h])`,
		`min_over_time(open[1h])`, `max_over_time(open[5h])`, `topk(2, avg_over_time(flow[1h]))`, `max(avg_over_time(flow[1h])) - min(avg_over_time(flow[1h]))`,
		`avg_over_time(flow[1h:10m])`, `max_over_time(rate(steps[30m])[3h:15m])`, `sum_over_time(flow[1h] @ end())`, `flow + on (device) sharp * 2`, `avg_over_time(steps[2h]) > bool 3`,
	}
	by := asker{who: h.Admin}
	for _, expr := range expressions {
		for range 4 {
			q := question{expr: expr, start: base.Add(time.Duration(r.IntN(20*3600)) * time.Second)}
			q.end = q.start
			switch r.IntN(4) {
			case 0: // at one time
			case 1: // at times that are no multiples of anything
				q.step = time.Duration(1+r.IntN(7200)) * time.Second
			default:
				q.step = []time.Duration{time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour}[r.IntN(5)]
				q.start = q.start.Truncate(q.step)
			}
			if q.step > 0 {
				q.end = q.start.Add(time.Duration(r.IntN(50)) * q.step)
			}
			want := e.overSamples(t, oracle, q)
			a, err := e.ask(t.Context(), by, q)
			if err != nil {
				t.Fatalf("%+v: %v", q, err)
			}
			if diff := unlike(a.value, want); diff != "" {
				t.Errorf("%s from %s to %s every %s: %s", expr, q.start.Format(time.RFC3339), q.end.Format(time.RFC3339), q.step, diff)
			}
			a.release()
		}
	}
}

func value(r *rand.Rand, name string) holdfast.Value {
	switch name {
	case "steps":
		return holdfast.IntegerValue(int64(r.IntN(50)))
	case "open":
		return holdfast.BooleanValue(r.IntN(2) == 0)
	}
	return holdfast.NumberValue(math.Round(r.NormFloat64()*1000) / 100)
}

// overSamples asks Prometheus' engine over every sample.
func (e *Engine) overSamples(t *testing.T, p plain, q question) parser.Value {
	t.Helper()
	run, err := e.engine.NewInstantQuery(t.Context(), p, nil, q.expr, q.start)
	if q.step > 0 {
		run, err = e.engine.NewRangeQuery(t.Context(), p, nil, q.expr, q.start, q.end, q.step)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	result := run.Exec(t.Context())
	if result.Err != nil {
		t.Fatalf("%s: %v", q.expr, result.Err)
	}
	return copied(result.Value)
}

// unlike says where two values differ by more than the last bits of a sum.
func unlike(got, want parser.Value) string {
	type point struct {
		labels string
		t      int64
	}
	flat := func(v parser.Value) map[point]float64 {
		all := map[point]float64{}
		switch v := v.(type) {
		case promql.Vector:
			for _, s := range v {
				all[point{s.Metric.String(), s.T}] = s.F
			}
		case promql.Matrix:
			for _, s := range v {
				for _, p := range s.Floats {
					all[point{s.Metric.String(), p.T}] = p.F
				}
			}
		case promql.Scalar:
			all[point{"", v.T}] = v.V
		}
		return all
	}
	g, w := flat(got), flat(want)
	for p, f := range w {
		have, ok := g[p]
		if !ok {
			return fmt.Sprintf("%s at %d is missing, want %v (%d points, want %d)", p.labels, p.t, f, len(g), len(w))
		}
		if math.Abs(have-f) > 1e-9*max(1, math.Abs(f)) || math.IsNaN(have) != math.IsNaN(f) {
			return fmt.Sprintf("%s at %d is %v, want %v", p.labels, p.t, have, f)
		}
	}
	if len(g) != len(w) {
		return fmt.Sprintf("%d points, want %d", len(g), len(w))
	}
	return ""
}
