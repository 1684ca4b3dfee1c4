// Package scratch makes folders that go when what they were made for has ended, and
// removes those that a maker who was killed has left behind.
//
// A file in the folder says that it is one, and of which kind; its maker holds a lock on
// that file as long as it lives. What is removed is a folder of the same user, with the
// file of that kind, whose lock nobody holds, and never what a link leads to: a folder
// that something else has made is left alone, whatever its name.
package scratch

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/holdfast-iot/holdfast"
)

// mark is the file that says what a folder is.
const mark = "scratch.lock"

func words(kind string) string { return "a scratch folder of holdfast: " + kind + "\n" }

// Kind is one purpose of folders.
type Kind struct {
	Name string // without a slash; made-up names begin with it
	// Before is asked before what was left is removed, as to unmount what it has; may be
	// nil.
	Before func(dir string) error
}

// Folder is a folder that its maker is at work in.
type Folder struct {
	Path string
	lock *os.File
}

// New makes a folder with a name of its own in another; "" is the system's for temporary
// files.
func (k Kind) New(parent string) (*Folder, error) {
	dir, err := os.MkdirTemp(parent, k.Name+"-")
	if err != nil {
		return nil, fmt.Errorf("make scratch folder: %w", err)
	}
	return k.take(dir)
}

// At makes the folder dir. What an earlier one of this kind has left there makes room; it
// is a Conflict if anything else is there.
func (k Kind) At(dir string) (*Folder, error) {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		cleared, cerr := k.clear(dir)
		if cerr != nil {
			return nil, cerr
		}
		if !cleared {
			return nil, holdfast.Errorf(holdfast.Conflict, "%s is there already: name a new folder", dir)
		}
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("make scratch folder: %w", err)
	}
	return k.take(dir)
}

// take marks a folder that was just made. The mark has its name only when it is locked.
func (k Kind) take(dir string) (*Folder, error) {
	temp := filepath.Join(dir, mark+".tmp")
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = f.WriteString(words(k.Name))
		err = errors.Join(err, syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), os.Rename(temp, filepath.Join(dir, mark)))
		if err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mark scratch folder: %w", err), os.RemoveAll(dir))
	}
	return &Folder{Path: dir, lock: f}, nil
}

// Remove removes the folder.
func (f *Folder) Remove() error {
	return errors.Join(os.RemoveAll(f.Path), f.lock.Close())
}

// Keep leaves what is in the folder, which is none of this package's any more.
func (f *Folder) Keep() error {
	return errors.Join(os.Remove(filepath.Join(f.Path, mark)), f.lock.Close())
}

// Release leaves the folder to the next Clear.
func (f *Folder) Release() error { return f.lock.Close() }

// Clear removes the folders with names of New in parent that makers of this kind who are
// dead have left, and names them.
func (k Kind) Clear(parent string) (cleared []string, err error) {
	if parent == "" {
		parent = os.TempDir()
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, fmt.Errorf("look for scratch folders: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), k.Name+"-") {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		done, cerr := k.clear(dir)
		if done {
			cleared = append(cleared, dir)
		}
		err = errors.Join(err, cerr)
	}
	return cleared, err
}

// clear removes dir if it was left. What is not this user's, or not ours, is not looked
// at further.
func (k Kind) clear(dir string) (cleared bool, err error) {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || !own(info) {
		return false, nil
	}
	f, err := os.OpenFile(filepath.Join(dir, mark), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() || !own(info) {
		return false, nil
	}
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil || string(text) != words(k.Name) || syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return false, nil
	}
	if now, err := os.Lstat(f.Name()); err != nil || !os.SameFile(now, info) { // another was faster
		return false, nil
	}
	if k.Before != nil {
		if err := k.Before(dir); err != nil {
			return false, fmt.Errorf("clear what was left in %s: %w", dir, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return false, fmt.Errorf("clear what was left in %s: %w", dir, err)
	}
	return true, nil
}

func own(info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == os.Getuid()
}
