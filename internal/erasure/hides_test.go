package erasure

import (
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// TestBegunSince: a read learns of every erasure that was asked for while it went
// on, though it may be done by then.
func TestBegunSince(t *testing.T) {
	g := &Gate{}
	a, b := holdfast.AssignmentID{1}, holdfast.AssignmentID{2}
	s, other := holdfast.StreamID{1}, holdfast.StreamID{2}
	all := holdfast.Always
	since := g.Begun()
	if g.BegunSince(since, a, s, all) {
		t.Error("of no erasure")
	}
	g.begun.add(newOpened(holdfast.Scope{Assignments: []holdfast.AssignmentID{a}, Streams: []holdfast.StreamID{s}, Span: holdfast.Span{From: 10, To: 20}}, false))
	for _, c := range []struct {
		a    holdfast.AssignmentID
		s    holdfast.StreamID
		span holdfast.Span
		want bool
	}{
		{a, s, all, true},
		{a, s, holdfast.Span{From: 0, To: 10}, true},
		{a, s, holdfast.Span{From: 0, To: 9}, false},
		{a, s, holdfast.Span{From: 21, To: 30}, false},
		{a, other, all, false},
		{b, s, all, false},
	} {
		if got := g.BegunSince(since, c.a, c.s, c.span); got != c.want {
			t.Errorf("%v %v %v: %v", c.a, c.s, c.span, got)
		}
	}
	mark := g.Begun()
	if g.BegunSince(mark, a, s, all) {
		t.Error("of one before")
	}
	for range rememberBegun {
		g.begun.add(newOpened(holdfast.Scope{Assignments: []holdfast.AssignmentID{a}, Span: all}, false))
	}
	if g.BegunSince(mark, b, s, all) || !g.BegunSince(mark, a, s, all) {
		t.Error("of as many as are remembered")
	}
	if !g.BegunSince(since, b, s, all) {
		t.Error("of more than are remembered")
	}
}
