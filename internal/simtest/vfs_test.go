package simtest

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/catalog"
)

// The catalog over the simulated disk: the power goes at every step of a short
// life; what was committed is there, whole, whatever is left of the rest.
func TestCatalogOutlivesPowerCuts(t *testing.T) {
	base := NewDisk(1)
	base.root.names["catalog"] = newFolder()
	base.root.settle()
	if _, err := catalogLife(t.Context(), base, 0); err != nil {
		t.Fatal(err)
	}
	cut, total := 1, 0
	for ; ; cut++ {
		for how := range uint64(4) {
			seed := uint64(cut)<<8 | how
			d := base.Clone(seed)
			steps := 0
			d.Plan(func(string, string) Fate {
				if steps++; steps == cut {
					return PowerCut + Fate(how%3)
				}
				return Fine
			}, nil)
			committed, err := catalogLife(t.Context(), d, 5)
			if err == nil {
				if total = steps; how > 0 {
					t.Fatal("the same life has another length")
				}
				break
			}
			next := d.Reboot(seed)
			v, err := RegisterVFS(next)
			if err != nil {
				t.Fatal(err)
			}
			db, err := catalog.Open(t.Context(), "/catalog", catalog.Options{VFS: v.Name(), Readers: 1})
			if err != nil {
				t.Fatalf("cut %d.%d: open: %v", cut, how, err)
			}
			var rows int
			var check string
			err = db.Read(t.Context(), func(tx *sql.Tx) error {
				if err := tx.QueryRow(`PRAGMA integrity_check`).Scan(&check); err != nil {
					return err
				}
				return tx.QueryRow(`SELECT count(*) FROM retired_key`).Scan(&rows)
			})
			if err != nil || check != "ok" || rows < 5+committed {
				t.Fatalf("cut %d.%d: %d of %d rows, %s: %v", cut, how, rows, committed, check, err)
			}
			db.Close()
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if total > 0 {
			break
		}
	}
	t.Logf("%d steps", total)
	if total < 30 {
		t.Errorf("the life of the catalog has only %d steps", total)
	}
}

// catalogLife writes a few rows and returns how many were committed.
func catalogLife(ctx context.Context, d *Disk, from int) (n int, err error) {
	v, err := RegisterVFS(d)
	if err != nil {
		return 0, err
	}
	defer v.Close()
	db, err := catalog.Open(ctx, "/catalog", catalog.Options{VFS: v.Name(), Readers: 1})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	for n = range 5 {
		err = db.Write(ctx, func(tx *sql.Tx) error {
			_, err := tx.Exec(`INSERT INTO retired_key (key_id, at) VALUES ($1, $2)`, fmt.Appendf(make([]byte, 900), "%d", from+n), n)
			return err
		})
		if err != nil {
			return n, err
		}
	}
	return 5, db.Purge(ctx)
}
