package series

import "sync"

// readers counts scans, so that what they may still read is not taken from under
// them. A scan enters before it takes its snapshot.
type readers struct {
	mu      sync.Mutex
	epoch   uint64
	active  map[uint64]int
	open    map[*snapshot]struct{}
	blocked map[int64]uint64 // segment → the last epoch in which a scan may have seen what died in it
}

func (r *readers) enter() (leave func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	epoch := r.epoch
	r.active[epoch]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.active[epoch]--; r.active[epoch] == 0 {
			delete(r.active, epoch)
		}
	}
}

// retire notes that chunks of segments have died: scans of this epoch may have
// seen them, later ones don't.
func (r *readers) retire(rows []chunkRow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range rows {
		r.blocked[rows[i].segment] = r.epoch
	}
	r.epoch++
}

// free reports whether no scan can still read what died in a segment.
func (r *readers) free(segment int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.blocked[segment]
	if !ok {
		return true
	}
	for epoch := range r.active {
		if epoch <= last {
			return false
		}
	}
	delete(r.blocked, segment)
	return true
}

// release lets go of what died although scans may read it.
func (r *readers) release(rows []chunkRow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range rows {
		delete(r.blocked, rows[i].segment)
	}
}

// opened notes a snapshot until it leaves.
func (r *readers) opened(v *snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[v] = struct{}{}
}

func (r *readers) left(v *snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, v)
}

// overtake tells snapshots that an erasure was faster.
func (r *readers) overtake(which func(streamName) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for v := range r.open {
		if which(v.name) {
			v.overtaken.Store(true)
		}
	}
}
