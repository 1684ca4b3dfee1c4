package catalog

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/pressly/goose/v3"

	"github.com/holdfast-iot/holdfast"
)

// upTo are this program's migrations up to a version, as an older program had them.
func upTo(t *testing.T, last int64) fstest.MapFS {
	t.Helper()
	from, err := embedded()
	if err != nil {
		t.Fatal(err)
	}
	names, err := fs.Glob(from, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	old := fstest.MapFS{}
	for _, name := range names {
		v, err := goose.NumericComponent(name)
		if err != nil {
			t.Fatal(err)
		}
		if v > last {
			continue
		}
		text, err := fs.ReadFile(from, name)
		if err != nil {
			t.Fatal(err)
		}
		old[name] = &fstest.MapFile{Data: text}
	}
	return old
}

// later are the first release's migrations and three that came after.
func later(t *testing.T) fstest.MapFS {
	m := upTo(t, Oldest)
	for v, sql := range map[string][2]string{
		"00010_lamp.sql":  {"CREATE TABLE lamp (id BLOB NOT NULL PRIMARY KEY) STRICT;", "DROP TABLE lamp;"},
		"00011_shade.sql": {"CREATE TABLE shade (id BLOB NOT NULL PRIMARY KEY) STRICT;\nCREATE INDEX shades ON shade (id);", "DROP TABLE shade;"},
		"00012_bulb.sql":  {"ALTER TABLE retired_key ADD COLUMN bulb INTEGER;", "ALTER TABLE retired_key DROP COLUMN bulb;"},
	} {
		m[v] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + sql[0] + "\n\n-- +goose Down\n" + sql[1] + "\n")}
	}
	return m
}

func openWith(t *testing.T, dir string, from fs.FS, progress func(Step)) *DB {
	t.Helper()
	db, err := Open(t.Context(), dir, Options{migrations: from, Progress: progress})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// shape is everything that the database says of itself, and a row that an older
// program wrote.
func shape(t *testing.T, dir string) map[string]string {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, File)+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all := map[string]string{}
	rows, err := db.Query("SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_master")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			t.Fatal(err)
		}
		all[name] = text
	}
	var at int64
	if err := db.QueryRow("SELECT at FROM retired_key").Scan(&at); err != nil {
		t.Fatal(err)
	}
	all["row"] = fmt.Sprint(at)
	return all
}

