package query

import (
	"github.com/holdfast-iot/holdfast"
)

// outlet gives out the windows of one stream or group, and between them those that
// have no readings, if they are to be filled; it ends where the page does.
type outlet struct {
	r       *run
	key     holdfast.StreamID
	source  *Source
	of      *candidate      // of windows of one stream
	spans   []holdfast.Span // what may be read, in order of time, apart from each other
	mark    uint64          // the last erasure before the windows' readings were read
	still   func() error    // the right to read is as it was
	erased  func(holdfast.Span) bool
	account func(*Window)
	yield   func(Row, error) bool

	from            int64 // windows before were given on an earlier page
	seen            bool  // there was a window with readings, here or on an earlier page
	next            int64 // where the next window begins, if seen
	beyond          bool  // there is no next: time ends
	prev            []holdfast.Value
	prevAt, prevEnd int64 // of the window of prev
	prevReach       holdfast.Span
	back            int64 // see place
	scrap           Window

	how step
	err error
}

// resume goes on where an earlier page ended.
func (o *outlet) resume(p place) {
	o.from, o.back = p.time, p.back
	o.seen, o.next = true, p.time
}

// window takes the next window that has readings; false when the outlet wants no
// more.
func (o *outlet) window(w *Window) bool {
	if !o.fillUpTo(w) {
		return false
	}
	o.remember(w)
	if w.last >= o.from && !o.give(w, w.reach()) {
		return false
	}
	o.seen, o.next, o.beyond = true, w.End, w.last == w.End
	return true
}

// reach is where the readings lie that what is said of w comes of.
func (w *Window) reach() holdfast.Span {
	s := holdfast.Span{From: w.Start, To: w.last}
	if w.counter.steps > 0 {
		s.From = min(s.From, w.counter.from)
	}
	return s
}

// give gives out one window, of which is said what comes of readings in
// reach; that is no time if it comes of none.
func (o *outlet) give(w *Window, reach holdfast.Span) bool {
	r := o.r
	if r.req.Limit > 0 && r.given == r.req.Limit {
		o.how = full
		return false
	}
	if o.err = o.still(); o.err == nil && reach.From <= reach.To && o.isErased(reach) {
		o.err = erasedMeanwhile()
	}
	if o.err != nil {
		return false
	}
	r.given++
	r.last = place{stream: o.key, span: r.at.span, time: w.last}
	if w.last < r.at.span.To {
		r.last.time++
	} else {
		r.last.time, r.last.given = r.at.span.To, wholeStream
	}
	r.last.back = min(o.back, r.last.time)
	if w.Count > 0 {
		o.account(w)
	}
	if !o.yield(Row{Source: o.source, Window: w}, nil) {
		o.how = stopped
		return false
	}
	return true
}

func (o *outlet) isErased(reach holdfast.Span) bool {
	if o.erased != nil {
		return o.erased(reach)
	}
	return o.r.q.erasures.Begun() != o.mark &&
		o.r.q.erasures.BegunSince(o.mark, o.of.Assignment, o.of.StreamID, reach)
}

// remember keeps of a window what those after it need: its values, and from where
// they could be found again.
func (o *outlet) remember(w *Window) {
	fill := o.r.req.Fill
	needsPrev := fill == FillPrevious || fill == FillLinear
	if needsPrev {
		o.prev = o.prev[:0]
		for _, a := range o.r.plan.asked {
			v, _ := w.Value(a)
			o.prev = append(o.prev, v)
		}
		o.prevAt, o.prevEnd, o.prevReach = w.Start, w.End, w.reach()
	}
	before := o.back
	counts := o.r.plan.needs&counters != 0
	switch {
	case counts && o.r.req.By != 0:
		o.back = o.spans[0].From // each stream of a group has a last reading of its own
		return
	case !counts && !needsPrev:
		o.back = w.End
		return
	case needsPrev:
		o.back = max(w.Start, o.spans[0].From)
		if counts && w.counter.steps > 0 {
			o.back = min(o.back, w.counter.from)
		}
	case w.counter.steps > 0:
		o.back = w.counter.to
	default:
		o.back = w.firstAt
	}
	if counts && w.counter.steps == 0 && o.seen {
		o.back = min(o.back, before)
	}
}
