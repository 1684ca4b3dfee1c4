package server

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/backup"
)

// restore restores the newest backup of b, with the keyring of h, into dir.
func (b *shelf) restore(h *house, dir, snapshot string, ids []age.Identity) (Restored, error) {
	b.t.Helper()
	f, err := backup.ReadFolder(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	return Restore(b.t.Context(), Config{Data: dir, RootKey: h.rootKey}, RestoreOptions{From: f, Snapshot: snapshot, Identities: ids, Keyring: filepath.Join(h.dir, keyringDir)})
}

func TestARestoredHubHasWhatWasBackedUpAndNothingThatWasErased(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	ada, ben := h.person("Ada"), h.person("Ben")
	lamp, clock := h.device(ada.Party, "lamp"), h.device(ben.Party, "clock")
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for i := range 500 {
		h.mustSend(lamp, number("lux", at.Add(time.Duration(i)*time.Second), float64(i)))
		h.mustSend(clock, number("tick", at.Add(time.Duration(i)*time.Second), float64(2*i)))
	}
	before := b.take(h)
	kept, err := h.read(ben, clock, "tick")
	if err != nil || len(kept) != 500 {
		t.Fatalf("%d readings before (%v)", len(kept), err)
	}

	f, err := backup.ReadFolder(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	drill, err := Drill(t.Context(), Config{Data: t.TempDir(), RootKey: h.rootKey}, RestoreOptions{From: f, Identities: b.ids, Keyring: filepath.Join(h.dir, keyringDir)})
	if err != nil || drill.Readings != before.Statement.Readings || len(drill.Different)+len(drill.Lost) > 0 {
		t.Fatalf("the drill finds %+v (%v)", drill, err)
	}

	scope, err := h.custody.ScopeOfParty(t.Context(), ada.Party)
	if err != nil {
		t.Fatal(err)
	}
	h.erase(ada, scope) // after the backup, which still has her ciphertext
	generation := h.stores.vault.Generation()
	h.halt()

	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	new := filepath.Join(t.TempDir(), "new")
	if _, err := b.restore(h, new, "", []age.Identity{other}); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("another identity: %v", err)
	}
	if _, err := b.restore(h, h.dir, "", b.ids); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("into a folder that is not empty: %v", err)
	}
	r, err := b.restore(h, new, "", b.ids)
	if err != nil {
		t.Fatal(err)
	}
	if r.Readings != 500 || len(r.Lost) != 1 || r.Suspended == "" {
		t.Errorf("restored: %+v", r)
	}
	if _, err := b.restore(h, new, "", b.ids); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("a second restore into the same folder: %v", err)
	}

	restored := &house{t: t, dir: new, rootKey: h.rootKey}
	restored.start()
	t.Cleanup(restored.halt)
	if got := restored.stores.vault.Generation(); got < generation {
		t.Errorf("generation %d after %d", got, generation)
	}
	have, err := restored.read(ben, clock, "tick")
	if err != nil || !slices.Equal(have, kept) {
		t.Errorf("%d readings of Ben's (%v)", len(have), err)
	}
	if have, err := restored.read(ada, lamp, "lux"); err == nil && len(have) > 0 {
		t.Errorf("%d erased readings can be read", len(have))
	}
	if restored.stores.restored.refuses(access.Principal{Role: access.Administrator, Credential: ben.Credential}) == nil {
		t.Error("an administrator of before comes in")
	}
	restored.halt()
	if _, err := ConfirmRestore(t.Context(), Config{Data: new, RootKey: h.rootKey}); err != nil {
		t.Fatal(err)
	}
	restored.start()
	if restored.stores.restored.Suspended {
		t.Error("it is suspended after the restore was confirmed")
	}
}

func TestATamperedBackupIsFound(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	lamp := h.device(h.person("Ada").Party, "lamp")
	h.mustSend(lamp, number("lux", time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), 1))
	taken := b.take(h)
	var pieces []string
	filepath.Walk(filepath.Join(b.dir, "pieces"), func(path string, info os.FileInfo, err error) error {
		if err == nil && strings.HasSuffix(path, ".age") {
			pieces = append(pieces, path)
		}
		return nil
	})
	if len(pieces) != taken.Pieces {
		t.Fatalf("%d pieces of %d", len(pieces), taken.Pieces)
	}
	for _, path := range pieces {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{len(whole) / 2, len(whole) - 1} {
			bad := slices.Clone(whole)
			bad[at] ^= 1
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if c := b.check(""); len(c.Bad) != 1 || !strings.Contains(c.Bad[0], strings.TrimSuffix(filepath.Base(path), ".age")) {
				t.Errorf("byte %d of %s: %v", at, filepath.Base(path), c.Bad)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list := filepath.Join(b.dir, "snapshots", taken.Snapshot+".list")
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, text[:len(text)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := backup.ReadFolder(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Open("", b.ids, ""); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("a list that was cut: %v", err)
	}
}
