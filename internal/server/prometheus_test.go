package server

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	promclient "github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// queried is a hub that is asked in PromQL: Anna's and Ben's bands, and an institute
// to which Anna has granted hers, in windows.
type queried struct {
	*estate
	anna, ben, program *reader
	now                time.Time
}

func newQueried(t *testing.T) *queried {
	h := newHouse(t)
	q := &queried{estate: &estate{house: h, targets: map[string]*target{}}, now: time.Now().Truncate(time.Minute)}
	if _, err := h.grants.AddPurpose(t.Context(), h.admin().Credential, grant.Purpose{
		Name: "study", IRI: "https://w3id.org/dpv#AcademicResearch", LegalBasis: "consent", Text: "To study."}); err != nil {
		t.Fatal(err)
	}
	anna, ben, institute := q.party("Anna", custody.Person), q.party("Ben", custody.Person), q.party("Institute", custody.Organisation)
	q.targets["anna"] = &target{slug: "anna", party: anna.Party, device: h.enrolled(anna.Party, "band")}
	bens := h.enrolled(ben.Party, "band")
	for i := range 180 {
		at := q.now.Add(time.Duration(i-180) * time.Minute)
		sample := func(stream, unit string, v float64) holdfast.Sample {
			s := number(stream, at.Add(time.Second), v)
			s.Unit = unit
			return s
		}
		h.mustSend(q.targets["anna"].device.Peer, sample("temperature", "Cel", 30+float64(i)/64), sample("skin/flow", "", 7))
		h.mustSend(bens.Peer, sample("temperature", "Cel", 41), sample("pulse", "beat/min", 60))
	}
	q.at, _ = h.serve()
	q.anna = q.reader("Anna", anna, access.Spec{Role: access.Owner}, nothing)
	q.ben = q.reader("Ben", ben, access.Spec{Role: access.Owner}, nothing)
	q.program = q.reader("its program", institute, access.Spec{Role: access.Program, Purposes: []holdfast.Purpose{"study"}}, nothing)
	return q
}

// as asks with Prometheus' own client for Go.
func (q *queried) as(r *reader) promv1.API {
	q.t.Helper()
	c, err := promclient.NewClient(promclient.Config{Address: q.at.API, Client: r.web, RoundTripper: nil})
	if err != nil {
		q.t.Fatal(err)
	}
	return promv1.NewAPI(&bearer{c, r.token})
}

type bearer struct {
	promclient.Client
	token string
}

func (b *bearer) Do(ctx context.Context, r *http.Request) (*http.Response, []byte, error) {
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.Client.Do(ctx, r)
}

