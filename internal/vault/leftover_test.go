package vault

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// failingFiles is the operating system, of which the n-th change from now fails,
// done or not. It looks at what loses its last name.
type failingFiles struct {
	Files
	t    *testing.T
	n    int
	done bool
}

type failingFile struct {
	File
	of *failingFiles
}

func (f *failingFiles) step(do func() error) error {
	if f.n--; f.n != 0 {
		return do()
	}
	if f.done {
		return errors.Join(do(), syscall.EIO)
	}
	return syscall.EIO
}

func (f *failingFiles) OpenFile(path string, flag int, mode fs.FileMode) (File, error) {
	file, err := f.Files.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	return failingFile{file, f}, nil
}

func (f *failingFiles) Link(from, to string) error {
	return f.step(func() error { return f.Files.Link(from, to) })
}

func (f *failingFiles) Rename(from, to string) error {
	return f.step(func() error { return f.Files.Rename(from, to) })
}

func (f *failingFiles) SyncFolder(path string) error {
	return f.step(func() error { return f.Files.SyncFolder(path) })
}

func (f *failingFiles) Remove(path string) error {
	return f.step(func() error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		i, _ := os.Stat(path)
		other, err := os.Stat(strings.TrimSuffix(path, oldExt))
		if !(err == nil && os.SameFile(i, other) && strings.HasSuffix(path, oldExt)) && len(bytes.Trim(b, "\x00")) > 0 {
			f.t.Errorf("%s loses its name with its bytes", filepath.Base(path))
		}
		return f.Files.Remove(path)
	})
}

func (f failingFile) Write(p []byte) (n int, err error) {
	return n, f.of.step(func() error { n, err = f.File.Write(p); return err })
}

func (f failingFile) Sync() error { return f.of.step(f.File.Sync) }

// Whichever step of a change of the root key's file fails: no file with a key in
// it loses its name before its bytes are overwritten, and the next open leaves
// none but the one.
func TestNoRootKeyIsLeftBehind(t *testing.T) {
	for n := 1; ; n++ {
		steps := 0
		for _, done := range []bool{false, true} {
			path := filepath.Join(t.TempDir(), "root.key")
			if _, err := CreateFileHolder(path, nil); err != nil {
				t.Fatal(err)
			}
			disk := &failingFiles{Files: osFiles{}, t: t, done: done}
			h, err := OpenFileHolderOn(disk, path, nil)
			if err != nil {
				t.Fatalf("step %d: %v", n, err)
			}
			disk.n = n
			h.Prepare(t.Context(), 1)
			h.Prepare(t.Context(), 2)
			h.Destroy(t.Context(), 1)
			steps = n - disk.n
			disk.n = 0
			if _, err = OpenFileHolderOn(disk, path, nil); err != nil {
				t.Fatalf("step %d: open: %v", n, err)
			}
			for _, other := range []string{tempExt, oldExt} {
				if _, err := os.Stat(path + other); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("step %d: root.key%s is still there: %v", n, other, err)
				}
			}
		}
		if n > steps {
			t.Logf("%d steps", steps)
			return
		}
	}
}

// plainFiles are of a file system without hard links, as FAT is.
type plainFiles struct{ osFiles }

func (plainFiles) Link(from, to string) error {
	if _, err := os.Lstat(from); err != nil {
		return err
	}
	return &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.EPERM}
}

func TestFileSystemWithoutLinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.key")
	h, err := CreateFileHolderOn(plainFiles{}, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err = h.Prepare(t.Context(), 1); holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), "ext4") {
		t.Errorf("a second write: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", err)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
