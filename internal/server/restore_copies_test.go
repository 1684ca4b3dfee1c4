package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// Of two copies that each lack something, both are named, and what helps does help. No
// more is read of a copy than a keyring has.
func TestCopiesThatAreNotWhole(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	h.owner("ada")
	b.take(h)
	h.halt()
	usb, safe, third := t.TempDir(), t.TempDir(), t.TempDir()
	from := os.DirFS(filepath.Join(h.dir, keyringDir))
	for _, dir := range []string{usb, safe, third} {
		if err := os.CopyFS(dir, from); err != nil {
			t.Fatal(err)
		}
	}
	const backs = "takebacks-00000000000000000001"
	pages, err := filepath.Glob(filepath.Join(safe, "page-*"))
	if err != nil || len(pages) == 0 {
		t.Fatal("no page", err)
	}
	info, err := os.Stat(pages[0])
	if err = errors.Join(err, os.Truncate(pages[0], info.Size()-1), os.WriteFile(filepath.Join(safe, backs), []byte("some"), 0o600), os.WriteFile(filepath.Join(third, backs), []byte("some"), 0o600)); err != nil {
		t.Fatal(err)
	}
	both := []keyringCopy{{Name: "usb", URL: "file:" + usb}, {Name: "safe", URL: "file:" + safe}}
	for _, dir := range []string{usb, safe} {
		_, err := lookAtCopies(Config{}, dir, both)
		if holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "neither copy") || !strings.Contains(err.Error(), "more owner keys") || !strings.Contains(err.Error(), "more take-backs") {
			t.Errorf("with %s: %v", dir, err)
		}
	}
	if _, err := lookAtCopies(Config{}, third, both); err != nil {
		t.Errorf("with both put together: %v", err)
	}

	for _, dir := range []string{filepath.Join(usb, "new"), filepath.Join(b.dir, "new")} {
		if _, err := Restore(t.Context(), Config{Data: dir, RootKey: h.rootKey}, b.options(usb)); holdfast.KindOf(err) != holdfast.Invalid || !gone(dir) {
			t.Errorf("into %s: %v", dir, err)
		}
	}
	if err := os.WriteFile(filepath.Join(usb, "junk"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, names, err := newestHead(usb); err != nil || strings.Contains(strings.Join(names, " "), "junk") {
		t.Errorf("of a copy it takes %s, %v", names, err)
	}
	head, err := filepath.Glob(filepath.Join(usb, "head-*"))
	if err = errors.Join(err, os.Truncate(head[0], 3<<30)); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), Config{Data: filepath.Join(t.TempDir(), "new"), RootKey: h.rootKey}, b.options(usb)); holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a head of 3 GB: %v", err)
	}
}
