package server

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
)

// TestARestoreOfTwoHolders: any one holder's root key is enough for a restore; the
// other is fenced, so that nobody forgets it.
func TestARestoreOfTwoHolders(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	ada := h.person("Ada")
	lamp := h.device(ada.Party, "lamp")
	h.mustSend(lamp, number("lux", time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), 5))
	h.halt()
	second := filepath.Join(t.TempDir(), "second.key")
	if _, err := AddHolder(t.Context(), Config{Data: h.dir}, HolderSpec{Name: "second", URL: "file:" + second}); err != nil {
		t.Fatal(err)
	}
	h.start()
	b.take(h)
	h.halt()
	f, err := backup.ReadFolder(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	o := RestoreOptions{From: f, Identities: b.ids, Keyring: filepath.Join(h.dir, keyringDir)}
	if d, err := Drill(t.Context(), Config{Data: t.TempDir(), RootKey: second}, o); err != nil || d.Readings != 1 {
		t.Errorf("a drill with the second's root key: %+v, %v", d, err)
	}
	if _, err := Restore(t.Context(), Config{Data: filepath.Join(t.TempDir(), "new"), RootKey: newHouse(t).rootKey}, o); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("with another hub's root key: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "new")
	if r, err := Restore(t.Context(), Config{Data: dir, RootKey: second}, o); err != nil || r.Readings != 1 {
		t.Fatalf("with the second's root key: %+v, %v", r, err)
	}
	all, err := ListHolders(t.Context(), Config{Data: dir})
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v: %v", all, err)
	}
	for _, x := range all {
		if fenced := x.State == HolderFenced; fenced != (x.Name == rootKeyHolder) {
			t.Errorf("holder %s is %s", x.Name, x.State)
		}
	}
}
