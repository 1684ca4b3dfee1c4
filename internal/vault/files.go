package vault

import (
	"bytes"
	"io"
	"io/fs"
	"os"
)

// Files is the file system that a keyring or a root key lies in, as far as this
// package needs it. Dir and OpenFileHolder take the operating system's;
// simulations have one that loses power. Names, flags and errors are those of
// package os.
type Files interface {
	OpenFile(path string, flag int, mode fs.FileMode) (File, error)
	ReadDir(path string) ([]fs.DirEntry, error)
	Stat(path string) (fs.FileInfo, error)
	SameFile(a, b fs.FileInfo) bool
	Link(from, to string) error
	Rename(from, to string) error
	Remove(path string) error
	// SyncFolder makes what was made, renamed and removed in a folder durable.
	SyncFolder(path string) error
}

// File is an open file of Files.
type File interface {
	io.Reader
	io.Writer
	io.ReaderAt
	io.WriterAt
	Stat() (fs.FileInfo, error)
	// Sync makes what was written durable.
	Sync() error
	Close() error
}

// OSFiles is the operating system's.
func OSFiles() Files { return osFiles{} }

type osFiles struct{}

func (osFiles) OpenFile(path string, flag int, mode fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osFiles) ReadDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }
func (osFiles) Stat(path string) (fs.FileInfo, error)      { return os.Stat(path) }
func (osFiles) SameFile(a, b fs.FileInfo) bool             { return os.SameFile(a, b) }
func (osFiles) Link(from, to string) error                 { return os.Link(from, to) }
func (osFiles) Rename(from, to string) error               { return os.Rename(from, to) }
func (osFiles) Remove(path string) error                   { return os.Remove(path) }

func (osFiles) SyncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// readFile reads a small file whole.
func readFile(files Files, path string) ([]byte, error) {
	f, err := files.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead))
	_, err = b.ReadFrom(f)
	return b.Bytes(), err
}
