package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// errKilled is what everything ends with once a command is dead.
var errKilled = errors.New("killed")

// dying is what changes on the disk of a command that is killed after some of it: as
// after a kill, nothing that follows happens, clearing up neither.
type dying struct {
	after int // changes
	done  []string
}

func (d *dying) next(what string) error {
	if len(d.done) == d.after {
		return errKilled
	}
	d.done = append(d.done, what)
	return nil
}

func (d *dying) last() string { return fmt.Sprint(len(d.done), ": ", d.done[max(0, len(d.done)-2):]) }

func (d *dying) ground() *Ground {
	g := Machine()
	g.RootKeys = dyingFiles{vault.OSFiles(), d}
	g.Folder = func(dir string) Folder { return dyingFolder{osFolder(dir), d} }
	g.Keyring = func(dir string) vault.Place { return dyingPlace{vault.Dir(dir), d} }
	return g
}

type dyingFiles struct {
	vault.Files
	d *dying
}

func (f dyingFiles) OpenFile(path string, flag int, mode fs.FileMode) (vault.File, error) {
	if flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		return f.Files.OpenFile(path, flag, mode)
	}
	if err := f.d.next("open " + filepath.Base(path)); err != nil {
		return nil, err
	}
	file, err := f.Files.OpenFile(path, flag, mode)
	return dyingFile{file, f.d}, err
}

func (f dyingFiles) Link(from, to string) error {
	if err := f.d.next("link " + filepath.Base(to)); err != nil {
		return err
	}
	return f.Files.Link(from, to)
}

func (f dyingFiles) Rename(from, to string) error {
	if err := f.d.next("rename " + filepath.Base(to)); err != nil {
		return err
	}
	return f.Files.Rename(from, to)
}

func (f dyingFiles) Remove(path string) error {
	if err := f.d.next("remove " + filepath.Base(path)); err != nil {
		return err
	}
	return f.Files.Remove(path)
}

type dyingFile struct {
	vault.File
	d *dying
}

func (f dyingFile) Write(p []byte) (int, error) {
	if err := f.d.next("write"); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f dyingFile) WriteAt(p []byte, at int64) (int, error) {
	if err := f.d.next("overwrite"); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, at)
}

type dyingFolder struct {
	osFolder
	d *dying
}

func (f dyingFolder) WriteJSON(name string, v any) error {
	if err := f.d.next("write " + name); err != nil {
		return err
	}
	return f.osFolder.WriteJSON(name, v)
}

func (f dyingFolder) Remove(name string) error {
	if err := f.d.next("remove " + name); err != nil {
		return err
	}
	return f.osFolder.Remove(name)
}

type dyingPlace struct {
	vault.Place
	d *dying
}

func (p dyingPlace) Write(name string, data []byte) error {
	if err := p.d.next("write " + name); err != nil {
		return err
	}
	return p.Place.Write(name, data)
}

func (p dyingPlace) Remove(names ...string) error {
	if err := p.d.next("remove from the keyring"); err != nil {
		return err
	}
	return p.Place.Remove(names...)
}

