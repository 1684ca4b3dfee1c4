package simtest

import (
	"maps"
	"math/rand/v2"
	"slices"
)

const (
	pageSize   = 4096
	sectorSize = 512 // what the disk writes whole or not at all
)

type page = [pageSize]byte

// node is a file or a folder.
type node struct {
	folder bool

	// Of a file: pages as the program sees them, and as they are durable. Pages that
	// both have, and clones of a disk share, are never written to.
	live, stable []*page
	size         int64
	stableSize   int64
	writes       []write // since the last sync

	// Of a folder.
	names   map[string]*node
	durable map[string]*node
	moves   []func(map[string]*node) // since the last sync
}

// write is one change of a file that is not durable yet. A change of length
// writes zeros to what is cut off.
type write struct {
	off  int64
	data []byte
	size int64 // of the file after it
}

func newFolder() *node {
	return &node{folder: true, names: map[string]*node{}, durable: map[string]*node{}}
}

// settle makes everything durable.
func (n *node) settle() {
	if n.folder {
		n.durable, n.moves = maps.Clone(n.names), nil
		return
	}
	for _, w := range n.writes { // of pages that a failed sync forgot nothing is written
		for i := int(w.off / pageSize); i <= int((w.off+int64(len(w.data))-1)/pageSize) && len(w.data) > 0; i++ {
			for len(n.stable) <= i {
				n.stable = append(n.stable, nil)
			}
			n.stable[i] = n.live[i]
		}
	}
	n.stableSize, n.writes = n.size, nil
}

// read copies from what the program sees.
func (n *node) read(p []byte, off int64) int {
	if off >= n.size {
		return 0
	}
	p = p[:min(int64(len(p)), n.size-off)]
	return readPages(n.live, p, off)
}

func readPages(pages []*page, p []byte, off int64) int {
	for done := 0; done < len(p); {
		i, at := (off+int64(done))/pageSize, (off+int64(done))%pageSize
		if i < int64(len(pages)) && pages[i] != nil {
			done += copy(p[done:], pages[i][at:])
		} else {
			k := min(len(p)-done, pageSize-int(at))
			clear(p[done : done+k])
			done += k
		}
	}
	return len(p)
}

// put writes to what the program sees, not yet durable.
func (n *node) put(p []byte, off int64) {
	n.size = max(n.size, off+int64(len(p)))
	n.live = writePages(n.live, n.stable, p, off)
	n.writes = append(n.writes, write{off, slices.Clone(p), n.size})
}

// writePages writes into pages, which own all pages but those of shared.
func writePages(pages, shared []*page, p []byte, off int64) []*page {
	for len(p) > 0 {
		i, at := int(off/pageSize), off%pageSize
		for len(pages) <= i {
			pages = append(pages, nil)
		}
		if old := pages[i]; old == nil || i < len(shared) && shared[i] == old {
			fresh := new(page)
			if old != nil {
				*fresh = *old
			}
			pages[i] = fresh
		}
		k := copy(pages[i][at:], p)
		p, off = p[k:], off+int64(k)
	}
	return pages
}

// truncate sets the length.
func (n *node) truncate(size int64) {
	if size < n.size {
		zeros := make([]byte, n.size-size)
		n.live = writePages(n.live, n.stable, zeros, size)
		n.writes = append(n.writes, write{size, zeros, size})
	} else {
		n.writes = append(n.writes, write{size, nil, size})
	}
	n.size = size
}

// bytes returns the content that the program sees.
func (n *node) bytes() []byte {
	b := make([]byte, n.size)
	n.read(b, 0)
	return b
}

// loss is how a power cut treats what was not synced.
type loss int

const (
	loseAll loss = iota
	keepAll
	keepPrefix // of the writes, in their order
	keepAny    // of each sector some number of the writes to it
	losses
)

// crash returns the file as the power cut left it.
func (n *node) crash(r *rand.Rand, how loss) *node {
	pages, size := slices.Clone(n.stable), n.stableSize
	switch how {
	case keepAll:
		pages, size = slices.Clone(n.live), n.size
	case keepPrefix, keepAny:
		if len(n.writes) == 0 {
			break
		}
		kept := r.IntN(len(n.writes) + 1)
		if kept > 0 {
			size = n.writes[kept-1].size
		}
		if how == keepPrefix {
			for _, w := range n.writes[:kept] {
				pages = writePages(pages, n.stable, w.data, w.off)
			}
			if kept < len(n.writes) { // the next one is torn
				w := n.writes[kept]
				if cut := r.IntN(len(w.data)/sectorSize+1) * sectorSize; cut > 0 {
					pages = writePages(pages, n.stable, w.data[:cut], w.off)
					size = max(size, w.off+int64(cut))
				}
			}
			break
		}
		pages = n.anySectors(r, pages)
	}
	out := &node{live: pages, size: size, stableSize: size}
	out.trim()
	out.stable = slices.Clone(out.live)
	return out
}

// anySectors keeps, of each sector, the first few of the writes to it.
func (n *node) anySectors(r *rand.Rand, pages []*page) []*page {
	type sector = int64
	left := map[sector]int{} // how many more writes of a sector are kept; counted first
	var order []sector
	each := func(w write, f func(s sector, from, to int64)) {
		for from := w.off; from < w.off+int64(len(w.data)); {
			s := from / sectorSize
			to := min((s+1)*sectorSize, w.off+int64(len(w.data)))
			f(s, from, to)
			from = to
		}
	}
	for _, w := range n.writes {
		each(w, func(s sector, _, _ int64) {
			if left[s] == 0 {
				order = append(order, s)
			}
			left[s]++
		})
	}
	for _, s := range order {
		left[s] = r.IntN(left[s] + 1)
	}
	for _, w := range n.writes {
		each(w, func(s sector, from, to int64) {
			if left[s] > 0 {
				left[s]--
				pages = writePages(pages, n.stable, w.data[from-w.off:to-w.off], from)
			}
		})
	}
	return pages
}

// trim clears what lies behind the end.
func (n *node) trim() {
	last := int((n.size + pageSize - 1) / pageSize)
	if len(n.live) > last {
		n.live = n.live[:last]
	}
	if tail := n.size % pageSize; tail != 0 && len(n.live) == last && n.live[last-1] != nil {
		fresh := *n.live[last-1]
		clear(fresh[tail:])
		n.live[last-1] = &fresh
	}
}

// whole returns the file as it is, durable.
func (n *node) whole() *node {
	return &node{live: slices.Clone(n.live), stable: slices.Clone(n.live), size: n.size, stableSize: n.size}
}