// Prometheus' client finds a hub to be a Prometheus; what its reader may not read is
// not there.
func TestPrometheusClientReads(t *testing.T) {
	q := newQueried(t)
	ctx := t.Context()
	api := q.as(q.anna)
	v, warnings, _, err := api.Query(ctx, `1+1`, q.now)
	if err != nil || len(warnings) > 0 || v.String() != "scalar: 2 @["+model.TimeFromUnixNano(q.now.UnixNano()).String()+"]" {
		t.Errorf("1+1: %v %v %v", v, warnings, err)
	}
	v, _, _, err = api.Query(ctx, `temperature_celsius`, q.now)
	if err != nil {
		t.Fatal(err)
	}
	own := v.(model.Vector)
	if len(own) != 1 || own[0].Value != 30+179./64 || own[0].Metric["device"] != "band" || own[0].Metric["owner"] != "Anna" || own[0].Metric["stream"] != "temperature" {
		t.Fatalf("Anna's temperature is %v", own)
	}
	v, _, _, err = api.QueryRange(ctx, `avg_over_time(temperature_celsius[10m])`, promv1.Range{Start: q.now.Add(-2 * time.Hour), End: q.now, Step: 10 * time.Minute})
	if m, ok := v.(model.Matrix); err != nil || !ok || len(m) != 1 || len(m[0].Values) != 13 {
		t.Errorf("two hours by ten minutes: %v %v", v, err)
	}
	names, _, _, err := api.LabelValues(ctx, "__name__", nil, q.now.Add(-time.Hour), q.now)
	if err != nil || len(names) != 2 || names[0] != "skin_flow" || names[1] != "temperature_celsius" {
		t.Errorf("Anna's metrics are %v %v", names, err)
	}
	labels, _, _, err := api.LabelNames(ctx, []string{`skin_flow`}, time.Unix(0, 0), time.Now())
	if err != nil || !slices.Equal(labels, model.LabelNames{"__name__", "device", "owner", "stream"}) {
		t.Errorf("labels are %v %v", labels, err)
	}
	series, _, _, err := q.as(q.ben).Series(ctx, []string{`{device="band"}`}, time.Time{}, time.Now())
	if err != nil || len(series) != 2 || series[0]["owner"] != "Ben" {
		t.Errorf("Ben's series are %v %v", series, err)
	}
	meta, err := api.Metadata(ctx, "", "")
	if err != nil || meta["temperature_celsius"][0].Unit != "celsius" || len(meta) != 2 {
		t.Errorf("metadata is %v %v", meta, err)
	}
	if info, err := api.Buildinfo(ctx); err != nil || info.Version != "3.5.0" {
		t.Errorf("build: %v %v", info, err)
	}
	rules, err1 := api.Rules(ctx, nil)
	alerts, err2 := api.Alerts(ctx)
	exemplars, err3 := api.QueryExemplars(ctx, `skin_flow`, q.now, q.now)
	if err1 != nil || err2 != nil || err3 != nil || len(rules.Groups)+len(alerts.Alerts)+len(exemplars) > 0 {
		t.Error(rules, alerts, exemplars, err1, err2, err3)
	}
	_, _, _, err = api.Query(ctx, `rate(`, q.now)
	if e, ok := err.(*promv1.Error); !ok || e.Type != promv1.ErrBadData {
		t.Errorf("half an expression: %v", err)
	}
	_, _, _, err = api.QueryRange(ctx, `skin_flow`, promv1.Range{Start: q.now.Add(-24 * time.Hour), End: q.now, Step: time.Second})
	if e, ok := err.(*promv1.Error); !ok || e.Type != promv1.ErrBadData || !strings.Contains(e.Msg, "11,000") {
		t.Errorf("too many points: %v", err)
	}
}

// A grant opens what it says, as it says: means in place of readings, until it ends.
func TestPromQLUnderAGrant(t *testing.T) {
	q := newQueried(t)
	ctx, api := t.Context(), q.as(q.program)
	count := func() int {
		v, _, _, err := api.Query(ctx, `count({__name__=~".+"})`, q.now)
		if err != nil {
			t.Fatal(err)
		}
		if v := v.(model.Vector); len(v) > 0 {
			return int(v[0].Value)
		}
		return 0
	}
	if n := count(); n != 0 {
		t.Fatalf("%d series without a grant", n)
	}
	var m struct{ ID string }
	q.must("Anna", http.MethodPost, "/v1/grants", `{"recipient":"Institute","purpose":"study","until":"+1d","from":"-1d","streams":["temperature"],"obligations":{"every":"1h"}}`, &m)
	if n := count(); n != 1 {
		t.Fatalf("%d series with a grant of one", n)
	}
	v, _, _, err := api.Query(ctx, `temperature_celsius[3h]`, q.now)
	if err != nil {
		t.Fatal(err)
	}
	s := v.(model.Matrix)
	if len(s) != 1 || len(s[0].Values) < 2 || s[0].Metric["device"] == "band" || s[0].Metric["owner"] == "Anna" {
		t.Fatalf("what is granted is %v", s)
	}
	for _, p := range s[0].Values {
		if p.Timestamp.Time().Minute() != 0 {
			t.Errorf("a sample at %s is no window's end", p.Timestamp.Time())
		}
	}
	same, _, _, err := api.Query(ctx, `avg_over_time(temperature_celsius[3h]) * count_over_time(temperature_celsius[3h]) - sum_over_time(temperature_celsius[3h])`, q.now)
	if diff := same.(model.Vector); err != nil || len(diff) != 1 || diff[0].Value > 1e-9 || diff[0].Value < -1e-9 {
		t.Errorf("means, counts and sums of means: %v %v", same, err)
	}
	if rows := q.rowsGiven(q.program)["anna"]; rows == 0 {
		t.Error("what was read stands on no disclosure")
	}
	q.must("Anna", http.MethodDelete, "/v1/grants/"+m.ID, "", nil)
	if n := count(); n != 0 {
		t.Errorf("%d series after the grant", n)
	}
	if err := q.grants.EndPurpose(ctx, q.house.admin().Credential, "study"); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := api.Query(ctx, `temperature_celsius`, q.now); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("a purpose that has ended: %v", err)
	}
}

