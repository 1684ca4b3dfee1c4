package catalog

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

func TestWriteIsAllOrNothing(t *testing.T) {
	db, err := Open(t.Context(), t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	insert := func(tx *sql.Tx, owner string) error {
		_, err := tx.Exec(`INSERT INTO key_list (owner, bucket, owner_key, box_sealed) VALUES ($1, 0, $2, $2)`, []byte(owner), []byte{1})
		return err
	}
	boom := errors.New("boom")
	err = db.Write(t.Context(), func(tx *sql.Tx) error {
		if err := insert(tx, "a"); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("write: %v", err)
	}
	if err := db.Write(t.Context(), func(tx *sql.Tx) error { return insert(tx, "b") }); err != nil {
		t.Fatal(err)
	}
	if err := db.Write(t.Context(), func(tx *sql.Tx) error { return insert(tx, "b") }); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("a second row of the same key: %v", err)
	}
	var n int
	err = db.Read(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRow(`SELECT count(*) FROM key_list`).Scan(&n)
	})
	if err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
	err = db.Read(t.Context(), func(tx *sql.Tx) error { return insert(tx, "c") })
	if err == nil {
		t.Error("a read wrote")
	}
}

// TestShrink has the file back at its size once many rows have come and gone.
func TestShrink(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	size := func() int64 {
		t.Helper()
		if err := db.Shrink(t.Context()); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, File))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	empty := size()
	err = db.Write(t.Context(), func(tx *sql.Tx) error {
		for i := range 20_000 {
			if _, err := tx.Exec(`INSERT INTO key_list (owner, bucket, owner_key, box_sealed) VALUES ($1, $2, $1, $3)`, []byte("a"), i, make([]byte, 200)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	full := size()
	if err := db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`DELETE FROM key_list WHERE bucket > 0`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if again := size(); full < 4<<20 || again > empty+empty/8 {
		t.Errorf("the file had %d bytes, then %d with the rows, then %d without", empty, full, again)
	}
}

// While a purge waits for a reader, others write.
func TestPurgeThatWaitsLetsOthersWrite(t *testing.T) {
	db, err := Open(t.Context(), t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.patience = time.Hour
	write := func() error {
		return db.Write(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec(`INSERT INTO retired_key (key_id, at) VALUES (randomblob(16), 1)`)
			return err
		})
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	purged := make(chan error, 1)
	err = db.Read(t.Context(), func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRow(`SELECT count(*) FROM retired_key`).Scan(&n); err != nil {
			return err
		}
		if err := write(); err != nil { // what the reader does not see
			return err
		}
		go func() { purged <- db.Purge(t.Context()) }()
		for range 20 { // many moments of the purge
			if err := write(); err != nil {
				return err
			}
			select {
			case err := <-purged:
				t.Errorf("purged beside a reader: %v", err)
				purged <- err
				return nil
			case <-time.After(purgeMoment):
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-purged; err != nil {
		t.Error(err)
	}
}

// A reader keeps the engine from emptying its log: then Purge has not purged.
func TestPurgeSaysWhenTheLogIsNotEmptied(t *testing.T) {
	db, err := Open(t.Context(), t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.patience = 50 * time.Millisecond // not 10 s
	write := func() {
		t.Helper()
		if err := db.Write(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec(`INSERT INTO retired_key (key_id, at) VALUES (randomblob(16), 1)`)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	write()
	err = db.Read(t.Context(), func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRow(`SELECT count(*) FROM retired_key`).Scan(&n); err != nil {
			return err
		}
		write()
		if err := db.Purge(t.Context()); holdfast.KindOf(err) != holdfast.Unavailable {
			t.Errorf("purge beside a reader: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Purge(t.Context()); err != nil {
		t.Error(err)
	}
}
