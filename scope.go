package holdfast

import "math"

// Span is a closed range of nanoseconds since 1970. Its zero value is not "all
// time" but the one instant 0; use Always.
type Span struct{ From, To int64 }

// Always is all of time.
var Always = Span{math.MinInt64, math.MaxInt64}

// Contains reports whether t lies in s, ends included.
func (s Span) Contains(t int64) bool { return s.From <= t && t <= s.To }

// Overlaps reports whether s and q share an instant.
func (s Span) Overlaps(q Span) bool { return s.From <= q.To && q.From <= s.To }

// Covers reports whether all of q lies in s.
func (s Span) Covers(q Span) bool { return s.From <= q.From && q.To <= s.To }

// Scope names what an erasure destroys: all of a party, or assignments of it, or
// streams of these, or a span of those streams, or what arrived in a month. Every place that can
// hold an owner's data takes it in its Erase method.
type Scope struct {
	Party       PartyID        // whose data it is
	Assignments []AssignmentID // every assignment touched; all of the party's if Whole
	Streams     []StreamID     // empty: all streams of Assignments
	Span        Span           // Always: all of each stream
	// Month, YYYYMM, narrows the streams to what arrived in it, UTC; 0: whenever. A
	// scope with a month has no span.
	Month int
	// Whole: the party itself goes, with everything about it.
	Whole bool
	// Before is when the erasure was accepted, ns since 1970. What arrived later
	// is another matter, but for the bar that every erasure leaves.
	Before int64
}

// Partial reports whether readings of the touched streams survive, so that they
// must be sealed again under a fresh key.
func (s Scope) Partial() bool { return s.Span != Always }

// InPart reports whether the touched assignments live on, with all that is theirs
// besides readings: what a device is, was told and may do.
func (s Scope) InPart() bool { return len(s.Streams) > 0 || s.Partial() || s.Month != 0 }
