package backup

import (
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"syscall"

	"github.com/holdfast-iot/holdfast"
)

// disk is what a folder lies on. Names are below it, and no link leads out of it;
// flags and errors are those of package os. Tests have one that fails.
type disk interface {
	OpenFile(name string, flag int, mode fs.FileMode) (file, error)
	Mkdir(name string, mode fs.FileMode) error
	Rename(from, to string) error
	Remove(name string) error
	// SyncFolder makes what was made, renamed and removed in a folder durable.
	SyncFolder(name string) error
	Close() error
}

// file is an open file, or folder, of a disk.
type file interface {
	io.ReadWriteCloser
	Stat() (fs.FileInfo, error)
	Sync() error
	ReadDir(n int) ([]fs.DirEntry, error)
}

// rootDisk is the operating system's, below one folder.
type rootDisk struct{ *os.Root }

func openDisk(dir string) (disk, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return rootDisk{r}, nil
}

func (d rootDisk) OpenFile(name string, flag int, mode fs.FileMode) (file, error) {
	f, err := d.Root.OpenFile(name, flag, mode)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d rootDisk) SyncFolder(name string) error {
	f, err := d.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// readable opens a regular file: a pipe would keep its reader waiting for ever.
func readable(d disk, name string) (file, error) {
	f, err := d.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = holdfast.Errorf(holdfast.Invalid, "%s is no file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readSmall reads a file of some lines.
func readSmall(d disk, name string) ([]byte, error) {
	f, err := readable(d, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 4096))
}

// listing yields what lies in a folder, which may be a great deal, in no order.
func listing(d disk, name string) iter.Seq2[fs.DirEntry, error] {
	return func(yield func(fs.DirEntry, error) bool) {
		f, err := d.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY, 0)
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.Close()
		for {
			some, err := f.ReadDir(1024)
			for _, e := range some {
				if !yield(e, nil) {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// temp is a file on its way to its name.
type temp struct {
	file
	on   disk
	name string
}

func create(on disk, name string) (*temp, error) {
	f, err := on.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, failure("write backup", err)
	}
	return &temp{f, on, name}, nil
}

// keep gives the file its name; what it holds is durable then. The folder is for the
// caller to sync.
func (t *temp) keep(name string) error {
	err := t.Sync()
	if err = errors.Join(err, t.Close()); err == nil {
		err = t.on.Rename(t.name, name)
	}
	if err != nil {
		return errors.Join(failure("write backup", err), t.remove())
	}
	return nil
}

func (t *temp) drop() error { return errors.Join(t.Close(), t.remove()) }

func (t *temp) remove() error {
	if err := t.on.Remove(t.name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// write writes a file whole or not at all, durably.
func write(on disk, name string, data []byte) error {
	t, err := create(on, name+tempSuffix)
	if err != nil {
		return err
	}
	if _, err := t.Write(data); err != nil {
		return errors.Join(failure("write backup", err), t.drop())
	}
	if err := t.keep(name); err != nil {
		return err
	}
	return syncFolder(on, filepath.Dir(name))
}

func syncFolder(on disk, name string) error {
	if err := on.SyncFolder(name); err != nil {
		return failure("write backup", err)
	}
	return nil
}

// failure gives an error of the file system its kind, and says what to do.
func failure(what string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return holdfast.Errorf(holdfast.Unavailable, "%s: no space left: free some or name a larger disk, then run it again; what is written is not written again: %w", what, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return holdfast.Errorf(holdfast.Denied, "%s: %w", what, err)
	case errors.Is(err, fs.ErrNotExist):
		return holdfast.Errorf(holdfast.NotFound, "%s: %w", what, err)
	}
	return holdfast.Errorf(holdfast.Unavailable, "%s: %w", what, err)
}
