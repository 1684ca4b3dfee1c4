package simtest

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Reboot returns the disk as it is found after a power cut. The seed draws what
// is left of what was not synced.
func (d *Disk) Reboot(seed uint64) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := rand.New(rand.NewPCG(seed, 0xb007))
	how := loss(r.IntN(int(losses)))
	ordered := r.IntN(2) == 0 // a file system with a log of its own keeps changes of folders in order
	return d.copy(seed, func(n *node) *node { return n.crash(r, how) }, func(n *node) map[string]*node {
		if how == keepAll {
			return n.names
		}
		names := maps.Clone(n.durable)
		kept := r.IntN(len(n.moves) + 1)
		for i, move := range n.moves {
			if ordered && i < kept || !ordered && how != loseAll && r.IntN(2) == 0 {
				move(names)
			}
		}
		return names
	})
}

// Clone returns a disk with the same content, all of it durable. The one it was
// made of is not to be written to any more.
func (d *Disk) Clone(seed uint64) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.copy(seed, (*node).whole, func(n *node) map[string]*node { return n.names })
}

// copy makes a disk of the copies of files and of the names that each folder has.
func (d *Disk) copy(seed uint64, file func(*node) *node, folder func(*node) map[string]*node) *Disk {
	out := NewDisk(seed)
	out.watch, out.log, out.lies, out.trace, out.steps, out.volumes = d.watch, d.log, d.lies, d.trace, d.steps, d.volumes
	copies := map[*node]*node{}
	var walk func(n *node) *node
	walk = func(n *node) *node {
		if c := copies[n]; c != nil {
			return c
		}
		if !n.folder {
			copies[n] = file(n)
			return copies[n]
		}
		c := newFolder()
		copies[n] = c
		names := folder(n)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			c.names[name] = walk(names[name])
		}
		c.durable = maps.Clone(c.names)
		return c
	}
	out.root = walk(d.root)
	// What has lost its name, or never got it durably, is still on the platters.
	for _, n := range d.grave {
		if copies[n] == nil {
			copies[n] = file(n)
		}
		out.grave = append(out.grave, copies[n])
	}
	var lost func(n *node)
	lost = func(n *node) {
		for _, name := range slices.Sorted(maps.Keys(n.names)) {
			child := n.names[name]
			if child.folder {
				lost(child)
			} else if copies[child] == nil {
				copies[child] = file(child)
				out.grave = append(out.grave, copies[child])
			}
		}
	}
	lost(d.root)
	return out
}

// Platters yields the content of every file that ever had a name under a folder of
// this disk, whether it still has it or not, and as durable as not.
func (d *Disk) Platters(yield func(name string, content []byte) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := map[*node]bool{}
	show := func(name string, n *node) bool {
		if seen[n] {
			return true
		}
		seen[n] = true
		if !yield(name, n.bytes()) {
			return false
		}
		if len(n.writes) == 0 {
			return true
		}
		stable := make([]byte, n.stableSize)
		readPages(n.stable, stable, 0)
		return yield(name, stable)
	}
	var walk func(path string, n *node) bool
	walk = func(path string, n *node) bool {
		for _, names := range []map[string]*node{n.names, n.durable} {
			for _, name := range slices.Sorted(maps.Keys(names)) {
				child := names[name]
				at := path + "/" + name
				if child.folder && !walk(at, child) || !child.folder && !show(at, child) {
					return false
				}
			}
		}
		return true
	}
	if !walk("", d.root) {
		return
	}
	for _, n := range d.grave {
		if !show("(no name)", n) {
			return
		}
	}
}
