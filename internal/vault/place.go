package vault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-iot/holdfast"
)

// Place keeps a copy of the keyring's files. What it holds is useless without a
// holder. Write, Create and Append are durable when they return; a removed file
// is overwritten as far as the place allows.
type Place interface {
	// Write puts a file in place, whole or not at all.
	Write(name string, data []byte) error
	// Create makes files of new names. A crash may leave some of them, in part: it
	// is for what nothing names until all of it is durable.
	Create(files []NewFile) error
	Append(name string, at int64, data []byte) error
	Read(name string) ([]byte, error)
	// ReadAt fills p from the file's byte at on.
	ReadAt(name string, p []byte, at int64) error
	// Remove removes files; one that is missing is passed over.
	Remove(names ...string) error
	List() ([]string, error)
}

// NewFile is a file on its way into a Place.
type NewFile struct {
	Name string
	Data []byte
}

// Dir is a Place in a folder.
func Dir(path string) Place { return folder{osFiles{}, path, syncsAtOnce} }

// DirOn is Dir in another file system than the operating system's. It takes one
// file after the other, so that what is done there is the same each time.
func DirOn(files Files, path string) Place { return folder{files, path, 1} }

type folder struct {
	files  Files
	dir    string
	atOnce int
}

func (d folder) path(name string) string { return filepath.Join(d.dir, name) }

func (d folder) Write(name string, data []byte) error {
	return replaceFile(d.files, d.path(name), data)
}

// syncsAtOnce is how many files are synced side by side: a file system commits
// those that wait together as one.
const syncsAtOnce = 16

// each does f for each of n files, some at a time.
func (d folder) each(n int, f func(i int) error) error {
	if n == 1 {
		return f(0)
	}
	var g errgroup.Group
	g.SetLimit(d.atOnce)
	for i := range n {
		g.Go(func() error { return f(i) })
	}
	return g.Wait()
}

func (d folder) Create(files []NewFile) error {
	err := d.each(len(files), func(i int) error {
		f, err := d.files.OpenFile(d.path(files[i].Name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(files[i].Data)
		return errors.Join(err, f.Sync(), f.Close())
	})
	if err != nil {
		return diskError("write keyring pages", err)
	}
	return syncDir(d.files, d.dir)
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

func (d folder) ReadAt(name string, p []byte, at int64) error {
	f, err := d.files.OpenFile(d.path(name), os.O_RDONLY, 0)
	if err != nil {
		return diskError("open keyring page", err)
	}
	defer f.Close()
	_, err = f.ReadAt(p, at)
	return diskError("read keyring page", err)
}

// Remove takes the names from the files before their bytes change: a crash must
// not leave a file of zeros where the next start looks for a keyring.
func (d folder) Remove(names ...string) error {
	var gone []string
	for _, name := range names {
		path := d.path(name)
		if err := d.files.Rename(path, path+goneExt); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return diskError("remove keyring file", err)
		}
		gone = append(gone, path+goneExt)
	}
	if len(gone) == 0 {
		return nil
	}
	if err := syncDir(d.files, d.dir); err != nil {
		return err
	}
	return d.finishRemove(gone)
}

// finishRemove overwrites and removes files that have lost their names.
func (d folder) finishRemove(paths []string) error {
	err := d.each(len(paths), func(i int) error {
		f, err := d.files.OpenFile(paths[i], os.O_WRONLY, 0)
		if err != nil {
			return diskError("open keyring file", err)
		}
		defer f.Close()
		return overwrite(f)
	})
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := d.files.Remove(path); err != nil {
			return diskError("remove keyring file", err)
		}
	}
	return syncDir(d.files, d.dir)
}

// List ends what a crash left half replaced or half removed before it answers.
func (d folder) List() ([]string, error) {
	entries, err := d.files.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var out, gone []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), oldExt); ok {
			if _, err := finishReplace(d.files, d.path(name)); err != nil {
				return nil, err
			}
		}
		ext := filepath.Ext(e.Name())
		if ext == goneExt {
			gone = append(gone, d.path(e.Name()))
		}
		if ext == tempExt {
			if err := scrub(d.files, d.path(e.Name())); err != nil {
				return nil, err
			}
		}
		if e.Type().IsRegular() && ext != tempExt && ext != oldExt && ext != goneExt {
			out = append(out, e.Name())
		}
	}
	if len(gone) > 0 {
		return out, d.finishRemove(gone)
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
	_, err := replace(files, path, data, false)
	return err
}

