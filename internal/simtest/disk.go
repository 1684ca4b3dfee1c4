package simtest

import (
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Disk is a file system in memory that can fail at any step and lose its power.
//
// What was written and not synced may be lost, kept, torn between sectors or kept
// in another order after a power cut; so may changes of a folder that was not
// synced. What was synced is there. The step counter counts writes, syncs and
// changes of folders: the places where the power can go.
type Disk struct {
	mu    sync.Mutex
	root  *node
	grave []*node // without a name, their bytes still on the platters
	steps int
	plan  func(op, path string) Fate // asked at each step; nil is Fine
	cut   func()                     // told once when the power goes
	dead  bool
	full  bool // nothing may grow
	lies  bool // syncs report success and do nothing
	rng   *rand.Rand

	volumes volumes // that the vault's files lie on; none: this one is all

	watch func(path string, p []byte) // sees every byte that is written
	trace hash.Hash64
	log   func(format string, args ...any) // of each step; nil: none
}

// Fate is what becomes of one step.
type Fate int

// Fates of a step.
const (
	Fine       Fate = iota
	NotDone         // it fails and did nothing
	ButDone         // it fails, but was done
	Torn            // it fails half way
	PowerCut        // the power goes before it
	PowerTorn       // in the middle of it
	PowerAfter      // when it is done, before the program hears of it
)

var (
	errIO    = syscall.EIO
	errPower = errors.New("no power")
)

// NewDisk makes an empty disk.
func NewDisk(seed uint64) *Disk {
	return &Disk{root: newFolder(), rng: rand.New(rand.NewPCG(seed, 0xd15c)), trace: fnv.New64a()}
}

// Plan sets who decides what becomes of each step.
func (d *Disk) Plan(plan func(op, path string) Fate, cut func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plan, d.cut = plan, cut
}

// CutNow takes the power away between two steps.
func (d *Disk) CutNow() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.die()
}

func (d *Disk) die() {
	if d.dead {
		return
	}
	d.dead = true
	if d.cut != nil {
		d.cut()
	}
}

// Steps returns how many steps were tried.
func (d *Disk) Steps() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.steps
}

// Fill says whether the disk has no room left.
func (d *Disk) Fill(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

// Trace is a hash of all steps so far: names, places and lengths, not content.
func (d *Disk) Trace() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.trace.Sum64()
}

