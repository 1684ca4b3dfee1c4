package server

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// tiny mounts a disk of so many KiB; grow gives it room.
func tiny(t *testing.T, size int) (dir string, grow func()) {
	t.Helper()
	mounts(t)
	dir = t.TempDir()
	tmpfs(t, dir, fmt.Sprintf("size=%dk", size))
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir, func() {
		t.Helper()
		if out, err := exec.Command("mount", "-o", "remount,size=300m", dir).CombinedOutput(); err != nil {
			t.Fatalf("remount: %v: %s", err, out)
		}
	}
}

// A restore onto a disk that is full anywhere on its way says so, how much it takes and
// what to do; with room it goes on in the same folder. So does a copy of the keyring.
func TestCommandsOnATinyDisk(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	b.take(h)
	h.halt()
	for _, size := range []int{60, 700, 3000} { // the catalog's file, the index of its log, the journal
		t.Run(fmt.Sprint("restore ", size), func(t *testing.T) {
			disk, grow := tiny(t, size)
			c, o := Config{Data: filepath.Join(disk, "new"), RootKey: h.rootKey}, b.options(filepath.Join(h.dir, keyringDir))
			_, err := Restore(t.Context(), c, o)
			if holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "no space left in "+c.Data) || !strings.Contains(err.Error(), "MiB are free now. Free space there") {
				t.Errorf("it ends with %v", err)
			}
			if _, err := Open(t.Context(), c); err == nil {
				t.Error("it starts")
			}
			grow()
			if _, err := Restore(t.Context(), c, o); err != nil {
				t.Errorf("with room: %v", err)
			}
		})
	}
	t.Run("copy", func(t *testing.T) {
		disk, grow := tiny(t, 4)
		dir := filepath.Join(disk, "copy")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := AddCopy(t.Context(), Config{Data: h.dir}, "safe", "file:"+dir); holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "free space") {
			t.Errorf("it ends with %v", err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) == 0 {
			t.Errorf("nothing was begun: the test tries nothing (%v)", err)
		}
		grow()
		if err := AddCopy(t.Context(), Config{Data: h.dir}, "safe", "file:"+dir); err != nil {
			t.Errorf("with room: %v", err)
		}
		wholeCopy(t, h.dir)
		if _, err := RemoveCopy(t.Context(), Config{Data: h.dir}, "safe"); err != nil {
			t.Error(err)
		}
	})
}

func wholeCopy(t *testing.T, data string) {
	t.Helper()
	r, err := ShowKeyring(t.Context(), Config{Data: data}, true, "")
	if err != nil || len(r.Copies) != 1 || r.Copies[0].State != CopyWhole {
		t.Errorf("the copy is %+v (%v)", r.Copies, err)
	}
}

// Wherever add-copy is killed, done again with the same words it comes to its end; what
// is not its own it leaves alone.
func TestAnAddCopyThatIsKilled(t *testing.T) {
	h := newHouse(t)
	h.halt()
	for n := 0; ; n++ {
		at := t.TempDir()
		dir, to := filepath.Join(at, "data"), filepath.Join(at, "copy")
		h.copyFolder(dir)
		if err := os.Mkdir(to, 0o700); err != nil {
			t.Fatal(err)
		}
		d := &dying{after: n}
		err := AddCopy(t.Context(), Config{Data: dir, Ground: d.ground()}, "safe", "file:"+to)
		ended := err == nil
		if !ended && !errors.Is(err, errKilled) {
			t.Fatalf("after %s: %v", d.last(), err)
		}
		if err := opens(t, dir); err != nil {
			t.Errorf("killed after %s the hub does not start: %v", d.last(), err)
		}
		if err := AddCopy(t.Context(), Config{Data: dir}, "safe", "file:"+to); err != nil && !strings.Contains(err.Error(), "there is a copy safe already") {
			t.Errorf("killed after %s it does not go on: %v", d.last(), err)
		}
		wholeCopy(t, dir)
		if ended {
			if n < 4 {
				t.Errorf("it was killed at %d places only", n)
			}
			break
		}
	}
	for _, name := range []string{"page-00000000000000000000000000000000", "lists-7", "notes.txt"} {
		to := t.TempDir()
		if err := os.WriteFile(filepath.Join(to, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := AddCopy(t.Context(), Config{Data: h.dir}, "safe", "file:"+to); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), name) {
			t.Errorf("beside %s: %v", name, err)
		}
	}
}

// Create leaves a part of the file at which the command is killed.
func (p dyingPlace) Create(files []vault.NewFile) error {
	for _, f := range files {
		if err := p.d.next("create " + f.Name); err != nil {
			p.Place.Create([]vault.NewFile{{Name: f.Name, Data: f.Data[:len(f.Data)/2]}})
			return err
		}
		if err := p.Place.Create([]vault.NewFile{f}); err != nil {
			return err
		}
	}
	return nil
}

func (p dyingPlace) Append(name string, at int64, data []byte) error {
	if err := p.d.next("append to " + name); err != nil {
		return err
	}
	return p.Place.Append(name, at, data)
}
