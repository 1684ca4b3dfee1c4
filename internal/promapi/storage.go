package promapi

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// storage is what one question reads from. The engine opens it once, and reads the
// selectors of its expression one after the other.
type storage struct {
	engine *Engine
	by     asker
	loan   *query.Loan
	reads  map[string]*reading // by what is read: the sums and the counts of a mean are of one read

	mu      sync.Mutex
	results []*query.Result
	looked  time.Time // when the rights to the results were last looked at
}

// Querier implements promstorage.Queryable.
func (s *storage) Querier(mint, maxt int64) (promstorage.Querier, error) {
	return &querier{storage: s, span: spanOf(mint, maxt)}, nil
}

// querier reads within the times of one question.
type querier struct {
	*storage
	span    holdfast.Span
	entries []*entry // all that may be read, once it was asked for
}

func (q *querier) Close() error { return nil }

// LabelValues and LabelNames are asked by no expression that the engine takes.
func (q *querier) LabelValues(context.Context, string, *promstorage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, holdfast.Errorf(holdfast.Invalid, "labels are not asked for in an expression")
}

func (q *querier) LabelNames(context.Context, *promstorage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, holdfast.Errorf(holdfast.Invalid, "labels are not asked for in an expression")
}

// Select implements promstorage.Querier. Nothing is read before the series are asked for.
func (q *querier) Select(ctx context.Context, _ bool, hints *promstorage.SelectHints, matchers ...*labels.Matcher) promstorage.SeriesSet {
	start, end := milliOf(q.span.From), milliOf(q.span.To)
	if hints != nil {
		start, end = hints.Start, hints.End
	}
	return &set{load: func() ([]promstorage.Series, error) { return q.load(ctx, start, end, matchers) }}
}

// load reads one selector.
func (q *querier) load(ctx context.Context, start, end int64, matchers []*labels.Matcher) ([]promstorage.Series, error) {
	wanted, f, window := unmarked(matchers)
	if q.entries == nil {
		var err error
		if q.entries, err = q.engine.catalogue(ctx, q.by, q.span); err != nil {
			return nil, err
		}
	}
	var some []*entry
	key := fmt.Sprint(start, end, window)
	for i, n := range q.entries {
		if n.matches(wanted) {
			some = append(some, n)
			key += fmt.Sprint(" ", i)
		}
	}
	r := q.reads[key]
	if r == nil {
		r = &reading{storage: q.storage, start: start, end: end, window: window, of: map[holdfast.StreamID]*stream{}}
		if err := r.read(ctx, some); err != nil {
			return nil, err
		}
		q.reads[key] = r
	}
	var out []promstorage.Series
	for _, n := range some {
		if samples := r.samples(n, f); len(samples) > 0 {
			out = append(out, &series{n.labels, samples})
		}
	}
	return out, nil
}

// read asks query and keeps what is looked at again before anything is given out.
func (s *storage) read(ctx context.Context, only map[holdfast.StreamID]bool, req query.Request) (*query.Result, error) {
	req.Who, req.Purpose, req.Grant = s.by.who, s.by.purpose, s.by.grant
	req.All, req.Only = true, only
	result, err := s.engine.query.Read(ctx, req)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results = append(s.results, result)
	return result, nil
}

// watch looks at the rights while an expression is worked out, and cancels it when one
// has ended. It looks on until the function that it returns was called.
func (s *storage) watch(ctx context.Context, cancel context.CancelCauseFunc) (end func()) {
	s.looked = time.Now()
	ctx, stop := context.WithCancel(ctx)
	var looking sync.WaitGroup
	looking.Go(func() {
		tick := time.NewTicker(s.engine.Recheck)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := s.look(ctx); err != nil && ctx.Err() == nil {
					cancel(err)
					return
				}
			}
		}
	})
	return func() { stop(); looking.Wait() }
}

// still is look where the last look is old.
func (s *storage) still(ctx context.Context) error {
	s.mu.Lock()
	fresh := time.Since(s.looked) < s.engine.Recheck
	s.mu.Unlock()
	if fresh {
		return nil
	}
	return s.look(ctx)
}

// look fails when a right that a read rests on has ended, or what was read is erased.
func (s *storage) look(ctx context.Context) error {
	s.mu.Lock()
	results := slices.Clone(s.results)
	s.looked = time.Now()
	s.mu.Unlock()
	if s.by.live != nil {
		if err := s.by.live(); err != nil {
			return err
		}
	}
	for _, r := range results {
		if err := r.Unerased(); err != nil {
			return err
		}
		if err := r.Still(ctx); err != nil {
			return err
		}
	}
	return nil
}
