package erasure

import (
	"slices"
	"sync/atomic"

	"github.com/holdfast-iot/holdfast"
)

// What reads ask. A reading that an erasure covers shows in no read from the moment
// at which the erasure is asked for, though its key may still live for a moment.

// begun counts the erasures that were asked for, and remembers the last of them.
type begun struct {
	n    atomic.Uint64
	last []holdfast.Scope // number n is at n % rememberBegun; under Gate.mu
}

// rememberBegun is how many erasures may be asked for while a read is under way
// without its being told more than it needs to be.
const rememberBegun = 256

// add is called under Gate.mu.
func (b *begun) add(s holdfast.Scope) {
	n := b.n.Load() + 1
	if len(b.last) < rememberBegun {
		b.last = append(b.last, holdfast.Scope{})
	}
	b.last[int(n-1)%rememberBegun] = s
	b.n.Store(n)
}

// Begun returns how many erasures were asked for since the start.
func (g *Gate) Begun() uint64 { return g.begun.n.Load() }

// BegunSince reports whether an erasure asked for after the one numbered n covers
// any of a stream's span; true also if that is so long ago that it is not known.
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
		if covers(g.begun.last[int(n)%rememberBegun], a, stream, span) {
			return true
		}
	}
	return false
}

// Hides reports whether an erasure that is under way covers a reading.
func (g *Gate) Hides(a holdfast.AssignmentID, stream holdfast.StreamID, at int64) bool {
	return g.Touches(a, stream, holdfast.Span{From: at, To: at})
}

// Touches reports whether an erasure that is under way covers any of a stream's
// span.
func (g *Gate) Touches(a holdfast.AssignmentID, stream holdfast.StreamID, span holdfast.Span) bool {
	if g.holding.Load() == 0 {
		return false
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, s := range g.open {
		if covers(s, a, stream, span) {
			return true
		}
	}
	return false
}

func covers(s holdfast.Scope, a holdfast.AssignmentID, stream holdfast.StreamID, span holdfast.Span) bool {
	return slices.Contains(s.Assignments, a) && (len(s.Streams) == 0 || slices.Contains(s.Streams, stream)) && s.Span.Overlaps(span)
}
