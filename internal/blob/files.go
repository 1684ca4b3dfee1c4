package blob

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// Files is the file system that a Dir lies in, as far as Dir needs it. OpenDir
// takes the operating system's; simulations have one that loses power. Names,
// flags and errors are those of package os.
type Files interface {
	OpenFile(path string, flag int, mode fs.FileMode) (File, error)
	Mkdir(path string, mode fs.FileMode) error
	ReadDir(path string) ([]fs.DirEntry, error)
	Stat(path string) (fs.FileInfo, error)
	Rename(from, to string) error
	Remove(path string) error
	// SyncFolder makes what was made, renamed and removed in a folder durable.
	SyncFolder(path string) error
}

// File is an open file of Files.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	Stat() (fs.FileInfo, error)
	// Sync makes what was written durable.
	Sync() error
	// Punch gives back the blocks of n bytes from off, which are zero, if it can.
	Punch(off, n int64) error
	Close() error
}

// osFiles is the operating system.
type osFiles struct{}

func (osFiles) OpenFile(path string, flag int, mode fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFiles) Mkdir(path string, mode fs.FileMode) error  { return os.Mkdir(path, mode) }
func (osFiles) ReadDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }
func (osFiles) Stat(path string) (fs.FileInfo, error)      { return os.Stat(path) }
func (osFiles) Rename(from, to string) error               { return os.Rename(from, to) }
func (osFiles) Remove(path string) error                   { return os.Remove(path) }

func (osFiles) SyncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

type osFile struct{ *os.File }

func (f osFile) Punch(off, n int64) error { return punchHole(f.File, off, n) }

// readFile reads a small file whole.
func readFile(files Files, path string) ([]byte, error) {
	f, err := files.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
