package scratch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// What a dead maker has left goes; what one who lives has, another kind's, and what
// nobody of ours made stays.
func TestClear(t *testing.T) {
	in := t.TempDir()
	asked := ""
	k := Kind{Name: "try", Before: func(dir string) error { asked = dir; return nil }}
	left, err := k.New(in)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(left.Path, "keys", "root.key"), "secret")
	lives, err := k.New(in)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Kind{Name: "try-another"}.New(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(left.Release(), other.Release()); err != nil { // as a kill does
		t.Fatal(err)
	}
	write(t, filepath.Join(in, "try-mine", "thesis.txt"), "years of work")
	write(t, filepath.Join(in, "try-marked", mark), "something else\n")
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	write(t, filepath.Join(elsewhere, mark), words("try"))
	if err := errors.Join(os.Symlink(elsewhere, filepath.Join(in, "try-link")), os.Mkdir(filepath.Join(in, "try-linked"), 0o700),
		os.Symlink(filepath.Join(elsewhere, mark), filepath.Join(in, "try-linked", mark))); err != nil {
		t.Fatal(err)
	}
	cleared, err := k.Clear(in)
	if err != nil || strings.Join(cleared, " ") != left.Path || asked != left.Path {
		t.Errorf("cleared: %v (%v), asked of %s", cleared, err, asked)
	}
	if _, err := os.Lstat(left.Path); err == nil {
		t.Error("what was left is there")
	}
	for _, stays := range []string{lives.Path, other.Path, filepath.Join(in, "try-mine", "thesis.txt"), filepath.Join(in, "try-marked", mark), filepath.Join(elsewhere, mark), filepath.Join(in, "try-linked", mark)} {
		if _, err := os.Stat(stays); err != nil {
			t.Error(err)
		}
	}
	if err := lives.Remove(); err != nil {
		t.Error(err)
	}
	if again, err := k.Clear(in); err != nil || len(again) > 0 {
		t.Errorf("cleared again: %v (%v)", again, err)
	}
}

// A folder of a given name takes the place of what was left there, and of nothing else.
func TestAt(t *testing.T) {
	k, dir := Kind{Name: "try"}, filepath.Join(t.TempDir(), "dir")
	f, err := k.At(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.At(dir); err == nil {
		t.Error("a folder is made where somebody is at work")
	}
	write(t, filepath.Join(dir, "old"), "")
	if err := f.Release(); err != nil {
		t.Fatal(err)
	}
	if f, err = k.At(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "old")); err == nil {
		t.Error("what was left is there")
	}
	write(t, filepath.Join(dir, "report"), "")
	if err := f.Keep(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.At(dir); err == nil {
		t.Error("what was kept is removed")
	}
	if have, err := os.ReadDir(dir); err != nil || len(have) != 1 || have[0].Name() != "report" {
		t.Errorf("kept: %v (%v)", have, err)
	}
}

// What can't be made ready to go stays, and is named.
func TestBefore(t *testing.T) {
	busy := errors.New("busy")
	k, in := Kind{Name: "try", Before: func(string) error { return busy }}, t.TempDir()
	f, err := k.New(in)
	if err != nil {
		t.Fatal(err)
	}
	f.Release()
	if cleared, err := k.Clear(in); !errors.Is(err, busy) || !strings.Contains(err.Error(), f.Path) || len(cleared) > 0 {
		t.Errorf("cleared %v, %v", cleared, err)
	}
}
