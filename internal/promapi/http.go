package promapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
)

// prometheusVersion is of the engine: clients derive from it what they may ask.
const prometheusVersion = "3.5.0"

// MaxPoints is how many points a series of an answer has at most, as in Prometheus.
const maxPoints = 11_000

// call is one request: what it says, who asks, and what is to be said beside the answer.
type call struct {
	params
	by       asker
	warnings []string
	infos    []string
	value    *answer // of an expression
}

type handler func(e *Engine, ctx context.Context, c *call) (data any, err error)

// handlers are by path.
func handlers() map[string]handler {
	return map[string]handler{
		"/api/v1/query":               (*Engine).instant,
		"/api/v1/query_range":         (*Engine).ranged,
		"/api/v1/labels":              (*Engine).labelNames,
		"/api/v1/label/{name}/values": (*Engine).labelValues,
		"/api/v1/series":              (*Engine).listSeries,
		"/api/v1/metadata":            (*Engine).metadata,
		"/api/v1/format_query":        (*Engine).format,
		"/api/v1/status/buildinfo":    (*Engine).buildInfo,
		"/api/v1/query_exemplars":     func(*Engine, context.Context, *call) (any, error) { return []string{}, nil },
		"/api/v1/rules":               func(*Engine, context.Context, *call) (any, error) { return map[string][]string{"groups": {}}, nil },
		"/api/v1/alerts":              func(*Engine, context.Context, *call) (any, error) { return map[string][]string{"alerts": {}}, nil },
	}
}

// posted are those that may be asked with a form: an expression can be longer than an
// address.
var posted = []string{"/api/v1/query", "/api/v1/query_range", "/api/v1/labels", "/api/v1/series", "/api/v1/format_query", "/api/v1/query_exemplars"}

// Routes returns the patterns that Answer answers.
func (e *Engine) Routes() (all []string) {
	for _, path := range slices.Sorted(maps.Keys(handlers())) {
		all = append(all, "GET "+path)
		if slices.Contains(posted, path) {
			all = append(all, "POST "+path)
		}
	}
	return all
}

// maxForm bounds a posted form.
const maxForm = 256 << 10

