package promapi

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// An expression costs its writer's share, not the hub: what the language's parser,
// printer or engine would be at for minutes is refused before any of them sees it.
func TestDeepExpressionsAreRefused(t *testing.T) {
	h := querytest.Build(t)
	e := New(h.Query, h.Custody, Options{})
	owner := h.Party("Anna")
	many := func(s string, n int) string { return strings.Repeat(s, n) }
	bad := map[string]string{
		"signs":      many("-", 250_000) + "vector(1)",
		"brackets":   many("(", 100_000) + "1" + many(")", 100_000),
		"functions":  many("abs(", 1_000) + "m" + many(")", 1_000),
		"sums":       "m" + many("+m", 120_000),
		"operations": many("m or ", 200) + "m",
		"matchers":   "{" + many(`a="b",`, 40_000) + "}",
	}
	began := time.Now()
	for what, text := range bad {
		if err := e.Check(text); holdfast.KindOf(err) != holdfast.TooLarge {
			t.Errorf("%s are checked: %v", what, err)
		}
		if _, err := e.ask(t.Context(), asker{who: owner}, question{expr: text, start: h.Now(), end: h.Now()}); holdfast.KindOf(err) != holdfast.TooLarge {
			t.Errorf("%s are worked out: %v", what, err)
		}
		for _, pattern := range []string{"POST /v1/format_query", "POST /v1/query", "POST /v1/series"} {
			path := "/api" + strings.TrimPrefix(pattern, "POST ")
			r := httptest.NewRequest("POST", path, strings.NewReader(url.Values{"query": {text}, "match[]": {text}}.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			status, body, _, done, _ := e.Answer(httptest.NewRecorder(), r, "POST "+path, owner, nil)
			done()
			if status/100 != 4 {
				t.Errorf("%s at %s: %d %.100s", what, path, status, body)
			}
		}
	}
	list := url.Values{"match[]": strings.Split(many("m,", 10_000)+"m", ",")}
	r := httptest.NewRequest("POST", "/api/v1/series", strings.NewReader(list.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if status, _, _, done, _ := e.Answer(httptest.NewRecorder(), r, "POST /api/v1/series", owner, nil); status != 400 {
		t.Errorf("ten thousand selectors: %d", status)
	} else {
		done()
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("refusing took %s", took)
	}
	deep := many("abs(", maxDepth-1) + "m" + many(")", maxDepth-1)
	devices := `m{device=~"` + many("some-device-of-mine|", 5_000) + `x"}`
	for _, good := range []string{deep, devices, many("m or ", 90) + "m", `sum by (owner) (rate(m[5m])) / 2`} {
		if err := e.Check(good); err != nil {
			t.Errorf("%.60s: %v", good, err)
		}
	}
}
