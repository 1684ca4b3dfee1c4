package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"modernc.org/sqlite"

	"github.com/holdfast-iot/holdfast"
)

// backuper is a connection of the engine that copies its database.
type backuper interface {
	NewBackup(dsn string) (*sqlite.Backup, error)
}

// Snapshot copies the database, as it is at one moment, into a new file. Pages
// stand where they stand in the database: two snapshots differ in the pages that
// were written in between and no others. Others read and write meanwhile.
func (db *DB) Snapshot(ctx context.Context, path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "copy catalog: %w", err)
	}
	f.Close() // the engine would make it readable for others
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	conn, err := db.reader.Conn(ctx)
	if err != nil {
		return classify(err)
	}
	defer conn.Close()
	err = conn.Raw(func(driver any) error {
		from, ok := driver.(backuper)
		if !ok {
			return errors.New("the engine can't copy its database")
		}
		// What a power cut leaves of the copy is not used.
		b, err := from.NewBackup("file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=synchronous(OFF)&_pragma=journal_mode(OFF)")
		if err != nil {
			return err
		}
		for more := true; more && err == nil; { // all at once: in steps it would begin again with each write
			if more, err = b.Step(-1); err == nil {
				err = ctx.Err()
			}
		}
		return errors.Join(err, b.Finish())
	})
	if err != nil {
		return fmt.Errorf("copy catalog: %w", classify(err))
	}
	return nil
}

// Look runs f on a file that Snapshot made, and changes nothing.
func Look(ctx context.Context, path string, f func(*sql.Tx) error) error {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?immutable=1&mode=ro&_pragma=query_only(1)")
	if err != nil {
		return fmt.Errorf("open copy of catalog: %w", err)
	}
	defer db.Close()
	return transact(ctx, db, f)
}

// Sound reports what the engine finds wrong with the database in dir, which nobody
// uses.
func Sound(ctx context.Context, dir string) error {
	path := filepath.Join(dir, File)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return holdfast.Errorf(holdfast.NotFound, "there is no catalog in %s", dir)
	}
	return Look(ctx, path, func(tx *sql.Tx) error {
		var word string
		if err := tx.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&word); err != nil {
			return err
		}
		if word != "ok" {
			return holdfast.Errorf(holdfast.Invalid, "the catalog is damaged")
		}
		return nil
	})
}
