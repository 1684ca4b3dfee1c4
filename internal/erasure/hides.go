package erasure

import (
	"slices"
	"sync/atomic"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// What reads and ingest ask. A reading that an erasure covers shows in no read from
// the moment at which the erasure is asked for, though its key may still live: for a
// moment, or until the window in which it can be undone is over.

// opened is a scope that hides what it covers.
type opened struct {
	holdfast.Scope
	assignments map[holdfast.AssignmentID]struct{}
	streams     map[holdfast.StreamID]struct{} // none: every one
	waits       bool                           // it may still be undone
}

func newOpened(s holdfast.Scope, waits bool) *opened {
	o := &opened{Scope: s, assignments: make(map[holdfast.AssignmentID]struct{}, len(s.Assignments)), streams: make(map[holdfast.StreamID]struct{}, len(s.Streams)), waits: waits}
	for _, a := range s.Assignments {
		o.assignments[a] = struct{}{}
	}
	for _, x := range s.Streams {
		o.streams[x] = struct{}{}
	}
	return o
}

func (o *opened) covers(a holdfast.AssignmentID, stream holdfast.StreamID, span holdfast.Span) bool {
	if _, ok := o.assignments[a]; !ok || !o.Span.Overlaps(span) {
		return false
	}
	return o.has(stream)
}

func (o *opened) has(stream holdfast.StreamID) bool {
	_, ok := o.streams[stream]
	return ok || len(o.streams) == 0
}

// begun counts the erasures that were asked for, and remembers the last of them.
type begun struct {
	n    atomic.Uint64
	last []*opened // number n is at n % rememberBegun; under Gate.mu
}

// rememberBegun is how many erasures may be asked for while a read is under way
// without its being told more than it needs to be.
const rememberBegun = 256

// add is called under Gate.mu.
func (b *begun) add(o *opened) {
	n := b.n.Load() + 1
	if len(b.last) < rememberBegun {
		b.last = append(b.last, nil)
	}
	b.last[int(n-1)%rememberBegun] = o
	b.n.Store(n)
}

// Begun returns how many erasures were asked for since the start.
func (g *Gate) Begun() uint64 { return g.begun.n.Load() }

// BegunSince reports whether an erasure asked for after the one numbered n covers
// any of a stream's span; true also if that is so long ago that it is not known, or
// if only the arrival of a reading says whether it is covered.
func (g *Gate) BegunSince(n uint64, a holdfast.AssignmentID, stream holdfast.StreamID, span holdfast.Span) bool {
	now := g.begun.n.Load()
	if now == n {
		return false
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	now = g.begun.n.Load()
	if now-n > uint64(len(g.begun.last)) {
		return true
	}
	for ; n < now; n++ {
		if g.begun.last[int(n)%rememberBegun].covers(a, stream, span) {
			return true
		}
	}
	return false
}

// hide has a scope refused from here on. One that is hidden already goes on as it is
// now. waits: it may be undone.
func (g *Gate) hide(id holdfast.ErasureID, s holdfast.Scope, waits bool) {
	o := newOpened(s, waits)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open[id] == nil {
		g.holding.Add(1)
		g.begun.add(o)
	} else {
		g.unlist(id)
	}
	g.open[id] = o
	for a := range o.assignments {
		g.covering[a] = append(g.covering[a], o)
	}
	if g.done[id] == nil {
		g.done[id] = make(chan struct{})
	}
}

// unlist is called under Gate.mu.
func (g *Gate) unlist(id holdfast.ErasureID) {
	o := g.open[id]
	if o == nil {
		return
	}
	for a := range o.assignments {
		if left := slices.DeleteFunc(slices.Clone(g.covering[a]), func(x *opened) bool { return x == o }); len(left) > 0 {
			g.covering[a] = left
		} else {
			delete(g.covering, a)
		}
	}
}

// show ends what hide began: the keys of all that was hidden are gone, or nothing
// happened.
func (g *Gate) show(id holdfast.ErasureID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open[id] != nil {
		g.unlist(id)
		delete(g.open, id)
		g.holding.Add(-1)
	}
	if ended := g.done[id]; ended != nil {
		close(ended)
		delete(g.done, id)
	}
	delete(g.why, id)
	delete(g.undone, id)
}

// Hides reports whether an erasure that is under way covers a reading.
func (g *Gate) Hides(a holdfast.AssignmentID, stream holdfast.StreamID, at int64) bool {
	return g.Touches(a, stream, holdfast.Span{From: at, To: at})
}

// Touches reports whether an erasure that is under way covers any of a stream's
// span. What goes by its month of arrival is withheld where readings are stored.
func (g *Gate) Touches(a holdfast.AssignmentID, stream holdfast.StreamID, span holdfast.Span) bool {
	if g.holding.Load() == 0 {
		return false
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, o := range g.covering[a] {
		if o.Month == 0 && o.covers(a, stream, span) {
			return true
		}
	}
	return false
}

// withholds reports whether an erasure that is under way covers a cell by its month.
func (g *Gate) withholds(c series.Cell) bool {
	if g.holding.Load() == 0 {
		return false
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, o := range g.covering[c.Assignment] {
		if o.Month != 0 && o.Month == c.Bucket.Month() && o.has(c.Stream) {
			return true
		}
	}
	return false
}

// All reports whether an erasure that is under way covers every reading of a stream:
// then not even what there is of it is shown.
func (g *Gate) All(a holdfast.AssignmentID, stream holdfast.StreamID) bool {
	if g.holding.Load() == 0 {
		return false
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.ContainsFunc(g.covering[a], func(o *opened) bool { return o.Month == 0 && !o.Partial() && o.has(stream) })
}

// Ends says why nothing else that an assignment has is given out or taken, its commands
// and state: an erasure of all of it is under way. nil: none is.
func (g *Gate) Ends(a holdfast.AssignmentID) error {
	if g.holding.Load() == 0 {
		return nil
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	var waits error
	for _, o := range g.covering[a] {
		switch {
		case o.Scope.InPart():
		case !o.waits:
			return errErased
		default:
			waits = errWaits
		}
	}
	return waits
}

var (
	errErased = holdfast.Errorf(holdfast.Denied, "the device was erased")
	errWaits  = holdfast.Errorf(holdfast.Unavailable, "the device waits to be erased: keep its readings and send them later, that may be undone")
)

// Hold says whether readings of a stream may come in now: not while an erasure that
// covers it is under way. Of what ends for good they are Denied; of what lives on they
// are Unavailable, for the moment that it takes. While it may be undone, those of a
// whole assignment are Unavailable, so that a device keeps them. Those of a part come
// in, for the device must not be kept from sending others: what the erasure covers of
// them shows in no read, and goes with the rest, or is there if it is undone.
func (g *Gate) Hold(a holdfast.AssignmentID, stream holdfast.StreamID) error {
	if g.holding.Load() == 0 {
		return nil
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	var held error
	for _, o := range g.covering[a] {
		whole := !o.Scope.InPart()
		switch {
		case !o.has(stream), !whole && o.waits:
		case whole && !o.waits:
			return errErased
		case whole:
			held = errWaits
		default:
			held = holdfast.Errorf(holdfast.Unavailable, "readings of this stream are being erased: send again in a moment")
		}
	}
	return held
}