func putRow(t *testing.T, db *DB) {
	t.Helper()
	if err := db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO retired_key (key_id, at) VALUES (zeroblob(16), 77)`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestMigrationTellsHowFarItIs(t *testing.T) {
	dir := t.TempDir()
	var told []Step
	db := openWith(t, dir, upTo(t, Oldest), func(s Step) { told = append(told, s) })
	putRow(t, db)
	db.Close()
	if told != nil {
		t.Errorf("to make a database was told as %v", told)
	}
	openWith(t, dir, later(t), func(s Step) { told = append(told, s) }).Close()
	want := []Step{{10, "lamp", 1, 3}, {11, "shade", 2, 3}, {12, "bulb", 3, 3}}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
	if have, err := Version(t.Context(), dir); err != nil || have != 12 {
		t.Errorf("version %d, %v", have, err)
	}
	told = nil
	openWith(t, dir, later(t), func(s Step) { told = append(told, s) }).Close()
	if told != nil {
		t.Errorf("the second time: %v", told)
	}
}

// A process that ends within any step of a migration leaves what the next goes on
// from: the files as they lie are copied at each step and opened.
func TestMigrationGoesOnFromEveryStep(t *testing.T) {
	dir := t.TempDir()
	db := openWith(t, dir, upTo(t, Oldest), nil)
	putRow(t, db)
	db.Close()
	var cut []string
	openWith(t, dir, later(t), func(Step) {
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Error(err)
		}
		cut = append(cut, copied)
	}).Close()
	whole := shape(t, dir)
	if len(cut) != 3 {
		t.Fatalf("%d steps", len(cut))
	}
	for i, dir := range cut {
		steps := 0
		openWith(t, dir, later(t), func(Step) { steps++ }).Close()
		if diff := cmp.Diff(whole, shape(t, dir)); diff != "" || steps != 3-i {
			t.Errorf("cut at step %d: %d more; %s", i, steps, diff)
		}
	}
}

func TestWayBackTakesWhatWasAdded(t *testing.T) {
	dir := t.TempDir()
	db := openWith(t, dir, upTo(t, Oldest), nil)
	putRow(t, db)
	db.Close()
	before := shape(t, dir)
	db = openWith(t, dir, later(t), nil)
	if err := db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO lamp (id) VALUES (x'01'), (x'02')`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	db.Close()
	r, err := back(t.Context(), dir, later(t), Oldest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	takes, err := r.Takes(t.Context())
	if diff := cmp.Diff([]Table{{"lamp", 2}, {"shade", 0}}, takes); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if err := r.Go(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if diff := cmp.Diff(before, shape(t, dir)); diff != "" {
		t.Error(diff)
	}
	// The older program opens it, and the newer one goes forward again.
	openWith(t, dir, upTo(t, Oldest), nil).Close()
	openWith(t, dir, later(t), nil).Close()
}

// The same for the migrations that there are: they add, and what they add can be
// taken away, so that the program before opens what this one used.
func TestMigrationsAfterAReleaseOnlyAdd(t *testing.T) {
	dir := t.TempDir()
	db := openWith(t, dir, upTo(t, Oldest), nil)
	putRow(t, db)
	db.Close()
	before := shape(t, dir)
	openWith(t, dir, nil, nil).Close()
	after := shape(t, dir)
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[name]; !ok {
			t.Errorf("a migration takes %s away", name)
		}
	}
	r, err := Back(t.Context(), dir, Oldest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Go(t.Context()); err != nil {
		t.Fatalf("each migration needs a -- +goose Down that drops what it adds: %v", err)
	}
	r.Close()
	if diff := cmp.Diff(before, shape(t, dir)); diff != "" {
		t.Errorf("up and down again is not where it began (-before +after):\n%s", diff)
	}
}

// What can't be opened is refused, and no byte of it changes.
func TestOtherVersionsAreRefusedUntouched(t *testing.T) {
	for _, version := range []int64{5, 99999} {
		dir := t.TempDir()
		openWith(t, dir, upTo(t, min(version, Oldest)), nil).Close()
		if version > Oldest {
			db := openWith(t, dir, nil, nil)
			if err := db.Write(t.Context(), func(tx *sql.Tx) error {
				_, err := tx.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES ($1, true)`, version)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			db.Close()
		}
		before := files(t, dir)
		db, err := Open(t.Context(), dir, Options{})
		if err == nil {
			db.Close()
		}
		if holdfast.KindOf(err) != holdfast.Conflict {
			t.Errorf("opened a catalog of version %d: %v", version, err)
		}
		if _, err := Back(t.Context(), dir, Oldest); holdfast.KindOf(err) != holdfast.Conflict && version > Oldest {
			t.Errorf("opened a catalog of version %d to go back: %v", version, err)
		}
		if diff := cmp.Diff(before, files(t, dir)); diff != "" {
			t.Errorf("version %d: files changed: %s", version, diff)
		}
	}
}

func files(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	all := map[string][32]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = sha256.Sum256(b)
	}
	return all
}

func TestVersionOfNothing(t *testing.T) {
	dir := t.TempDir()
	if have, err := Version(t.Context(), dir); have != 0 || err != nil {
		t.Errorf("%d, %v", have, err)
	}
	if err := os.WriteFile(filepath.Join(dir, File), bytes.Repeat([]byte("x"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Version(t.Context(), dir); err == nil {
		t.Error("what is no database has a version")
	}
	if _, err := Back(t.Context(), t.TempDir(), Oldest); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("the way back of nothing: %v", err)
	}
}
