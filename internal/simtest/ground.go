package simtest

import (
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/server"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Where things lie on the disk of a simulated hub.
const (
	DataFolder = "/data"
	RootKey    = "/key/root.key"
)

// Ground is a hub's world on the disk, at a scale at which everything that
// happens in months happens in minutes. latency is how long a sync of the journal
// takes, so that records gather behind it; nil: no time.
func (d *Disk) Ground(v *VFS, n *Network, latency func() time.Duration) *server.Ground {
	keys := keyFiles{d, d.volumes}
	return &server.Ground{
		Folder:   func(dir string) server.Folder { return dataFolder{d, dir} },
		RootKeys: keys,
		Keyring:  func(dir string) vault.Place { return vault.DirOn(keys, dir) },
		Journal: func(dir string) (*journal.File, error) {
			return journal.Open(journalDisk{d, dir, latency}, journal.Options{SegmentSize: 16 << 10})
		},
		Blobs:   func(dir string) (*blob.Dir, error) { return blob.OpenDirOn(blobFiles{d}, dir) },
		Catalog: catalog.Options{VFS: v.Name(), Readers: 2},
		Listen:  n.Listen,
		// Odd, so that no two of the hub's clocks strike at one instant: who is first
		// would be up to chance.
		Series:     series.Options{Every: 41*time.Second + 7*time.Microsecond, Bytes: 8 << 10, MergeEvery: 3*time.Minute + 11*time.Microsecond, MergeAfter: 12},
		Checkpoint: 67*time.Second + 13*time.Microsecond,
		Apart:      time.Microsecond,
	}
}

// dataFolder is the data folder, but for the stores in it.
type dataFolder struct {
	disk *Disk
	dir  string
}

func (f dataFolder) ReadFile(name string) ([]byte, error) {
	return f.disk.ReadFile(path.Join(f.dir, name))
}

func (f dataFolder) Lock() (io.Closer, error) { return io.NopCloser(nil), nil }

func (f dataFolder) WriteJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	name = path.Join(f.dir, name)
	file, err := f.disk.Open(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := file.Write(b); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := f.disk.Rename(name+".tmp", name); err != nil {
		return err
	}
	return f.disk.SyncFolder(f.dir)
}

func (f dataFolder) Remove(name string) error { return f.disk.Remove(path.Join(f.dir, name)) }

// ReadFile reads a file whole.
func (d *Disk) ReadFile(name string) ([]byte, error) {
	f, err := d.Open(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

// blobFiles is the disk for segments.
type blobFiles struct{ *Disk }

func (b blobFiles) OpenFile(name string, flag int, mode fs.FileMode) (blob.File, error) {
	f, err := b.Open(name, flag, mode)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// journalDisk is a folder of the disk for the journal.
type journalDisk struct {
	disk    *Disk
	dir     string
	latency func() time.Duration
}

type journalFile struct {
	*File
	latency func() time.Duration
}

func (f journalFile) Sync() error {
	if f.latency != nil {
		f.disk.mu.Lock() // what is drawn for it is drawn in turn with the disk's faults
		d := f.latency()
		f.disk.mu.Unlock()
		time.Sleep(d)
	}
	return f.File.Sync()
}

func (j journalDisk) Path(name string) string { return path.Join(j.dir, name) }

func (j journalDisk) List() ([]string, error) {
	entries, err := j.disk.ReadDir(j.dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (j journalDisk) Open(name string) (journal.DiskFile, error) {
	f, err := j.disk.Open(j.Path(name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return journalFile{f, j.latency}, nil
}

func (j journalDisk) Create(name string, size int64) (journal.DiskFile, error) {
	f, err := j.disk.Open(j.Path(name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if err = f.Truncate(size); err == nil {
		err = f.Sync()
	}
	if err != nil {
		j.disk.Remove(j.Path(name))
		return nil, err
	}
	return journalFile{f, j.latency}, nil
}

func (j journalDisk) Rename(from, to string) error { return j.disk.Rename(j.Path(from), j.Path(to)) }
func (j journalDisk) Remove(name string) error     { return j.disk.Remove(j.Path(name)) }
func (j journalDisk) Sync() error                  { return j.disk.SyncFolder(j.dir) }
