package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast/internal/bench"
)

// InfluxDB takes line protocol and answers InfluxQL. It syncs its log before it
// answers a write.
type InfluxDB struct {
	*Server
	at endpoint
}

const influxDatabase = "bench"

// influxConfig leaves out what a measurement of the database should not pay for: a
// log line for each request and its watching of itself. cold is when what it holds
// in memory is written, and all files of a shard become one.
const influxConfig = `reporting-disabled = true
bind-address = "127.0.0.1:%d"
[meta]
  dir = %q
[data]
  dir = %q
  wal-dir = %q
  cache-snapshot-write-cold-duration = %q
  compact-full-write-cold-duration = %q
[http]
  bind-address = "127.0.0.1:%d"
  log-enabled = false
[monitor]
  store-enabled = false
[logging]
  level = "error"
`

// StartInfluxDB runs one. With compact it writes and compacts as soon as writes
// pause, which its default does after hours: for measuring what lies on the disk.
func StartInfluxDB(ctx context.Context, compact bool) (*InfluxDB, error) {
	program, err := find("influxd")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	rpc, err := freePort()
	if err != nil {
		return nil, err
	}
	snapshot, full := "10m", "4h"
	if compact {
		snapshot, full = "2s", "2s"
	}
	i := &InfluxDB{at: newEndpoint(port)}
	i.Server, err = start(ctx, spec{
		release: release("InfluxDB", "influxdb"),
		program: program,
		args:    func(dir, _ string) []string { return []string{"-config", filepath.Join(dir, "influx.conf")} },
		prepare: func(s *Server, _ *syscall.SysProcAttr) error {
			text := fmt.Sprintf(influxConfig, rpc, filepath.Join(s.data, "meta"), filepath.Join(s.data, "data"), filepath.Join(s.data, "wal"), snapshot, full, port)
			return os.WriteFile(filepath.Join(s.dir, "influx.conf"), []byte(text), 0o600)
		},
		ready: func(ctx context.Context) error {
			return i.at.post(ctx, "/query?"+url.Values{"q": {"CREATE DATABASE " + influxDatabase}}.Encode(), nil)
		},
	})
	if err != nil {
		return nil, err
	}
	return i, nil
}

// Write sends lines with times in milliseconds.
func (i *InfluxDB) Write(ctx context.Context, lines []byte) error {
	return i.at.post(ctx, "/write?db="+influxDatabase+"&precision=ms", lines)
}

// Settle waits until the log is empty and the files no longer change. It is of use
// with compact alone.
func (i *InfluxDB) Settle(ctx context.Context) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var last int64
	for same := 0; same < 12; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		logged, err := bench.Files(filepath.Join(i.data, "wal"))
		if err != nil {
			return err
		}
		now, err := i.Disk()
		if err != nil {
			return err
		}
		if same++; now != last || logged > 0 {
			same = 0
		}
		last = now
	}
	return nil
}

// Row is the first row of the first series that a query yields, without its time.
func (i *InfluxDB) Row(ctx context.Context, query string) ([]float64, error) {
	answer, err := i.at.get(ctx, "/query", url.Values{"db": {influxDatabase}, "q": {query}})
	if err != nil {
		return nil, err
	}
	var doc struct {
		Results []struct {
			Error  string
			Series []struct{ Values [][]any }
		}
	}
	if err := json.Unmarshal(answer, &doc); err != nil {
		return nil, err
	}
	if len(doc.Results) != 1 || len(doc.Results[0].Series) != 1 || len(doc.Results[0].Series[0].Values) != 1 {
		return nil, fmt.Errorf("InfluxDB answers not with one row: %.200s", answer)
	}
	var out []float64
	for _, v := range doc.Results[0].Series[0].Values[0][1:] {
		f, ok := v.(float64)
		if !ok {
			return nil, fmt.Errorf("InfluxDB answers not with numbers: %.200s", answer)
		}
		out = append(out, f)
	}
	return out, nil
}
