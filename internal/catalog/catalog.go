// Package catalog opens the database that holds everything but readings:
// parties, devices, streams, grants, key lists, the index of chunks, the ledger.
//
// It opens, migrates and gives transactions; each keeper owns its tables and
// their SQL, and no table is named in two packages. The same hand-written SQL
// with $1 runs on every engine; only the migrations differ. It promises that a
// Write which returned nil is durable, and that a Read sees one snapshot.
//
// It is never on the path of a reading, and what it holds about an owner is
// sealed before it comes here: secure_delete is on, but a deleted row is never
// claimed to be destroyed.
package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/semaphore"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/holdfast-iot/holdfast"
)

// File is the name of the database within the data folder's catalog directory.
const File = "catalog.db"

// Options tunes a DB; the zero value works.
type Options struct {
	Readers int // concurrent snapshots, default 8
	// VFS names another file system than the operating system's, registered with
	// SQLite before; dir is a folder of that one then.
	VFS string
	// Progress is told of each migration of a database that an older program left.
	Progress func(Step)

	migrations fs.FS // for tests; nil: those of this program
}

// DB is the catalog.
type DB struct {
	writer *sql.DB             // one connection: writes are serial
	turn   *semaphore.Weighted // of writer: who waits longest is next; sql.DB picks any
	reader *sql.DB

	patience time.Duration // of Purge
}