// Answer answers a request of one of the Routes. still, if it is not nil, fails once
// the answer may not be given out any more; done gives its memory back.
func (e *Engine) Answer(w http.ResponseWriter, r *http.Request, pattern string, who access.Principal, live func() error) (status int, body []byte, still func(context.Context) error, done func(), fault error) {
	c := &call{params: params{r: r}, by: asker{who: who, live: live}}
	done = func() {
		if c.value != nil {
			c.value.release()
		}
	}
	data, err := e.handle(r.Context(), w, c, pattern)
	var text []byte
	if err == nil {
		text, err = c.encode(data)
	}
	out := envelope{Status: "success", Data: text, Warnings: c.warnings, Infos: c.infos}
	status = http.StatusOK
	if err != nil {
		out = envelope{Status: "error"}
		status, out.ErrorType, out.Error = statusOf(err)
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "5")
		}
		if status == http.StatusInternalServerError {
			fault = err
		}
	} else if c.value != nil {
		still = c.value.still
	}
	body, err = json.Marshal(out)
	if err != nil {
		return http.StatusInternalServerError, nil, nil, done, fmt.Errorf("write answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	return status, zipped(r, w.Header(), body), still, done, fault
}

func (e *Engine) handle(ctx context.Context, w http.ResponseWriter, c *call, pattern string) (any, error) {
	_, path, _ := strings.Cut(pattern, " ")
	h := handlers()[path]
	if h == nil || c.r.Method == http.MethodHead { // what nobody gets must not be on record as given
		return nil, &fault{badData, "this is asked with GET or POST"}
	}
	c.r.Body = http.MaxBytesReader(w, c.r.Body, maxForm)
	if err := c.r.ParseForm(); err != nil {
		if _, long := errors.AsType[*http.MaxBytesError](err); long {
			return nil, holdfast.Errorf(holdfast.TooLarge, "the form is longer than %d bytes", maxForm)
		}
		return nil, &fault{badData, "the form can't be read"}
	}
	c.by = c.asker(c.by)
	if c.err != nil {
		return nil, c.err
	}
	return h(e, ctx, c)
}

func (c *call) encode(data any) ([]byte, error) {
	if c.value == nil {
		return json.Marshal(data)
	}
	return appendValue(nil, c.value.value)
}

// work works a question out for a call.
func (e *Engine) work(ctx context.Context, c *call, q question) (_ any, err error) {
	q.lookback = c.duration("lookback_delta")
	limit := c.limit("limit")
	if d := c.duration("timeout"); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	if c.err != nil {
		return nil, c.err
	}
	if c.value, err = e.ask(ctx, c.by, q); err != nil {
		c.value = nil
		return nil, err
	}
	c.warnings, c.infos = c.value.warnings.AsStrings(q.expr, 10, 10)
	c.value.value = c.cut(c.value.value, limit)
	return nil, nil
}

func (e *Engine) instant(ctx context.Context, c *call) (any, error) {
	at := c.time("time", e.Now())
	return e.work(ctx, c, question{expr: c.r.Form.Get("query"), start: at, end: at})
}

func (e *Engine) ranged(ctx context.Context, c *call) (any, error) {
	for _, name := range []string{"start", "end", "step"} {
		if c.r.Form.Get(name) == "" {
			c.bad(name, "it is needed")
		}
	}
	q := question{expr: c.r.Form.Get("query"), start: c.time("start", time.Time{}), end: c.time("end", time.Time{}), step: c.duration("step")}
	switch {
	case c.err != nil:
	case q.end.Before(q.start):
		c.bad("end", "end timestamp must not be before start time")
	case q.step < time.Millisecond:
		c.bad("step", "zero or negative query resolution step widths are not accepted. Try a positive integer")
	case q.end.Sub(q.start)/q.step > maxPoints:
		c.err = &fault{badData, "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"}
	}
	return e.work(ctx, c, q)
}

// list returns the series that a call is about.
func (e *Engine) list(ctx context.Context, c *call) ([]*entry, error) {
	selectors, span := c.selectors(), c.span()
	if c.err != nil {
		return nil, c.err
	}
	all, err := e.catalogue(ctx, c.by, span)
	return slices.DeleteFunc(all, func(n *entry) bool { return !n.matchesAny(selectors) }), err
}

func (e *Engine) labelNames(ctx context.Context, c *call) (any, error) {
	names := []string{}
	all, err := e.list(ctx, c)
	if len(all) > 0 { // every series has all of them
		all[0].labels.Range(func(l labels.Label) { names = append(names, l.Name) })
	}
	slices.Sort(names)
	return limited(c, names), cmpErr(err, c)
}

func (e *Engine) labelValues(ctx context.Context, c *call) (any, error) {
	name, values := c.r.PathValue("name"), []string{}
	all, err := e.list(ctx, c)
	for _, n := range all {
		if v := n.labels.Get(name); v != "" {
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return limited(c, slices.Compact(values)), cmpErr(err, c)
}

func (e *Engine) listSeries(ctx context.Context, c *call) (any, error) {
	if len(c.r.Form["match[]"]) == 0 {
		return nil, &fault{badData, "no match[] parameter provided"}
	}
	found := []labels.Labels{}
	all, err := e.list(ctx, c)
	for _, n := range all {
		found = append(found, n.labels)
	}
	return limited(c, found), cmpErr(err, c)
}

// limited is as much of a list as was asked for.
func limited[T any](c *call, all []T) []T {
	if n := c.limit("limit"); n > 0 && len(all) > n {
		c.warnings = append(c.warnings, "results truncated due to limit")
		return all[:n]
	}
	return all
}

// cmpErr is err, or what is wrong with the call.
func cmpErr(err error, c *call) error {
	if err == nil {
		return c.err
	}
	return err
}

// description is what Prometheus knows of a metric beside its series.
type description struct {
	Type string `json:"type"`
	Help string `json:"help"`
	Unit string `json:"unit"`
}

func (e *Engine) metadata(ctx context.Context, c *call) (any, error) {
	limit, metric := c.limit("limit"), c.r.Form.Get("metric")
	all, err := e.list(ctx, c)
	out := map[string][]description{}
	for _, n := range all {
		name := n.labels.Get(labels.MetricName)
		if metric != "" && name != metric || limit > 0 && len(out) == limit && out[name] == nil {
			continue
		}
		d := description{Type: "gauge", Help: "Readings of the stream " + n.labels.Get(labelStream) + ".", Unit: n.unit}
		if !slices.Contains(out[name], d) {
			out[name] = append(out[name], d)
		}
	}
	return out, cmpErr(err, c)
}

func (e *Engine) format(_ context.Context, c *call) (any, error) {
	expr, err := parse(c.r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	return expr.Pretty(0), nil
}

func (e *Engine) buildInfo(context.Context, *call) (any, error) {
	return map[string]string{
		"version": prometheusVersion, "revision": "holdfast " + e.Version, "branch": "", "buildUser": "", "buildDate": "", "goVersion": runtime.Version(),
	}, nil
}

// cut keeps of an answer as many series as were asked for.
func (c *call) cut(v parser.Value, limit int) parser.Value {
	if limit <= 0 {
		return v
	}
	switch all := v.(type) {
	case promql.Vector:
		return promql.Vector(limited(c, all))
	case promql.Matrix:
		return promql.Matrix(limited(c, all))
	}
	return v
}
