package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Ground is what a hub stands on: the disk, the network and the scale. Operators
// have no say in it. A simulation gives one whose disk loses power and whose
// segments are tiny; every function gets absolute paths.
type Ground struct {
	Folder   func(dir string) Folder // the data folder's own files
	RootKeys vault.Files
	Keyring  func(dir string) vault.Place
	Journal  func(dir string) (*journal.File, error)
	Blobs    func(dir string) (*blob.Dir, error)
	Catalog  catalog.Options
	Listen   func(network, address string) (net.Listener, error)

	Series     series.Options          // Logger is the Config's
	Checkpoint time.Duration           // between publications of the ledger, if the Config does not say
	Hands      func() time.Time        // by which periods, memberships and offers begin and end; nil: time.Now
	Erasing    func(step string) error // asked at each step of an erasure, to end it there; nil: never
	Apart      time.Duration           // between the starts of two long runners, so that their clocks don't strike as one
}

// Folder is the data folder, but for the stores in it.
type Folder interface {
	ReadFile(name string) ([]byte, error)
	// Lock takes the folder for this process until what it returns is closed.
	Lock() (io.Closer, error)
	// WriteJSON writes a small file, whole or not at all and durably.
	WriteJSON(name string, v any) error
	Remove(name string) error
}

// Machine is the operating system, and the scale of production.
func Machine() *Ground {
	return &Ground{
		Folder:     func(dir string) Folder { return osFolder(dir) },
		RootKeys:   vault.OSFiles(),
		Keyring:    vault.Dir,
		Journal:    func(dir string) (*journal.File, error) { return journal.OpenFile(dir, journal.Options{}) },
		Blobs:      blob.OpenDir,
		Listen:     net.Listen,
		Checkpoint: 5 * time.Minute,
	}
}

// osFolder is a folder of the operating system.
type osFolder string

func (f osFolder) ReadFile(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(f), name))
}

func (f osFolder) WriteJSON(name string, v any) error {
	return writeJSON(filepath.Join(string(f), name), v)
}

func (f osFolder) Remove(name string) error { return os.Remove(filepath.Join(string(f), name)) }

// Lock takes the folder. The lock goes with the process, however it ends.
func (f osFolder) Lock() (io.Closer, error) {
	file, err := os.OpenFile(filepath.Join(string(f), lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			return nil, holdfast.Errorf(holdfast.Unavailable, "the data folder %s can't be written: check its owner, rights and mount: %w", string(f), err)
		}
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, holdfast.Errorf(holdfast.Conflict, "the data folder %s is in use by another holdfast: stop that one first", string(f))
	}
	return file, nil
}
