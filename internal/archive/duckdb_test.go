package archive_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// duckdb asks the DuckDB that ./test installed, by Node, for the rows of a query.
const duckdb = `
const { DuckDBInstance } = require('module').createRequire(process.argv[1] + '/')('@duckdb/node-api');
DuckDBInstance.create(':memory:').then(db => db.connect())
  .then(c => c.runAndReadAll(process.argv[2]))
  .then(r => console.log(JSON.stringify(r.getRowObjectsJson())));
`

// DuckDB reads an export straight from its folder and counts what the balance
// sheet says.
func TestDuckDBReadsAnExport(t *testing.T) {
	at := os.Getenv("HOLDFAST_DUCKDB")
	if at == "" {
		t.Skip("SKIPPED: HOLDFAST_DUCKDB does not name a folder with @duckdb/node-api (./test installs one): no foreign reader was asked")
	}
	h := build(t)
	dir := t.TempDir()
	for name, file := range h.export(t).MapFS {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, file.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	query := `SELECT b.stream, b.rows::BIGINT = count(o.time) AS same
		FROM read_json_auto('` + dir + `/data/balance.ndjson') b LEFT JOIN '` + dir + `/data/observations/*.parquet' o ON o.stream_id = b.stream
		GROUP BY b.stream, b.rows`
	out, err := exec.CommandContext(t.Context(), "node", "-e", duckdb, at, query).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, err.(*exec.ExitError).Stderr)
	}
	var rows []struct {
		Stream string
		Same   bool
	}
	if err := json.Unmarshal(out, &rows); err != nil || len(rows) != 6 {
		t.Fatalf("%v: %s", err, out)
	}
	for _, r := range rows {
		if !r.Same {
			t.Errorf("stream %s: DuckDB counts other rows than the balance sheet", r.Stream)
		}
	}
}