// copyFolder copies the data folder, but for the readings.
func (h *house) copyFolder(to string) {
	h.t.Helper()
	entries, err := os.ReadDir(h.dir)
	if err == nil {
		err = os.Mkdir(to, 0o700)
	}
	for _, e := range entries {
		from, at := filepath.Join(h.dir, e.Name()), filepath.Join(to, e.Name())
		switch {
		case err != nil || e.Name() == journalDir || e.Name() == segmentsDir:
		case e.IsDir():
			err = os.CopyFS(at, os.DirFS(from))
		default:
			err = copyFile(from, at)
		}
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// opens tries whether a plain start finds the root key.
func opens(t *testing.T, dir string) error {
	t.Helper()
	c := Config{Data: dir}.withDefaults()
	s, err := openKeyring(t.Context(), c)
	if err != nil {
		return err
	}
	return s.close()
}

// Wherever a recovery is killed, done again with the same arguments it comes to its end,
// and the hub starts without being told where the root key is.
func TestARecoveryThatIsKilled(t *testing.T) {
	for _, holders := range []string{"one", "two"} {
		t.Run(holders, func(t *testing.T) {
			h := newHouse(t)
			deal, shares, err := escrow.Deal("holdfast/test", 2, []string{"notary", "safe", "board"}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if err := h.stores.vault.SetEscrow(t.Context(), &deal); err != nil {
				t.Fatal(err)
			}
			h.halt()
			usb := filepath.Join(t.TempDir(), "usb.key")
			if holders == "two" {
				if _, err := AddHolder(t.Context(), Config{Data: h.dir}, HolderSpec{Name: "usb", URL: "file:" + usb}); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(usb); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Remove(h.rootKey); err != nil {
				t.Fatal(err)
			}
			private, err := escrow.Combine(shares[:2])
			if err != nil {
				t.Fatal(err)
			}
			for n := 0; ; n++ {
				at := t.TempDir()
				dir, other := filepath.Join(at, "data"), filepath.Join(at, "elsewhere", "other.key")
				h.copyFolder(dir)
				d := &dying{after: n}
				_, err := RecoverRootKey(t.Context(), Config{Data: dir, RootKey: other, Ground: d.ground()}, private)
				ended := err == nil
				if !ended && !errors.Is(err, errKilled) {
					t.Fatalf("after %s: %v", d.last(), err)
				}
				if _, err := os.Lstat(other); err != nil {
					if _, err := RecoverRootKey(t.Context(), Config{Data: dir, RootKey: other}, private); err != nil {
						t.Errorf("killed after %s it does not go on: %v", d.last(), err)
					}
				}
				if err := opens(t, dir); err != nil {
					t.Errorf("after %s the root key is made, and a plain start does not find it: %v", d.last(), err)
				}
				if left, _ := filepath.Glob(other + ".*"); len(left) > 0 {
					t.Errorf("after %s there is left %v", d.last(), left)
				}
				if ended {
					if n < 8 {
						t.Errorf("it was killed at %d places only", n)
					}
					return
				}
			}
		})
	}
}

// Wherever holder add is killed, done again with the same arguments it comes to its end.
func TestAHolderAddThatIsKilled(t *testing.T) {
	h := newHouse(t)
	h.halt()
	for n := 0; ; n++ {
		at := t.TempDir()
		dir, usb := filepath.Join(at, "data"), filepath.Join(at, "usb.key")
		h.copyFolder(dir)
		spec, d := HolderSpec{Name: "usb", URL: "file:" + usb}, &dying{after: n}
		_, err := AddHolder(t.Context(), Config{Data: dir, Ground: d.ground()}, spec)
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatalf("after %s: %v", d.last(), err)
		}
		ended := err == nil
		if err := opens(t, dir); err != nil {
			t.Errorf("killed after %s the hub does not start: %v", d.last(), err)
		}
		if _, err := AddHolder(t.Context(), Config{Data: dir}, spec); err != nil && !ended {
			if holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "is holder usb already") {
				t.Errorf("killed after %s it does not go on: %v", d.last(), err)
			}
		}
		all, err := ListHolders(t.Context(), Config{Data: dir})
		if err != nil || len(all) != 2 || all[1].State != HolderHolds || !slices.Equal(all[1].Generations, []uint64{1}) || all[1].AddedAt.IsZero() {
			t.Errorf("killed after %s: %+v, %v", d.last(), all, err)
		}
		if left, _ := filepath.Glob(usb + ".*"); len(left) > 0 {
			t.Errorf("killed after %s there is left %v", d.last(), left)
		}
		if ended {
			if n < 8 {
				t.Errorf("it was killed at %d places only", n)
			}
			return
		}
	}
}

// What may hold a key is never taken for what an earlier attempt has left.
func TestAHolderIsNotAddedOverAnother(t *testing.T) {
	h, other := newHouse(t), newHouse(t)
	h.halt()
	other.halt()
	at := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(at, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	usb := filepath.Join(at, "usb.key")
	if _, err := AddHolder(t.Context(), Config{Data: other.dir}, HolderSpec{Name: "usb", URL: "file:" + usb}); err != nil {
		t.Fatal(err)
	}
	empty := "{\n  \"holdfast-root-key\": \"1\",\n  \"ring\": \"AAAAAAAAAAAAAAAAAAAAAA==\",\n  \"keys\": {}\n}\n"
	link := filepath.Join(at, "link")
	if err := os.Symlink(file("target", empty), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{other.rootKey, usb, link,
		file("nothing", ""), file("text", "hello"), file("cut", empty[:40]), file("more", empty+"x"), file("newer", strings.Replace(empty, `"1"`, `"2"`, 1)),
		file("keys", strings.Replace(empty, "{}", `{"1": "AAAA"}`, 1)), file("twice", strings.Replace(empty, "{}", `{"1": "AAAA"}, "keys": {}`, 1))} {
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := AddHolder(t.Context(), Config{Data: h.dir}, HolderSpec{Name: "usb", URL: "file:" + path}); holdfast.KindOf(err) != holdfast.Conflict {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
		if is, err := os.ReadFile(path); err != nil || string(is) != string(was) {
			t.Errorf("%s is not what it was (%v)", filepath.Base(path), err)
		}
	}
	if err := opens(t, other.dir); err != nil {
		t.Error(err)
	}
}
