package simtest

import (
	"io/fs"
	"strings"
	"sync"
	"syscall"

	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Where the second root key file and the copies of the keyring of a guarded hub lie:
// each on a volume of its own.
const (
	SecondKey = "/key2/root.key"
	NearCopy  = "/copy"
	FarCopy   = "/far"
)

// volume is a disk of its own, whose power is the machine's: it may be full, or away
// until it comes back as it was.
type volume struct {
	mu   sync.Mutex
	away bool
	full bool
}

// volumes are those of a machine, by the folder that they are mounted at.
type volumes map[string]*volume

func newVolumes() volumes {
	return volumes{"/key2": {}, NearCopy: {}, FarCopy: {}}
}

func (v volumes) of(path string) *volume {
	for at, x := range v {
		if path == at || strings.HasPrefix(path, at+"/") {
			return x
		}
	}
	return nil
}

// ready is an error where a volume can't be used.
func (v volumes) ready(op, path string, grows bool) error {
	x := v.of(path)
	if x == nil {
		return nil
	}
	x.mu.Lock()
	away, full := x.away, x.full
	x.mu.Unlock()
	switch {
	case away:
		return &fs.PathError{Op: op, Path: path, Err: syscall.EIO}
	case full && grows:
		return &fs.PathError{Op: op, Path: path, Err: syscall.ENOSPC}
	}
	return nil
}

func (x *volume) change(f func(*volume)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f(x)
}

// mended are all in order again.
func (v volumes) mended() {
	for _, x := range v {
		x.change(func(x *volume) { x.away, x.full = false, false })
	}
}

// keyFiles is the disk for the vault.
type keyFiles struct {
	*Disk
	volumes volumes
}

type keyFile struct {
	*File
	volumes volumes
}

func (k keyFiles) OpenFile(name string, flag int, mode fs.FileMode) (vault.File, error) {
	if err := k.volumes.ready("open", name, false); err != nil {
		return nil, err
	}
	f, err := k.Open(name, flag, mode)
	if err != nil {
		return nil, err
	}
	if k.volumes.of(name) == nil {
		return f, nil
	}
	return keyFile{f, k.volumes}, nil
}

func (k keyFiles) ReadDir(path string) ([]fs.DirEntry, error) {
	if err := k.volumes.ready("readdir", path, false); err != nil {
		return nil, err
	}
	return k.Disk.ReadDir(path)
}

func (k keyFiles) Stat(path string) (fs.FileInfo, error) {
	if err := k.volumes.ready("stat", path, false); err != nil {
		return nil, err
	}
	return k.Disk.Stat(path)
}

func (k keyFiles) Link(from, to string) error {
	if err := k.volumes.ready("link", to, true); err != nil {
		return err
	}
	return k.Disk.Link(from, to)
}

func (k keyFiles) Rename(from, to string) error {
	if err := k.volumes.ready("rename", to, false); err != nil {
		return err
	}
	return k.Disk.Rename(from, to)
}

func (k keyFiles) Remove(path string) error {
	if err := k.volumes.ready("remove", path, false); err != nil {
		return err
	}
	return k.Disk.Remove(path)
}

func (k keyFiles) SyncFolder(path string) error {
	if err := k.volumes.ready("syncdir", path, false); err != nil {
		return err
	}
	return k.Disk.SyncFolder(path)
}

func (f keyFile) Write(p []byte) (int, error) {
	if err := f.volumes.ready("write", f.name, true); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f keyFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.volumes.ready("write", f.name, false); err != nil { // over what is there
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f keyFile) Read(p []byte) (int, error) {
	if err := f.volumes.ready("read", f.name, false); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (f keyFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.volumes.ready("read", f.name, false); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f keyFile) Sync() error {
	if err := f.volumes.ready("sync", f.name, false); err != nil {
		return err
	}
	return f.File.Sync()
}
