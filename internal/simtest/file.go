package simtest

import (
	"io"
	"io/fs"
	"os"
	"syscall"
)

// File is an open file of a Disk.
type File struct {
	disk *Disk
	node *node
	name string
	at   int64
}

// Open opens a file as os.OpenFile does.
func (d *Disk) Open(name string, flag int, _ fs.FileMode) (*File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errPower}
	}
	n, err := d.find(name)
	switch {
	case err == nil && flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		err = fs.ErrExist
	case err == nil && n.folder:
		err = syscall.EISDIR
	case err == nil && flag&os.O_TRUNC != 0 && n.size > 0:
		if err := d.step("truncate", name, 0, 0, func() { n.truncate(0) }, func() {}); err != nil {
			return nil, err
		}
		return &File{disk: d, node: n, name: name}, nil
	case err == fs.ErrNotExist && flag&os.O_CREATE != 0:
		n = &node{}
		if err := d.make("create", name, n); err != nil {
			return nil, err
		}
		return &File{disk: d, node: n, name: name}, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &File{disk: d, node: n, name: name}, nil
}

func (f *File) ReadAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.dead {
		return 0, &fs.PathError{Op: "read", Path: f.name, Err: errPower}
	}
	n := f.node.read(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *File) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.ReadAt(p, f.at)
	f.at += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *File) WriteAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	d := f.disk
	if d.full && off+int64(len(p)) > f.node.size && !d.dead {
		return 0, &fs.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
	}
	if d.watch != nil {
		d.watch(f.name, p)
	}
	err := d.step("write", f.name, off, len(p), func() { f.node.put(p, off) }, func() {
		if n := d.rng.IntN(len(p)/sectorSize+1) * sectorSize; n > 0 {
			f.node.put(p[:n], off)
		}
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *File) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.at)
	f.at += int64(n)
	return n, err
}

// Sync makes what was written durable. When it fails half way, the kernel takes
// what it did not write for clean: the program goes on seeing it, and no later
// sync writes it.
func (f *File) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	d, n := f.disk, f.node
	return d.step("sync", f.name, 0, len(n.writes), func() {
		if !d.lies {
			n.settle()
		}
	}, func() {
		if half := n.crash(d.rng, keepAny); !d.dead {
			n.stable, n.stableSize, n.writes = half.stable, half.size, nil
		}
	})
}

// Truncate sets the length.
func (f *File) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.full && size > f.node.size && !f.disk.dead {
		return &fs.PathError{Op: "truncate", Path: f.name, Err: syscall.ENOSPC}
	}
	return f.disk.step("truncate", f.name, size, 0, func() { f.node.truncate(size) }, func() {})
}

// Punch frees blocks of zeros, which changes nothing that can be seen here.
func (f *File) Punch(off, n int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return f.disk.step("punch", f.name, off, int(n), func() {}, func() {})
}

func (f *File) Stat() (fs.FileInfo, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.dead {
		return nil, &fs.PathError{Op: "stat", Path: f.name, Err: errPower}
	}
	return f.node.info(f.name), nil
}

// Size returns the length.
func (f *File) Size() (int64, error) {
	i, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return i.Size(), nil
}

func (f *File) Close() error { return nil }
