package catalog

import (
	"context"
	"database/sql"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
)

// Readers neither wait for who writes nor write themselves, even if their
// connection is a new one.
func TestReadersDontWaitForAWriter(t *testing.T) {
	db, err := Open(t.Context(), t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	began := time.Now()
	err = db.Write(t.Context(), func(*sql.Tx) error {
		return db.Read(t.Context(), func(tx *sql.Tx) error {
			var n int
			return tx.QueryRow(`SELECT count(*) FROM key_list`).Scan(&n)
		})
	})
	if d := time.Since(began); err != nil || d > busyTimeout/2 {
		t.Errorf("after %s: %v", d, err)
	}
}

// Who waits to write gets its turn in the order of asking.
func TestWritersTakeTurns(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		db, err := Open(t.Context(), dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		var got, want []int
		var running sync.WaitGroup
		err = db.Write(t.Context(), func(*sql.Tx) error {
			for i := range 50 {
				running.Go(func() {
					if err := db.Write(t.Context(), func(*sql.Tx) error { got = append(got, i); return nil }); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				want = append(want, i)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		running.Wait()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

// While merges delete rows by the thousand, the file shrinks and the log is emptied,
// nobody is told that the catalog is busy and nobody waits for a timeout, though
// reads are given up in the middle and connections made anew.
func TestNobodyStarvesBesidePurgeAndShrink(t *testing.T) {
	db, err := Open(t.Context(), t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	loop := func(what string, f func(context.Context) error) {
		running.Go(func() {
			longest := time.Duration(0)
			n := 0
			for ; n == 0 || ctx.Err() == nil; n++ {
				began := time.Now()
				limited, cancel := context.WithTimeout(t.Context(), busyTimeout)
				if err := f(limited); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				cancel()
				longest = max(longest, time.Since(began))
			}
			t.Logf("%d times %s; the longest took %s", n, what, longest)
		})
	}
	for range 3 {
		loop("written", func(ctx context.Context) error {
			return db.Write(ctx, func(tx *sql.Tx) error {
				_, err := tx.Exec(`INSERT INTO retired_key (key_id, at) VALUES (randomblob(16), 1)`)
				return err
			})
		})
	}
	loop("read", func(ctx context.Context) error {
		return db.Read(ctx, func(tx *sql.Tx) error {
			var n int
			return tx.QueryRow(`SELECT count(*) FROM (SELECT 1 FROM key_list LIMIT 10)`).Scan(&n)
		})
	})
	loop("given up", func(ctx context.Context) error { // it loses its connection
		short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
		defer cancel()
		err := db.Read(short, func(tx *sql.Tx) error {
			var n int
			return tx.QueryRowContext(short, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n`).Scan(&n)
		})
		if holdfast.KindOf(err) == holdfast.Unavailable {
			return err
		}
		return nil
	})
	for range 2 {
		for i, step := range []func() error{
			func() error {
				return db.Write(ctx, func(tx *sql.Tx) error {
					_, err := tx.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
						INSERT INTO key_list (owner, bucket, owner_key, box_sealed) SELECT x'01', i, x'01', zeroblob(500) FROM n`)
					return err
				})
			},
			func() error {
				return db.Write(ctx, func(tx *sql.Tx) error {
					_, err := tx.Exec(`DELETE FROM key_list`)
					return err
				})
			},
			func() error { return db.Shrink(ctx) },
			func() error { return db.Purge(ctx) },
		} {
			began := time.Now()
			if err := step(); err != nil {
				t.Error(err)
			}
			t.Logf("step %d of a merge took %s", i, time.Since(began))
		}
	}
	stop()
	running.Wait()
}
