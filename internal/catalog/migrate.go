package catalog

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/holdfast-iot/holdfast"
)

//go:embed migrations/sqlite/*.sql
var migrations embed.FS

// Oldest is the version that the first release left its databases at. What has an
// older one was made by no release.
const Oldest = 9

// Step tells that one of the migrations that an Open has to do begins.
type Step struct {
	Version int64  // that the database has after it
	Name    string // what it is about
	N, Of   int    // the first is 1
}

// Known is the version that Open leaves a database at.
func Known() int64 {
	from, err := embedded()
	if err != nil {
		panic(err) // they are compiled in
	}
	return newest(from)
}

func embedded() (fs.FS, error) { return fs.Sub(migrations, "migrations/sqlite") }

// newest is the version of the last migration.
func newest(from fs.FS) (last int64) {
	names, _ := fs.Glob(from, "*.sql")
	for _, name := range names {
		if v, err := goose.NumericComponent(name); err == nil {
			last = max(last, v)
		}
	}
	return last
}

// Version says how far the migrations of the database in dir are, 0 if there is
// none, and touches no file. Of a database whose writer did not end in order it
// says what holds for certain: it may be further.
func Version(ctx context.Context, dir string) (int64, error) {
	file := filepath.Join(dir, File)
	if info, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("open catalog: %w", err)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: file}).EscapedPath()+"?immutable=1&mode=ro")
	if err != nil {
		return 0, fmt.Errorf("open catalog: %w", err)
	}
	defer db.Close()
	var tables int
	var have sql.NullInt64
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE name = 'goose_db_version'").Scan(&tables)
	if err == nil && tables > 0 {
		err = db.QueryRowContext(ctx, "SELECT max(version_id) FROM goose_db_version").Scan(&have)
	}
	if err != nil {
		return 0, fmt.Errorf("open catalog %s: %w", file, classify(err))
	}
	return have.Int64, nil
}

// checkVersion refuses what this program can't open.
func checkVersion(have, known int64) error {
	switch {
	case have > known:
		return holdfast.Errorf(holdfast.Conflict,
			"the catalog is of version %d, this program knows up to %d: start the newer holdfast that wrote it", have, known)
	case have > 0 && have < Oldest:
		return holdfast.Errorf(holdfast.Conflict,
			"the catalog is of version %d, which is older than that of the first release (%d): export its owners with the program that made it, and begin with a new folder", have, Oldest)
	}
	return nil
}

func provider(db *sql.DB, from fs.FS) (*goose.Provider, error) {
	p, err := goose.NewProvider(database.DialectSQLite3, db, from)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return p, nil
}

// migrate does what migrations are left, each in a transaction of its own with the
// row that says it is done: whatever ends the process, the next Open goes on.
func migrate(ctx context.Context, db *sql.DB, from fs.FS, progress func(Step)) error {
	p, err := provider(db, from)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	if err := checkVersion(have, sources[len(sources)-1].Version); err != nil {
		return err
	}
	var left []Step
	for _, s := range sources {
		if s.Version > have {
			_, name, _ := strings.Cut(strings.TrimSuffix(path.Base(s.Path), ".sql"), "_")
			left = append(left, Step{Version: s.Version, Name: name})
		}
	}
	if progress == nil || have == 0 { // a new database is not migrated, but made
		_, err = p.Up(ctx)
		return err
	}
	for i, step := range left {
		step.N, step.Of = i+1, len(left)
		progress(step)
		if _, err := p.UpTo(ctx, step.Version); err != nil {
			return fmt.Errorf("migrate to version %d (%s): %w", step.Version, step.Name, err)
		}
	}
	return nil
}

// Table is one that a way back takes away.
type Table struct {
	Name string
	Rows int64
}

// Back opens the database in dir, which nobody else uses, for the way back to an
// older version. Close it.
func Back(ctx context.Context, dir string, to int64) (*Return, error) {
	from, err := embedded()
	if err != nil {
		return nil, err
	}
	return back(ctx, dir, from, to)
}

// Return is the way back of a database. Migrations after the first release only
// add, so what an older program wrote stays as it is.
type Return struct {
	db   *sql.DB
	p    *goose.Provider
	from fs.FS
	to   int64
}

func back(ctx context.Context, dir string, from fs.FS, to int64) (*Return, error) {
	if to < Oldest {
		return nil, holdfast.Errorf(holdfast.Invalid, "no release has a catalog of version %d", to)
	}
	have, err := Version(ctx, dir)
	if err != nil {
		return nil, err
	}
	if have == 0 {
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no catalog in %s", dir)
	}
	db, err := sql.Open("sqlite", dsn(filepath.Join(dir, File), "", "_txlock=immediate"))
	if err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	db.SetMaxOpenConns(1)
	r := &Return{db: db, from: from, to: to}
	if r.p, err = provider(db, from); err == nil {
		sources := r.p.ListSources()
		if have, err = r.p.GetDBVersion(ctx); err == nil {
			err = checkVersion(have, sources[len(sources)-1].Version)
		}
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("open catalog: %w", classify(err))
	}
	return r, nil
}

// Takes says which tables go, with what is in them.
func (r *Return) Takes(ctx context.Context) ([]Table, error) {
	old, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	defer old.Close()
	old.SetMaxOpenConns(1)
	p, err := provider(old, r.from)
	if err != nil {
		return nil, err
	}
	if _, err := p.UpTo(ctx, r.to); err != nil {
		return nil, err
	}
	const names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
	kept := map[string]bool{}
	var gone []Table
	for _, db := range []*sql.DB{old, r.db} {
		rows, err := db.QueryContext(ctx, names)
		if err != nil {
			return nil, classify(err)
		}
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return nil, errors.Join(err, rows.Close())
			}
			if db == old {
				kept[name] = true
			} else if !kept[name] {
				gone = append(gone, Table{Name: name})
			}
		}
		if err := rows.Err(); err != nil {
			return nil, classify(err)
		}
	}
	for i := range gone {
		if err := r.db.QueryRowContext(ctx, "SELECT count(*) FROM "+gone[i].Name).Scan(&gone[i].Rows); err != nil {
			return nil, classify(err)
		}
	}
	return gone, nil
}

// Go takes them away, one migration after the other, each whole or not at all.
func (r *Return) Go(ctx context.Context) error {
	if _, err := r.p.DownTo(ctx, r.to); err != nil {
		return fmt.Errorf("take migrations back: %w", classify(err))
	}
	_, err := r.db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return classify(err)
}

// Close closes the database.
func (r *Return) Close() error { return r.db.Close() }