// Open opens the database in dir, creating and migrating it as needed. A
// database of a newer version, or of before the first release, is refused untouched.
func Open(ctx context.Context, dir string, o Options) (*DB, error) {
	if o.Readers <= 0 {
		o.Readers = 8
	}
	if o.migrations == nil {
		var err error
		if o.migrations, err = embedded(); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(dir, File)
	if o.VFS == "" {
		have, err := Version(ctx, dir)
		if err == nil {
			err = checkVersion(have, newest(o.migrations))
		}
		if err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, holdfast.Errorf(holdfast.Unavailable, "open catalog: %w", err)
		}
		f.Close() // the engine would make it readable for others
	}
	writer, err := sql.Open("sqlite", dsn(path, o.VFS, "_pragma=auto_vacuum(incremental)&_pragma=journal_mode(WAL)&_pragma=cache_size(-16000)&_txlock=immediate"))
	if err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	writer.SetMaxOpenConns(1)
	if err := migrate(ctx, writer, o.migrations, o.Progress); err != nil {
		writer.Close()
		return nil, fmt.Errorf("open catalog %s: %w", path, classify(err))
	}
	// Each connection has a cache of its own. Those of readers, of which there are
	// several, are small: beyond them the system's cache has the pages, and a hub
	// that a thousand devices reconnect to keeps its memory for their connections.
	reader, err := sql.Open("sqlite", dsn(path, o.VFS, "_pragma=query_only(1)&_pragma=cache_size(-2000)"))
	if err != nil {
		writer.Close()
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	reader.SetMaxOpenConns(o.Readers)
	reader.SetMaxIdleConns(o.Readers)
	return &DB{writer: writer, turn: semaphore.NewWeighted(1), reader: reader, patience: patience}, nil
}

// busyTimeout is how long a connection waits for another.
const busyTimeout = 10 * time.Second

// dsn gives what holds for every connection. What is set for the file stands with
// the writer's: to say auto_vacuum, even again, is a write, for which a reader that
// connects anew, as after each read that is given up, would wait its whole timeout
// beside a long write, and for ever within one.
func dsn(path, vfs, more string) string {
	if vfs != "" {
		more += "&vfs=" + url.QueryEscape(vfs)
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" +
		"_pragma=synchronous(FULL)&_pragma=secure_delete(1)" +
		"&_pragma=foreign_keys(1)&_pragma=busy_timeout(" + strconv.Itoa(int(busyTimeout.Milliseconds())) + ")&" + more
}

// Write runs f in a transaction. When it returns nil, all that f did is durable;
// otherwise nothing of it happened. Writes are serial: f must not call Write.
func (db *DB) Write(ctx context.Context, f func(*sql.Tx) error) error {
	if err := db.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer db.turn.Release(1)
	return transact(ctx, db.writer, f)
}

// Read runs f on one snapshot.
func (db *DB) Read(ctx context.Context, f func(*sql.Tx) error) error {
	return transact(ctx, db.reader, f)
}

func transact(ctx context.Context, db *sql.DB, f func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return classify(err)
	}
	defer tx.Rollback() // no-op after Commit
	if err := f(tx); err != nil {
		return classify(err)
	}
	return classify(tx.Commit())
}

// How Purge waits for readers: up to patience in all, a moment at a time, so that
// those who write wait no longer than that moment.
const (
	patience    = 10 * time.Second
	purgeMoment = 20 * time.Millisecond
	purgeRest   = 50 * time.Millisecond
)

// Purge moves the write-ahead log into the database and empties it, so that
// deleted rows leave both files. It waits for the readers of older snapshots, and
// is Unavailable if they take too long; writes go on meanwhile. It is hygiene, not
// destruction: keys are destroyed elsewhere.
func (db *DB) Purge(ctx context.Context) error {
	for late := time.After(db.patience); ; {
		// What no reader needs moves first, beside those who write.
		var busy, pages, moved int
		if err := db.reader.QueryRowContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &pages, &moved); err != nil {
			return fmt.Errorf("move the catalog's log: %w", classify(err))
		}
		emptied, err := db.emptyLog(ctx)
		if emptied || err != nil {
			return classify(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return holdfast.Errorf(holdfast.Unavailable, "empty the catalog's log: readers are at work, try again")
		case <-time.After(purgeRest):
		}
	}
}

// emptyLog is false if readers are at work.
func (db *DB) emptyLog(ctx context.Context) (emptied bool, err error) {
	if err := db.turn.Acquire(ctx, 1); err != nil {
		return false, err
	}
	defer db.turn.Release(1)
	conn, err := db.writer.Conn(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	wait := func(d time.Duration) error {
		_, err := conn.ExecContext(context.WithoutCancel(ctx), fmt.Sprintf("PRAGMA busy_timeout(%d)", d.Milliseconds()))
		return err
	}
	if err := wait(purgeMoment); err != nil {
		return false, err
	}
	var busy, pages, moved int // the engine tells in a row that it could not
	err = conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
	return err == nil && busy == 0, errors.Join(err, wait(busyTimeout))
}

// shrinkPages is how many pages one step of Shrink moves: others write in between.
const shrinkPages = 250

// Shrink gives the space of deleted rows back to the file system. It waits for
// nobody: while readers of older snapshots are at work the file keeps its length,
// until the engine next moves its log. A merge of chunks deletes many rows at once.
func (db *DB) Shrink(ctx context.Context) error {
	for before := math.MaxInt; before > 0; {
		free, err := db.shrinkStep(ctx)
		if err != nil {
			return classify(err)
		}
		if free >= before { // a database of before this existed does not shrink
			break
		}
		before = free
	}
	_, err := db.reader.ExecContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)") // beside those who write
	return classify(err)
}

// shrinkStep returns how many pages were free before it.
func (db *DB) shrinkStep(ctx context.Context) (free int, err error) {
	if err := db.turn.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	defer db.turn.Release(1)
	if err := db.writer.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&free); err != nil || free == 0 {
		return 0, err
	}
	_, err = db.writer.ExecContext(ctx, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", shrinkPages))
	return free, err
}

// Close closes the database; transactions under way end first.
func (db *DB) Close() error { return errors.Join(db.reader.Close(), db.writer.Close()) }

// full reports the codes of a disk without space: beside its own word for it, the
// engine says so where it can't give the index of its log a size, or a quota or a
// limit on the size of files ends a write.
func full(code int) bool {
	return code&0xff == sqlite3.SQLITE_FULL || code == sqlite3.SQLITE_IOERR_SHMSIZE || code == sqlite3.SQLITE_IOERR_WRITE
}

// Full reports that a catalog could not be written for want of space.
func Full(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && full(e.Code())
}

// classify gives the engine's errors a kind: what can heal is Unavailable.
func classify(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	if full(e.Code()) {
		return holdfast.Errorf(holdfast.Unavailable, "the disk of the catalog is full: free space, or raise its quota, and try again: %w", err)
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return holdfast.Errorf(holdfast.Unavailable, "the catalog is busy: %w", err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return holdfast.Errorf(holdfast.Unavailable, "the catalog can't be written: check the rights of the data folder: %w", err)
	case sqlite3.SQLITE_IOERR:
		return holdfast.Errorf(holdfast.Unavailable, "the disk of the catalog reports an error: %w", err)
	case sqlite3.SQLITE_CONSTRAINT:
		return holdfast.Errorf(holdfast.Conflict, "this exists already or refers to what does not: %w", err)
	}
	return err
}