// A form, packing and the refusal of what is no question are as in Prometheus.
func TestPrometheusOverHTTP(t *testing.T) {
	q := newQueried(t)
	form := url.Values{"query": {`temperature_celsius[2h]`}, "time": {q.now.Format(time.RFC3339)}}
	req, err := http.NewRequest("POST", q.at.API+"/api/v1/query", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "Bearer "+q.anna.token)
	req.Header.Set("Accept-Encoding", "gzip")
	res, err := q.anna.web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("%s: %v", res.Status, res.Header)
	}
	z, err := gzip.NewReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(z)
	if err != nil || !strings.HasPrefix(string(body), `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"temperature_celsius","device":"band","owner":"Anna","stream":"temperature"},"values":[[`) {
		t.Errorf("%v %.200s", err, body)
	}
	for path, want := range map[string]string{
		"/api/v1/query?query=sum(":                  `{"status":"error","errorType":"bad_data","error":"`,
		"/api/v1/query?query=1&time=tomorrow":       `"errorType":"bad_data","error":"invalid parameter \"time\": a time is`,
		"/api/v1/query_range?query=1&start=1&end=2": `invalid parameter \"step\"`,
		"/api/v1/series":                            `no match[] parameter provided`,
		"/api/v1/query?query=%7B__holdfast_read__!%3D%22sum/1%22,a!=%22b%22,__name__=~%22.%2B%22%7D": `is the hub's own`,
		"/api/v1/label/device/values":                `{"status":"success","data":["band"]}`,
		"/api/v1/format_query?query=sum(x)by(y)":     `{"status":"success","data":"sum by (y) (x)"}`,
		"/api/v1/query?query=pulse_beats_per_minute": `{"status":"success","data":{"resultType":"vector","result":[]}}`,
	} {
		if got := q.anna.ask(q.at.API+path, "GET", ""); !strings.Contains(string(got.body), want) {
			t.Errorf("%s: %d %s, want %s", path, got.status, got.body, want)
		}
	}
}

// promtool of the distribution reads a hub. It is too old to be told of tokens and
// authorities: what stands between adds them and changes nothing.
func TestPromtoolReads(t *testing.T) {
	need(t, "promtool")
	q := newQueried(t)
	hub, err := url.Parse(q.at.API)
	if err != nil {
		t.Fatal(err)
	}
	between := httptest.NewServer(&httputil.ReverseProxy{Transport: q.anna.web.Transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(hub)
		r.Out.Header.Set("Authorization", "Bearer "+q.anna.token)
	}})
	defer between.Close()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"instant", "HUB", `temperature_celsius`}, `temperature_celsius{device="band", owner="Anna", stream="temperature"} => 32.796875 @[`},
		{[]string{"range", "--step=10m", "HUB", `sum_over_time(skin_flow[10m])`}, `{device="band", owner="Anna", stream="skin/flow"} =>`},
		{[]string{"series", "--match=skin_flow", "HUB"}, `{__name__="skin_flow", device="band", owner="Anna", stream="skin/flow"}`},
		{[]string{"labels", "HUB", "owner"}, "Anna"},
	} {
		args := append([]string{"query"}, c.args...)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "HUB", between.URL)
		}
		out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) || strings.Contains(string(out), "Ben") {
			t.Errorf("promtool %v: %v\n%s, want %s", args, err, out, c.want)
		}
	}
}

// Every expression of the dashboard in examples finds something in a hub.
func TestDashboardShowsSomething(t *testing.T) {
	q := newQueried(t)
	text, err := os.ReadFile("../../examples/grafana/dashboards/holdfast.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct {
				Expr    string
				Instant bool
			}
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$device", ".+", "$__interval", "5m").Replace(target.Expr)
			found := 0
			if target.Instant {
				v, _, _, err := q.as(q.anna).Query(t.Context(), expr, q.now)
				if err != nil {
					t.Fatalf("%s: %v", expr, err)
				}
				found = len(v.(model.Vector))
			} else {
				v, _, _, err := q.as(q.anna).QueryRange(t.Context(), expr, promv1.Range{Start: q.now.Add(-2 * time.Hour), End: q.now, Step: 5 * time.Minute})
				if err != nil {
					t.Fatalf("%s: %v", expr, err)
				}
				found = len(v.(model.Matrix))
			}
			if asked++; found == 0 {
				t.Errorf("%s: %s shows nothing", p.Title, expr)
			}
		}
	}
	if asked < 5 {
		t.Errorf("the dashboard has %d expressions", asked)
	}
}
