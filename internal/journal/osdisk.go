package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/holdfast-iot/holdfast"
)

// osDisk is a folder of the operating system.
type osDisk struct{ dir string }

// openOSDisk opens the folder, making it if only it is missing.
func openOSDisk(dir string) (*osDisk, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "open journal folder: %w", err)
	}
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return nil, holdfast.Errorf(holdfast.Unavailable, "make journal folder %s: %w", dir, err)
		}
	case errors.Is(err, fs.ErrExist):
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, holdfast.Errorf(holdfast.Invalid, "make journal folder: %w; the folder it is to lie in must exist", err)
	default:
		return nil, holdfast.Errorf(holdfast.Unavailable, "make journal folder: %w", err)
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return nil, holdfast.Errorf(holdfast.Unavailable, "open journal folder: %w", err)
	case !info.IsDir():
		return nil, holdfast.Errorf(holdfast.Invalid, "open journal: %s is not a folder; name a folder, or move the file away", dir)
	}
	return &osDisk{dir}, nil
}

func (d *osDisk) Path(name string) string { return filepath.Join(d.dir, name) }

func (d *osDisk) List() ([]string, error) {
	entries, err := os.ReadDir(d.dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (d *osDisk) Open(name string) (DiskFile, error) {
	f, err := os.OpenFile(d.Path(name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d *osDisk) Create(name string, size int64) (DiskFile, error) {
	f, err := os.OpenFile(d.Path(name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	err = allocate(f, size)
	if err == nil {
		err = f.Sync() // the length too: recovery compares it with the header
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return osFile{f}, nil
}

func (d *osDisk) Rename(from, to string) error { return os.Rename(d.Path(from), d.Path(to)) }
func (d *osDisk) Remove(name string) error     { return os.Remove(d.Path(name)) }
func (d *osDisk) Sync() error                  { return syncDir(d.dir) }

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// osFile is a file of the operating system.
type osFile struct{ *os.File }

// Sync makes the data durable; the length never changes after Create.
func (f osFile) Sync() error { return syncData(f.File) }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// writeZeros gives the file its blocks where the system has no call for it.
func writeZeros(f *os.File, size int64) error {
	for off := int64(0); off < size; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return err
		}
	}
	return nil
}
