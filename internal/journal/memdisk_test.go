package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
)

// memDisk is a disk in memory that can fail at any step and lose its power. What
// a file holds and what would be left of it after a power cut are kept apart.
type memDisk struct {
	mu      sync.Mutex
	files   map[string]*memData // as the running program sees the folder
	durable map[string]*memData // as the folder was at its last sync
	moves   []func(map[string]*memData)
	steps   int         // writes, syncs and changes of the folder so far
	syncs   int         // tries to sync a file
	fault   func() fate // asked at each step; nil is fine
	dead    bool
	full    bool // no room for a new file
	// forgetful: file syncs fail, and the kernel forgets that there was anything to
	// write while the program still sees it.
	forgetful bool
	rng       *rand.Rand
}

// fate is what becomes of one step.
type fate int

const (
	fine       fate = iota
	notDone         // it fails and did nothing
	butDone         // it fails, but was done
	torn            // it fails half way: a write or a sync of many blocks
	powerCut        // the power goes before it
	powerTorn       // in the middle of it
	powerAfter      // when it is done, before the program hears of it
)

var (
	errIO    = errors.New("input/output error")
	errPower = errors.New("no power")
)

// memData is a file's content.
type memData struct {
	bytes  []byte
	stable []byte
	writes []memWrite // since the last sync
}

type memWrite struct {
	off  int64
	data []byte
}

func newMemDisk(seed uint64) *memDisk {
	return &memDisk{files: map[string]*memData{}, durable: map[string]*memData{}, rng: rand.New(rand.NewPCG(seed, 1))}
}

// step counts one step and says what becomes of it.
func (d *memDisk) step() fate {
	d.steps++
	if d.dead {
		return powerCut
	}
	if d.fault == nil {
		return fine
	}
	return d.fault()
}

// outcome turns a fate into the step's error; done and half do the step.
func (d *memDisk) outcome(x fate, done, half func()) error {
	switch x {
	case fine:
		done()
		return nil
	case notDone:
		return errIO
	case butDone:
		done()
		return errIO
	case torn:
		half()
		return errIO
	case powerTorn:
		half()
	case powerAfter:
		done()
	}
	d.dead = true
	return errPower
}

// reboot returns the disk as it is found after the power came back: of what was
// written and not synced, any part may be there. The folder's unsynced changes
// are there up to some point, as a file system with a log of its own leaves them.
func (d *memDisk) reboot(seed uint64) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := newMemDisk(seed)
	folder := maps.Clone(d.durable)
	for _, move := range d.moves[:n.rng.IntN(len(d.moves)+1)] {
		move(folder)
	}
	for _, name := range slices.Sorted(maps.Keys(folder)) {
		m := folder[name]
		b := slices.Clone(m.stable)
		for _, w := range m.writes {
			n.lose(b, w)
		}
		n.files[name] = &memData{bytes: b, stable: slices.Clone(b)}
	}
	n.durable = maps.Clone(n.files)
	return n
}

// restart returns the disk as the next process finds it when only the process
// ended: with everything that was written, synced or not.
func (d *memDisk) restart() *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := newMemDisk(1)
	for name, m := range d.files {
		n.files[name] = &memData{bytes: slices.Clone(m.bytes), stable: slices.Clone(m.bytes)}
	}
	n.durable = maps.Clone(n.files)
	return n
}

// lose applies to b what the power cut left of one write.
func (d *memDisk) lose(b []byte, w memWrite) {
	switch d.rng.IntN(4) {
	case 0: // nothing
	case 1: // all
		copy(b[w.off:], w.data)
	case 2: // torn at a byte
		copy(b[w.off:], w.data[:d.rng.IntN(len(w.data)+1)])
	case 3: // some of its pieces, in no order
		for from := 0; from < len(w.data); {
			to := min(len(w.data), from+1+d.rng.IntN(64))
			if d.rng.IntN(2) == 0 {
				copy(b[int(w.off)+from:], w.data[from:to])
			}
			from = to
		}
	}
}

func (d *memDisk) Path(name string) string { return "mem/" + name }

func (d *memDisk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.files)), nil
}

func (d *memDisk) Open(name string) (DiskFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &memFile{disk: d, data: m}, nil
}

// change does one change of the folder, durable at the next Sync.
func (d *memDisk) change(move func(map[string]*memData)) error {
	apply := func() { move(d.files); d.moves = append(d.moves, move) }
	return d.outcome(d.step(), apply, func() {})
}

func (d *memDisk) Create(name string, size int64) (DiskFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return nil, fmt.Errorf("fallocate %s: %w", name, syscall.ENOSPC)
	}
	m := &memData{bytes: make([]byte, size), stable: make([]byte, size)}
	if err := d.change(func(f map[string]*memData) { f[name] = m }); err != nil {
		return nil, err
	}
	return &memFile{disk: d, data: m}, nil
}

func (d *memDisk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[from] == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	return d.change(func(f map[string]*memData) { f[to] = f[from]; delete(f, from) })
}

func (d *memDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.change(func(f map[string]*memData) { delete(f, name) })
}

func (d *memDisk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.outcome(d.step(), func() { d.durable = maps.Clone(d.files); d.moves = nil }, func() {})
}

// memFile is an open file of a memDisk.
type memFile struct {
	disk *memDisk
	data *memData
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	n := copy(p, f.data.bytes[min(off, int64(len(f.data.bytes))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	write := func(n int) func() {
		return func() {
			copy(f.data.bytes[off:], p[:n])
			f.data.writes = append(f.data.writes, memWrite{off, slices.Clone(p[:n])})
		}
	}
	if off+int64(len(p)) > int64(len(f.data.bytes)) {
		return 0, fmt.Errorf("write past the end of the file")
	}
	if err := f.disk.outcome(f.disk.step(), write(len(p)), write(f.disk.rng.IntN(len(p)+1))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *memFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.syncs++
	if f.disk.forgetful {
		f.data.writes = nil
		return errIO
	}
	all := func() {
		for _, w := range f.data.writes {
			copy(f.data.stable[w.off:], w.data)
		}
		f.data.writes = nil
	}
	return f.disk.outcome(f.disk.step(), all, func() {
		for _, w := range f.data.writes {
			f.disk.lose(f.data.stable, w)
		}
		f.data.writes = nil // the kernel forgets what it failed to write
	})
}

func (f *memFile) Size() (int64, error) { return int64(len(f.data.bytes)), nil }
func (f *memFile) Close() error         { return nil }
