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
func Dir(path string) Place { return DirOn(osFiles{}, path) }

// DirOn is Dir in another file system than the operating system's.
func DirOn(files Files, path string) Place { return folder{files, path} }

type folder struct {
	files Files
	dir   string
}

func (d folder) path(name string) string { return filepath.Join(d.dir, name) }

func (d folder) Write(name string, data []byte) error {
	return replaceFile(d.files, d.path(name), data)
}

func (d folder) Append(name string, at int64, data []byte) error {
	f, err := d.files.OpenFile(d.path(name), os.O_WRONLY, 0)
	if err != nil {
		return diskError("open keyring page", err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, at); err != nil {
		return diskError("write keyring page", err)
	}
	return diskError("sync keyring page", f.Sync())
}

func (d folder) Read(name string) ([]byte, error) { return readFile(d.files, d.path(name)) }

// Remove takes the name from the file before its bytes change: a crash must not
// leave a file of zeros where the next start looks for a keyring.
func (d folder) Remove(name string) error {
	path := d.path(name)
	if err := d.files.Rename(path, path+goneExt); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return diskError("remove keyring file", err)
	}
	if err := syncDir(d.files, d.dir); err != nil {
		return err
	}
	return finishRemove(d.files, path+goneExt)
}

// finishRemove overwrites and removes a file that has lost its name.
func finishRemove(files Files, path string) error {
	f, err := files.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return diskError("open keyring file", err)
	}
	defer f.Close()
	if err := overwrite(f); err != nil {
		return err
	}
	if err := files.Remove(path); err != nil {
		return diskError("remove keyring file", err)
	}
	return syncDir(files, filepath.Dir(path))
}

// List ends what a crash left half replaced or half removed before it answers.
func (d folder) List() ([]string, error) {
	entries, err := d.files.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), oldExt); ok {
			if err := finishReplace(d.files, d.path(name)); err != nil {
				return nil, err
			}
		}
		ext := filepath.Ext(e.Name())
		if ext == goneExt {
			if err := finishRemove(d.files, d.path(e.Name())); err != nil {
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
	if d, ok := p.(folder); ok {
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
func replaceFile(files Files, path string, data []byte) error {
	if err := finishReplace(files, path); err != nil {
		return err
	}
	temp, old := path+tempExt, path+oldExt
	f, err := files.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return diskError("write "+filepath.Base(path), err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		if err = files.Link(path, old); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		err = syncDir(files, filepath.Dir(path))
	}
	if err != nil {
		files.Remove(temp)
		return diskError("write "+filepath.Base(path), err)
	}
	if err := files.Rename(temp, path); err != nil {
		return diskError("replace "+filepath.Base(path), err)
	}
	if err := syncDir(files, filepath.Dir(path)); err != nil {
		return err
	}
	return finishReplace(files, path)
}

// finishReplace overwrites and removes what a replaceFile left of the file that it
// replaced. If the replacement did not happen, only the second name goes.
func finishReplace(files Files, path string) error {
	f, err := files.OpenFile(path+oldExt, os.O_WRONLY, 0)
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
	if is, err := files.Stat(path); err != nil {
		return diskError("overwrite file", err)
	} else if !files.SameFile(was, is) {
		if err := overwrite(f); err != nil {
			return err
		}
	}
	if err := files.Remove(path + oldExt); err != nil {
		return diskError("overwrite file", err)
	}
	return syncDir(files, filepath.Dir(path))
}

// overwrite fills a file with zeros, durably.
func overwrite(f File) error {
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

func syncDir(files Files, path string) error {
	return diskError("sync folder", files.SyncFolder(path))
}

// diskError gives a failed file operation its kind: it may work later.
func diskError(what string, err error) error {
	if err == nil {
		return nil
	}
	return holdfast.Errorf(holdfast.Unavailable, "%s: %w", what, fmt.Errorf("%w (free space, or check the rights of the folder)", err))
}