// replaceThere is replaceFile of a file that must be there. Whatever disk is taken away
// and put in its place meanwhile, it is made on no other than the old one's, and the
// bytes of that one have been overwritten when it returns.
func replaceThere(files Files, path string, data []byte) error {
	finished, err := replace(files, path, data, true)
	if err == nil && !finished {
		err = holdfast.Errorf(holdfast.Unavailable, "overwrite file: what %s replaced is gone: its disk was taken away meanwhile; mount it again", path)
	}
	return err
}

// replace reports whether it has overwritten an old file.
func replace(files Files, path string, data []byte, there bool) (finished bool, err error) {
	if _, err := finishReplace(files, path); err != nil {
		return false, err
	}
	dir, temp, old := filepath.Dir(path), path+tempExt, path+oldExt
	err = writeTemp(files, temp, data)
	if err == nil {
		switch err = files.Link(path, old); {
		case err == nil: // the second name must be there before the first is taken
			err = syncDir(files, dir)
		case errors.Is(err, fs.ErrNotExist) && !there: // nothing is replaced
			err = nil
		case errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported): // FAT and its like
			return false, errors.Join(scrub(files, temp), holdfast.Errorf(holdfast.Invalid, "write %s: its file system gives no second name to a file, without which one can't be replaced at once: use ext4, XFS, Btrfs, APFS or the like", filepath.Base(path)))
		}
	}
	if err == nil {
		err = files.Rename(temp, path)
	}
	if err != nil {
		return false, diskError("write "+filepath.Base(path), errors.Join(err, scrub(files, temp)))
	}
	if err := syncDir(files, dir); err != nil {
		return false, err
	}
	return finishReplace(files, path)
}

// writeTemp writes a new file. Its name is durable before its bytes are there: of
// what a power cut leaves, everything can be found and overwritten.
func writeTemp(files Files, temp string, data []byte) error {
	f, err := files.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = syncDir(files, filepath.Dir(temp)); err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// scrub overwrites a file that is of no use, if it is there, and removes it. If it
// can't be overwritten it keeps its name, for the next try.
func scrub(files Files, path string) error {
	f, err := files.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return diskError("overwrite file", err)
	}
	defer f.Close()
	if err := overwrite(f); err != nil {
		return err
	}
	if err := files.Remove(path); err != nil {
		return diskError("overwrite file", err)
	}
	return syncDir(files, filepath.Dir(path))
}

// finishReplace overwrites and removes what a replaceFile left: a file that did not
// come to its place, and the one that it replaced, if there is one. If the replacement
// did not happen, only the second name of that one goes.
func finishReplace(files Files, path string) (old bool, err error) {
	if err := scrub(files, path+tempExt); err != nil {
		return false, err
	}
	f, err := files.OpenFile(path+oldExt, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, diskError("overwrite file", err)
	}
	defer f.Close()
	was, err := f.Stat()
	if err != nil {
		return false, diskError("overwrite file", err)
	}
	if is, err := files.Stat(path); err != nil {
		return false, diskError("overwrite file", err)
	} else if !files.SameFile(was, is) {
		if err := overwrite(f); err != nil {
			return false, err
		}
	}
	if err := files.Remove(path + oldExt); err != nil {
		return false, diskError("overwrite file", err)
	}
	return true, syncDir(files, filepath.Dir(path))
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
	hint := "free space, or check the rights of the folder"
	if errors.Is(err, syscall.EROFS) {
		hint = "mount it to be written; under systemd, name its folder in ReadWritePaths= of the service: systemctl edit holdfast"
	}
	return holdfast.Errorf(holdfast.Unavailable, "%s: %w", what, fmt.Errorf("%w (%s)", err, hint))
}
