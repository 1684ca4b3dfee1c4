// Package promapi answers the Prometheus query API, so that Grafana and whatever else
// asks in PromQL works with a hub as it is.
//
// The language is Prometheus' own engine. What it reads comes through query: the
// streams that its reader may read for his purpose are the series, each read opens a
// disclosure, obligations hold, and what is taken back while an expression is worked
// out ends it. Of a stream that a reader may not read there is no name, no label and no
// error.
//
// A series is a stream of numbers, integers or booleans: names.go says what it is
// called. Where a question looks at long windows or in long steps, what is stored of
// minutes is read in place of readings: rollup.go says when, and what is the same.
//
// It keeps nothing, decides nothing and authenticates nobody. docs/prometheus.md is its
// page for users.
package promapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// Parties knows what parties are called: package custody.
type Parties interface {
	Party(ctx context.Context, id holdfast.PartyID) (custody.Party, error)
}

// Options tunes an Engine; the zero value works.
type Options struct {
	// Lookback is how long a reading is the present value of its stream; default 1 h.
	Lookback time.Duration
	// Timeout is how long an expression may take; default 2 min.
	Timeout time.Duration
	// Concurrent is how many expressions are worked out at a time; default 4, or the
	// processors if these are more. One credential has at most half of them; others of
	// his wait.
	Concurrent int
	// Recheck is how often the right to what was read is looked at; default 1 s.
	Recheck time.Duration
	Now     func() time.Time // default time.Now
	Version string           // of this program
}

// Engine works out expressions. It is safe for concurrent use.
type Engine struct {
	query   *query.Query
	parties Parties
	engine  *promql.Engine
	gate    *gate
	own     int64 // what of a query's memory is the language's
	Options
}

// pointBytes is what a sample takes.
const pointBytes = 16

// New makes an Engine that reads through q.
func New(q *query.Query, parties Parties, o Options) *Engine {
	o.Lookback = cmp.Or(o.Lookback, time.Hour)
	o.Timeout = cmp.Or(o.Timeout, 2*time.Minute)
	o.Recheck = cmp.Or(o.Recheck, time.Second)
	o.Concurrent = cmp.Or(o.Concurrent, max(4, runtime.GOMAXPROCS(0)))
	if o.Now == nil {
		o.Now = time.Now
	}
	own := q.Borrow().Most() / 2
	return &Engine{
		query: q, parties: parties, gate: newGate(o.Concurrent), own: own, Options: o,
		engine: promql.NewEngine(promql.EngineOpts{
			MaxSamples: int(own / pointBytes), Timeout: o.Timeout, LookbackDelta: o.Lookback,
			EnableAtModifier: true, EnableNegativeOffset: true,
			NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		}),
	}
}

// asker is who asks, and for what.
type asker struct {
	who     access.Principal
	purpose holdfast.Purpose
	grant   holdfast.GrantID
	live    func() error // that his credential is; nil: it is not looked at
}

// question is one expression at a time, or at the times from start to end.
type question struct {
	expr       string
	start, end time.Time
	step       time.Duration // 0: at start alone
	lookback   time.Duration // 0: the engine's
}

// answer is what came of it.
type answer struct {
	value    parser.Value
	warnings annotations.Annotations
	still    func(context.Context) error // fails once what it is made of may not be given out any more
	release  func()                      // gives its memory back
}

// ask works a question out.
func (e *Engine) ask(ctx context.Context, by asker, q question) (a *answer, err error) {
	if by.purpose, err = query.PurposeOf(by.who, by.purpose); err != nil {
		return nil, err
	}
	if _, err := parse(q.expr); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timed, stop := context.WithTimeout(ctx, e.Timeout)
	defer stop()
	leave, err := e.gate.enter(timed, by.who.Credential)
	if err != nil {
		return nil, err
	}
	defer leave()
	s := &storage{engine: e, by: by, loan: e.query.Borrow(), reads: map[string]*reading{}}
	defer func() {
		if err != nil {
			s.loan.Release()
		}
	}()
	if err := s.loan.Grow(e.own); err != nil {
		return nil, err
	}
	opts := promql.NewPrometheusQueryOpts(false, q.lookback)
	var run promql.Query
	if q.step > 0 {
		run, err = e.engine.NewRangeQuery(timed, s, opts, q.expr, q.start, q.end, q.step)
	} else {
		run, err = e.engine.NewInstantQuery(timed, s, opts, q.expr, q.start)
	}
	if err != nil {
		return nil, badExpression(err)
	}
	defer run.Close()
	stmt, ok := run.Statement().(*parser.EvalStmt)
	if !ok {
		return nil, fmt.Errorf("prepare expression: a %T is no expression", run.Statement())
	}
	if err := checkMarks(stmt.Expr); err != nil {
		return nil, err
	}
	stmt.Expr = planOf(stmt).rewrite(stmt.Expr)
	ended := s.watch(timed, cancel)
	result := run.Exec(timed)
	ended()
	if fault := context.Cause(ctx); fault != nil {
		return nil, fault
	}
	if result.Err != nil {
		return nil, exprError(result.Err)
	}
	// The engine takes its memory back for the next: what is given out is a copy.
	return &answer{value: copied(result.Value), warnings: result.Warnings, still: s.still, release: s.loan.Release}, s.still(timed)
}