// step does one step as its fate is. done does it; half does a part of it.
func (d *Disk) step(op, name string, off int64, n int, done, half func()) error {
	if d.dead {
		return &fs.PathError{Op: op, Path: name, Err: errPower}
	}
	d.steps++
	fate := Fine
	if d.plan != nil {
		fate = d.plan(op, name)
	}
	if d.log != nil {
		d.log("%6d %-8s %s %d+%d %d", d.steps, op, name, off, n, fate)
	}
	fmt.Fprintf(d.trace, "%s %s %d %d %d\n", op, name, off, n, fate)
	err := errPower
	switch fate {
	case Fine:
		done()
		return nil
	case ButDone:
		done()
		err = errIO
	case Torn:
		half()
		err = errIO
	case NotDone:
		err = errIO
	case PowerAfter:
		done()
		d.die()
	case PowerTorn:
		d.die()
		half()
	default:
		d.die()
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// find walks to a node.
func (d *Disk) find(name string) (*node, error) {
	n := d.root
	for part := range strings.SplitSeq(strings.Trim(path.Clean(name), "/"), "/") {
		if part == "" || part == "." {
			continue
		}
		if !n.folder {
			return nil, syscall.ENOTDIR
		}
		if n = n.names[part]; n == nil {
			return nil, fs.ErrNotExist
		}
	}
	return n, nil
}

// parent finds the folder of a name.
func (d *Disk) parent(name string) (*node, string, error) {
	dir, base := path.Split(path.Clean(name))
	n, err := d.find(dir)
	if err == nil && !n.folder {
		err = syscall.ENOTDIR
	}
	return n, base, err
}

// look finds for reading.
func (d *Disk) look(op, name string) (*node, error) {
	if d.dead {
		return nil, &fs.PathError{Op: op, Path: name, Err: errPower}
	}
	n, err := d.find(name)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return n, nil
}

// change does one change of a folder, durable when that is synced.
func (d *Disk) change(op, name string, folder *node, move func(map[string]*node)) error {
	return d.step(op, name, 0, 0, func() {
		move(folder.names)
		folder.moves = append(folder.moves, move)
	}, func() {})
}

func (d *Disk) make(op, name string, n *node) error {
	folder, base, err := d.parent(name)
	if err == nil && folder.names[base] != nil {
		err = fs.ErrExist
	}
	if err == nil && d.full {
		err = syscall.ENOSPC
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return d.change(op, name, folder, func(names map[string]*node) { names[base] = n })
}

// Mkdir makes a folder.
func (d *Disk) Mkdir(name string, _ fs.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return &fs.PathError{Op: "mkdir", Path: name, Err: errPower}
	}
	return d.make("mkdir", name, newFolder())
}

// Rename moves a file within its folder, in place of one of the new name.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.look("rename", from)
	if err != nil {
		return err
	}
	folder, old, _ := d.parent(from)
	other, base, err := d.parent(to)
	if err != nil || other != folder {
		return &fs.PathError{Op: "rename", Path: to, Err: errors.Join(err, syscall.EXDEV)}
	}
	d.bury(folder.names[base])
	return d.change("rename", to, folder, func(names map[string]*node) {
		if names[old] == n {
			delete(names, old)
		}
		names[base] = n
	})
}

// Link gives a file a second name in its folder.
func (d *Disk) Link(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.look("link", from)
	if err != nil {
		return err
	}
	return d.make("link", to, n)
}

// Remove takes a name away; the bytes stay on the platters.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.look("remove", name)
	if err != nil {
		return err
	}
	if len(n.names) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	d.bury(n)
	folder, base, _ := d.parent(name)
	return d.change("remove", name, folder, func(names map[string]*node) { delete(names, base) })
}

// bury keeps what loses a name among what a thief of the disk can read.
func (d *Disk) bury(n *node) {
	if n != nil && !n.folder && !slices.Contains(d.grave, n) {
		d.grave = append(d.grave, n)
	}
}

// SyncFolder makes the changes of a folder durable.
func (d *Disk) SyncFolder(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.look("syncdir", name)
	if err != nil {
		return err
	}
	return d.step("syncdir", name, 0, len(n.moves), func() {
		if !d.lies {
			n.settle()
		}
	}, func() {})
}

// ReadDir lists a folder in order of names.
func (d *Disk) ReadDir(name string) ([]fs.DirEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.look("readdir", name)
	if err != nil {
		return nil, err
	}
	var out []fs.DirEntry
	for base, child := range n.names {
		out = append(out, fs.FileInfoToDirEntry(child.info(base)))
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

// Stat describes a file or folder.
func (d *Disk) Stat(name string) (fs.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.look("stat", name)
	if err != nil {
		return nil, err
	}
	return n.info(path.Base(name)), nil
}

// info is a fs.FileInfo.
type info struct {
	node *node
	name string
	size int64
}

func (n *node) info(name string) info { return info{n, name, n.size} }

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.node.folder }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	if i.node.folder {
		return fs.ModeDir | 0o700
	}
	return 0o600
}

// SameFile reports whether two descriptions are of one file.
func (d *Disk) SameFile(a, b fs.FileInfo) bool { return a.(info).node == b.(info).node }

// Revive lets the next process use the disk after CutNow, with all that the last
// one wrote: it was killed, and the power stayed on.
func (d *Disk) Revive() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead, d.full, d.plan, d.cut = false, false, nil, nil
}

// Dead reports whether the power went, or the process was killed.
func (d *Disk) Dead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}
