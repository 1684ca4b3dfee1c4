package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"time"
)

// VictoriaMetrics takes line protocol and answers PromQL. It acknowledges before
// anything is synced to the disk, keeps times in milliseconds, numbers alone, and
// rounds numbers to about 15 digits.
type VictoriaMetrics struct {
	*Server
	at endpoint
}

// StartVictoriaMetrics runs one. Changed from the default: nothing expires, and
// what was just written is found by queries.
func StartVictoriaMetrics(ctx context.Context) (*VictoriaMetrics, error) {
	program, err := find("victoria-metrics")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	v := &VictoriaMetrics{at: newEndpoint(port)}
	v.Server, err = start(ctx, spec{
		release: release("VictoriaMetrics", "victoria-metrics"),
		program: program,
		args: func(_, data string) []string {
			return []string{"-storageDataPath=" + data, fmt.Sprintf("-httpListenAddr=127.0.0.1:%d", port), "-retentionPeriod=100y",
				"-search.latencyOffset=0s", "-loggerLevel=ERROR"}
		},
		ready: func(ctx context.Context) error {
			_, err := v.at.get(ctx, "/health", nil)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Write sends lines with times in milliseconds.
func (v *VictoriaMetrics) Write(ctx context.Context, lines []byte) error {
	return v.at.post(ctx, "/write?precision=ms", lines)
}

// Flush makes what was written visible to queries.
func (v *VictoriaMetrics) Flush(ctx context.Context) error {
	_, err := v.at.get(ctx, "/internal/force_flush", nil)
	return err
}

var activeMerges = regexp.MustCompile(`(?m)^vm_active_merges\{[^}]*\} (\d+)$`)

// Settle flushes, merges all parts into one, and waits until that is done.
func (v *VictoriaMetrics) Settle(ctx context.Context) error {
	if err := v.Flush(ctx); err != nil {
		return err
	}
	if _, err := v.at.get(ctx, "/internal/force_merge", nil); err != nil {
		return err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for quiet := 0; quiet < 5; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		metrics, err := v.at.get(ctx, "/metrics", nil)
		if err != nil {
			return err
		}
		quiet++
		for _, m := range activeMerges.FindAllSubmatch(metrics, -1) {
			if !bytes.Equal(m[1], []byte("0")) {
				quiet = 0
			}
		}
	}
	return nil
}

// Value is a single number that a query yields at a time, without the cache of
// answers.
func (v *VictoriaMetrics) Value(ctx context.Context, query string, at time.Time) (float64, error) {
	answer, err := v.Instant(ctx, query, at)
	if err != nil {
		return 0, err
	}
	var doc struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.Unmarshal(answer, &doc); err != nil {
		return 0, err
	}
	if len(doc.Data.Result) != 1 {
		return 0, fmt.Errorf("VictoriaMetrics answers with %d series instead of one", len(doc.Data.Result))
	}
	text, _ := doc.Data.Result[0].Value[1].(string)
	return strconv.ParseFloat(text, 64)
}

// Instant asks a query at a time and returns the answer as it came.
func (v *VictoriaMetrics) Instant(ctx context.Context, query string, at time.Time) ([]byte, error) {
	return v.at.get(ctx, "/api/v1/query", url.Values{"query": {query}, "time": {seconds(at)}, "nocache": {"1"}})
}

// Range asks a query for each step of a span and returns the answer as it came.
func (v *VictoriaMetrics) Range(ctx context.Context, query string, from, to time.Time, step time.Duration) ([]byte, error) {
	return v.at.get(ctx, "/api/v1/query_range", url.Values{"query": {query}, "start": {seconds(from)}, "end": {seconds(to)},
		"step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)}, "nocache": {"1"}})
}

// Export returns the raw readings of a series as it stores them.
func (v *VictoriaMetrics) Export(ctx context.Context, match string, from, to time.Time) ([]byte, error) {
	return v.at.get(ctx, "/api/v1/export", url.Values{"match[]": {match}, "start": {seconds(from)}, "end": {seconds(to)}})
}

func seconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}