// copied is a value that outlives the query it is of.
func copied(v parser.Value) parser.Value {
	m, ok := v.(promql.Matrix)
	if !ok {
		return v
	}
	out := make(promql.Matrix, len(m))
	for i, s := range m {
		out[i] = promql.Series{Metric: s.Metric, Floats: append([]promql.FPoint(nil), s.Floats...), Histograms: s.Histograms}
	}
	return out
}

// badExpression is what is wrong with an expression. It is told to who wrote it.
func badExpression(err error) error {
	if _, ours := errors.AsType[*holdfast.Error](err); ours || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &fault{kind: badData, text: err.Error()}
}

// exprError is what went wrong while an expression was worked out.
func exprError(err error) error {
	if e, ours := errors.AsType[*holdfast.Error](err); ours {
		return e
	}
	var late promql.ErrQueryTimeout
	var gone promql.ErrQueryCanceled
	var many promql.ErrTooManySamples
	switch {
	case errors.As(err, &late), errors.Is(err, context.DeadlineExceeded):
		return &fault{kind: timedOut, text: "the expression took too long: ask for a shorter time, longer steps or fewer series"}
	case errors.As(err, &gone), errors.Is(err, context.Canceled):
		return &fault{kind: canceled, text: "the question was given up"}
	case errors.As(err, &many):
		return holdfast.Errorf(holdfast.TooLarge, "the expression needs more memory than one may have (--query-memory): ask for a shorter time, longer steps or fewer series")
	}
	return &fault{kind: execution, text: err.Error()}
}

// Sample is one value of an expression.
type Sample struct {
	Labels map[string]string
	Time   time.Time
	Value  float64
}

// Check says what is wrong with an expression; its value is numbers.
func (e *Engine) Check(expr string) error {
	parsed, err := parse(expr)
	if _, ours := errors.AsType[*holdfast.Error](err); ours {
		return err
	}
	if err != nil {
		return holdfast.Errorf(holdfast.Invalid, "the expression can't be read: %w", err)
	}
	if t := parsed.Type(); t != parser.ValueTypeVector && t != parser.ValueTypeScalar {
		return holdfast.Errorf(holdfast.Invalid, "the expression is a %s: it must be an instant vector or a scalar", parser.DocumentedType(t))
	}
	return nil
}

// Evaluate works an expression out at a time, for a reader and a purpose, as the API
// does. A scalar is one Sample without labels.
func (e *Engine) Evaluate(ctx context.Context, who access.Principal, p holdfast.Purpose, expr string, at time.Time) ([]Sample, error) {
	if err := e.Check(expr); err != nil {
		return nil, err
	}
	a, err := e.ask(ctx, asker{who: who, purpose: p}, question{expr: expr, start: at, end: at})
	if err != nil {
		if f, ok := errors.AsType[*fault](err); ok {
			err = f.asError()
		}
		return nil, err
	}
	defer a.release()
	switch v := a.value.(type) {
	case promql.Scalar:
		return []Sample{{Time: time.UnixMilli(v.T), Value: v.V}}, nil
	case promql.Vector:
		out := make([]Sample, len(v))
		for i, s := range v {
			out[i] = Sample{Labels: s.Metric.Map(), Time: time.UnixMilli(s.T), Value: s.F}
		}
		return out, nil
	}
	return nil, fmt.Errorf("work out expression: a %s is no answer", a.value.Type())
}
