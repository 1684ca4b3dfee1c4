package ledger

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Verify does not sit on a reader of the catalog while the vault needs one: with
// as many at work as there are readers, none would come to its end.
func TestVerifyNeedsOneReader(t *testing.T) {
	dir := t.TempDir()
	db, err := catalog.Open(t.Context(), dir, catalog.Options{Readers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	ring := filepath.Join(dir, "keyring")
	if err := os.Mkdir(ring, 0o700); err != nil {
		t.Fatal(err)
	}
	holder, err := vault.CreateFileHolder(filepath.Join(t.TempDir(), "root.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Create(t.Context(), db, vault.Dir(ring), []vault.Holder{holder}, vault.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := Create(t.Context(), db, v, "hub.example/ledger")
	if err != nil {
		t.Fatal(err)
	}
	b := &book{l, t, db, v}
	for range verifyPage/100 + 1 { // more than a page
		o := b.party()
		err := db.Write(t.Context(), func(tx *sql.Tx) (err error) {
			for range 100 {
				_, err = l.Append(t.Context(), tx, o, "grant made", nil)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if b.vault, err = vault.Open(t.Context(), db, vault.Dir(ring), []vault.Holder{holder}, vault.Options{}); err != nil { // nothing is cached
		t.Fatal(err)
	}
	if b.Ledger, err = Open(t.Context(), db, b.vault); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := b.Verify(ctx)
	if err != nil || len(r.Faults) > 0 || r.Entries != verifyPage+100 {
		t.Errorf("report %+v, %v", r, err)
	}
	b.publish()
	b.exec(`UPDATE ledger_entry SET commitment = zeroblob(32) WHERE idx = $1`, verifyPage+1)
	if r := b.verify(); len(r.Faults) == 0 {
		t.Error("an altered entry of the second page was not found")
	}
}
