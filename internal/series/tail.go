package series

import (
	"slices"
	"sync"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
)

// tail knows where in the journal each assignment's records stand, from the
// rolled position on.
type tail struct {
	mu    sync.Mutex
	of    map[holdfast.AssignmentID]*tailList
	floor journal.Pos // rolled: older records are in chunks
	bytes int64
	pins  map[*tailView]journal.Pos // what may not be trimmed yet
}

type tailEntry struct {
	pos  journal.Pos
	size uint32
}

// tailList only grows at its end; dropping makes a new slice, so that a view can
// share it.
type tailList struct {
	entries []tailEntry
	bytes   int64
}

// Observe puts a durable record into the tail, so that scans see it. Ingest
// calls it from the journal's done callback, before the acknowledgement; next is
// pos plus the bytes the record takes, or more.
func (s *Series) Observe(h Header, pos, next journal.Pos) {
	if s.tail.add(h.Assignment, pos, next) >= s.opt.Bytes {
		select {
		case s.full <- struct{}{}:
		default:
		}
	}
}

func (t *tail) add(a holdfast.AssignmentID, pos, next journal.Pos) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if pos < t.floor { // a roll was faster than the callback
		return t.bytes
	}
	l := t.of[a]
	if l == nil {
		l = &tailList{}
		t.of[a] = l
	}
	e := tailEntry{pos, uint32(next - pos)}
	l.entries = append(l.entries, e)
	l.bytes += int64(e.size)
	t.bytes += int64(e.size)
	return t.bytes
}

// restart begins an empty tail at pos.
func (t *tail) restart(pos journal.Pos) {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.of)
	t.bytes, t.floor = 0, pos
}

// drop forgets what lies before pos, and returns how far the journal may be
// trimmed: views may still read older records.
func (t *tail) drop(pos journal.Pos) journal.Pos {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.floor = max(t.floor, pos)
	for a, l := range t.of {
		n := 0
		for n < len(l.entries) && l.entries[n].pos < pos {
			l.bytes -= int64(l.entries[n].size)
			t.bytes -= int64(l.entries[n].size)
			n++
		}
		switch {
		case n == len(l.entries):
			delete(t.of, a)
		case n > 0:
			l.entries = slices.Clone(l.entries[n:])
		}
	}
	for _, p := range t.pins {
		pos = min(pos, p)
	}
	return pos
}

// forget drops an erased assignment.
func (t *tail) forget(a holdfast.AssignmentID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.of[a]; l != nil {
		t.bytes -= l.bytes
		delete(t.of, a)
	}
}

func (t *tail) size() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes
}

// sizeOf returns the bytes of one assignment's records.
func (t *tail) sizeOf(a holdfast.AssignmentID) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.of[a]; l != nil {
		return l.bytes
	}
	return 0
}

// tailView is the tail of one assignment at a moment. Its records stay in the
// journal until release.
type tailView struct {
	entries []tailEntry
	bytes   int64
	t       *tail
}

func (t *tail) view(a holdfast.AssignmentID) *tailView {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := &tailView{t: t}
	if l := t.of[a]; l != nil {
		v.entries, v.bytes = l.entries[:len(l.entries):len(l.entries)], l.bytes
		t.pins[v] = v.entries[0].pos
	}
	return v
}

func (v *tailView) release() {
	v.t.mu.Lock()
	defer v.t.mu.Unlock()
	delete(v.t.pins, v)
}
