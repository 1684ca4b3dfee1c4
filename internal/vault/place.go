package vault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// Place keeps a copy of the keyring's files. What it holds is useless without a
// holder. Write and Append are durable when they return; a removed file is
// overwritten first as far as the place allows.
type Place interface {
	Write(name string, data []byte) error // whole or not at all
	Append(name string, at int64, data []byte) error
	Read(name string) ([]byte, error)
	Remove(name string) error
	List() ([]string, error)
}

// Dir is a Place in a folder.
type Dir string

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

func (d Dir) Write(name string, data []byte) error { return replaceFile(d.path(name), data) }

func (d Dir) Append(name string, at int64, data []byte) error {
	f, err := os.OpenFile(d.path(name), os.O_WRONLY, 0)
	if err != nil {
		return diskError("open keyring page", err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, at); err != nil {
		return diskError("write keyring page", err)
	}
	return diskError("sync keyring page", f.Sync())
}

func (d Dir) Read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

// Remove takes the name from the file before its bytes change: a crash must not
// leave a file of zeros where the next start looks for a keyring.
func (d Dir) Remove(name string) error {
	path := d.path(name)
	if err := os.Rename(path, path+goneExt); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return diskError("remove keyring file", err)
	}
	if err := syncDir(string(d)); err != nil {
		return err
	}
	return finishRemove(path + goneExt)
}

// finishRemove overwrites and removes a file that has lost its name.
func finishRemove(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return diskError("open keyring file", err)
	}
	defer f.Close()
	if err := overwrite(f); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return diskError("remove keyring file", err)
	}
	return syncDir(filepath.Dir(path))
}

// List ends what a crash left half replaced or half removed before it answers.
func (d Dir) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), oldExt); ok {
			if err := finishReplace(d.path(name)); err != nil {
				return nil, err
			}
		}
		ext := filepath.Ext(e.Name())
		if ext == goneExt {
			if err := finishRemove(d.path(e.Name())); err != nil {
				return nil, err
			}
		}
		if e.Type().IsRegular() && ext != tempExt && ext != oldExt && ext != goneExt {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// where is how a message names a file of the place.
func where(p Place, name string) string {
	if d, ok := p.(Dir); ok {
		return d.path(name)
	}
	return name
}

const tempExt = ".tmp"

// oldExt is on a second name of a file that is being replaced: while it is there,
// the bytes behind it are still to be overwritten.
const oldExt = ".old"

// goneExt is on a file that is being removed.
const goneExt = ".gone"

// replaceFile puts data at path, durably and whole or not at all, with mode
// 0600, and overwrites the bytes of the file that was there. The old file keeps a
// name until that is done, so that finishReplace can do it after a crash.
func replaceFile(path string, data []byte) error {
	if err := finishReplace(path); err != nil {
		return err
	}
	temp, old := path+tempExt, path+oldExt
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return diskError("write "+filepath.Base(path), err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		if err = os.Link(path, old); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(temp)
		return diskError("write "+filepath.Base(path), err)
	}
	if err := os.Rename(temp, path); err != nil {
		return diskError("replace "+filepath.Base(path), err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	return finishReplace(path)
}

// finishReplace overwrites and removes what a replaceFile left of the file that it
// replaced. If the replacement did not happen, only the second name goes.
func finishReplace(path string) error {
	f, err := os.OpenFile(path+oldExt, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return diskError("overwrite file", err)
	}
	defer f.Close()
	was, err := f.Stat()
	if err != nil {
		return diskError("overwrite file", err)
	}
	if is, err := os.Stat(path); err != nil {
		return diskError("overwrite file", err)
	} else if !os.SameFile(was, is) {
		if err := overwrite(f); err != nil {
			return err
		}
	}
	if err := os.Remove(path + oldExt); err != nil {
		return diskError("overwrite file", err)
	}
	return syncDir(filepath.Dir(path))
}

// overwrite fills a file with zeros, durably.
func overwrite(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return diskError("overwrite file", err)
	}
	if _, err := io.CopyN(io.NewOffsetWriter(f, 0), zeros{}, info.Size()); err != nil {
		return diskError("overwrite file", err)
	}
	return diskError("overwrite file", f.Sync())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return diskError("open folder", err)
	}
	defer d.Close()
	return diskError("sync folder", d.Sync())
}

// diskError gives a failed file operation its kind: it may work later.
func diskError(what string, err error) error {
	if err == nil {
		return nil
	}
	return holdfast.Errorf(holdfast.Unavailable, "%s: %w", what, fmt.Errorf("%w (free space, or check the rights of the folder)", err))
}
