package server

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/backup"
)

// A copy of the keyring is in order, and older than what somebody knows by number: the
// catalog of the backup itself, or a later backup in the folder. What is restored is
// suspended, and says which numbers it lacks; where nobody knows of more it is not, nor
// with a copy that has them.
func TestARestoreKnowsByNumberWhatItLacks(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	ada := h.person("Ada")
	revoke := func() {
		t.Helper()
		c, err := h.access.Add(t.Context(), ada, access.Spec{Party: ada.Party, Label: "phone", Role: access.Owner}, nil)
		if err == nil {
			err = h.access.Revoke(t.Context(), ada, c.ID, "lost")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	revoke()
	first, oldest := b.take(h), h.ringCopy()
	alone := filepath.Join(t.TempDir(), "alone") // the folder, as it was then
	if err := os.CopyFS(alone, os.DirFS(b.dir)); err != nil {
		t.Fatal(err)
	}
	revoke()
	revoke()
	second, newer := b.take(h), h.ringCopy()
	last := func(ring string) uint64 {
		t.Helper()
		files, err := takeBacksIn(ring)
		if err != nil {
			t.Fatal(err)
		}
		read, err := h.ledger.ReadTakeBacks(t.Context(), files, h.stores.vault.Generation())
		if err != nil {
			t.Fatal(err)
		}
		return read.Last
	}
	end, had, has := last(oldest), first.Statement.TakeBacks, second.Statement.TakeBacks
	if had == 0 || end < had || has < end+2 || last(newer) < has {
		t.Fatalf("the backups know of %d and %d take-backs, the copies of %d and %d", had, has, end, last(newer))
	}
	more := last(newer)
	h.halt()
	for name, x := range map[string]struct {
		folder, snapshot, ring, why string
		again                       uint64
	}{
		"a later backup knows more":          {b.dir, first.Snapshot, oldest, fmt.Sprintf("the copy's take-backs end at %d, backup %s knows of %d", end, second.Snapshot, has), end - had},
		"its own catalog knows more":         {b.dir, second.Snapshot, oldest, fmt.Sprintf("the copy's take-backs end at %d, the catalog has %d", end, has), 0},
		"nobody knows more":                  {alone, first.Snapshot, oldest, "", end - had},
		"the copy has what the later knows":  {b.dir, first.Snapshot, newer, "", more - had},
		"the copy has what its catalog does": {b.dir, second.Snapshot, newer, "", more - has},
	} {
		f, err := backup.ReadFolder(x.folder)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "new")
		r, err := Restore(t.Context(), Config{Data: dir, RootKey: h.rootKey}, RestoreOptions{From: f, Snapshot: x.snapshot, Identities: b.ids, Keyring: x.ring})
		if err != nil || r.Suspended != x.why || r.TakenBack != x.again {
			t.Errorf("%s: suspended %q, %d carried out again, want %q and %d (%v)", name, r.Suspended, r.TakenBack, x.why, x.again, err)
		}
		state, err := readRestored(osFolder(dir))
		if err != nil || state.Why != x.why || state.Suspended != (x.why != "") {
			t.Errorf("%s: restore.json says %+v (%v)", name, state, err)
		}
	}
}
