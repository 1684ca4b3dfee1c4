package custody

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Readings of one certificate are told apart by their own time if that lies between
// their arrival less Spool and their arrival plus Ahead, else by their arrival.
const (
	Spool = 30 * 24 * time.Hour
	Ahead = 5 * time.Minute
)

// window is when a period holds.
type window struct {
	stretch
	schedule *Schedule // nil: all of it
}

func windowOf(from, to time.Time, s *Schedule) window {
	w := window{stretch{from.UnixNano(), math.MaxInt64}, s}
	if !to.IsZero() {
		w.to = to.UnixNano()
	}
	return w
}

func (w window) contains(t int64) bool {
	return w.from <= t && (t < w.to || w.to == math.MaxInt64) && (w.schedule == nil || w.schedule.contains(t))
}

// parts gives the stretches of which a window is made, in order.
func (w window) parts() iter.Seq[stretch] {
	if w.schedule == nil {
		return func(yield func(stretch) bool) {
			if w.from < w.to {
				yield(w.stretch)
			}
		}
	}
	return w.schedule.within(w.stretch)
}

// collides reports whether two windows share an instant, and the first one. It is
// exact, for all of the time that a reading can have.
func (w window) collides(o window) (at int64, shared bool) {
	both, ok := w.overlap(o.stretch)
	if !ok || w.schedule != nil && o.schedule != nil && w.schedule.disjoint(o.schedule) {
		return 0, false
	}
	next, stop := iter.Pull(window{both, o.schedule}.parts())
	defer stop()
	b, more := next()
	for a := range (window{both, w.schedule}).parts() {
		for ; more && b.to <= a.from; b, more = next() {
		}
		if !more {
			return 0, false
		}
		if s, ok := a.overlap(b); ok {
			return s.from, true
		}
	}
	return 0, false
}

// timeline is the periods of a device that readings may still fall into, by their
// beginning. It never changes once it is handed out.
type timeline struct {
	stretches []span
	latest    []int64 // the last end of the stretches up to each
}

// span is when a period holds and where its readings go.
type span struct {
	window
	route *Route // of which denied says why its readings have no owner
}

func newTimeline(all []span) *timeline {
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	t := &timeline{stretches: all, latest: make([]int64, len(all))}
	last := int64(math.MinInt64)
	for i, s := range all {
		last = max(last, s.to)
		t.latest[i] = last
	}
	return t
}

// at returns the route of the period that an instant lies in, nil if none.
func (t *timeline) at(when int64) *Route {
	n := sort.Search(len(t.stretches), func(i int) bool { return t.stretches[i].from > when })
	for i := n - 1; i >= 0 && (t.latest[i] > when || t.latest[i] == math.MaxInt64); i-- {
		if t.stretches[i].contains(when) {
			return t.stretches[i].route
		}
	}
	return nil
}

// At returns the route of the assignment to which a reading of time t belongs that
// arrived at a time; r itself if the device has no periods. byArrival says that t is
// out of bounds, so that the arrival decides: such a reading is marked Clock. A
// reading without a time of its own has that of its arrival. What was taken in a period
// that is erased is nobody's, however late it comes. The route may be that
// of a period whose readings have no owner any more: Denied says why.
func (r *Route) At(t, arrived int64) (_ *Route, byArrival bool) {
	byArrival = t > arrived+int64(Ahead) || t < arrived-int64(Spool)
	if byArrival && t < arrived && slices.ContainsFunc(r.vacant, func(w window) bool { return w.contains(t) }) {
		return r.nobody, true
	}
	if r.periods == nil {
		return r, byArrival
	}
	return r.period(t, arrived, byArrival), byArrival
}

func (r *Route) period(t, arrived int64, byArrival bool) *Route {
	if byArrival {
		t = arrived
	}
	if p := r.periods.at(t); p != nil {
		return p
	}
	return r
}

// Denied says why readings that belong here have no owner; nil if they have one.
func (r *Route) Denied() error { return r.denied }

// HasPeriods reports whether readings of the device may belong to others than the
// route's own assignment.
func (r *Route) HasPeriods() bool { return r.periods != nil }

// Stale reports that the periods of the device have changed since the route was
// asked for: what was told apart with it must be told apart again.
func (r *Route) Stale() bool { return r.stale.Load() }

// of returns the route of one of the device's assignments, nil if readings can't fall
// into it.
func (r *Route) of(a holdfast.AssignmentID) *Route {
	if r.Assignment == a {
		return r
	}
	if r.periods != nil {
		for _, s := range r.periods.stretches {
			if s.route.Assignment == a {
				return s.route
			}
		}
	}
	return nil
}

// Shifted returns the time before an instant that a change of a period gives it, and
// takes from it; at most so many spans. A period that is new has had none before.
func Shifted(old, a Assignment, until time.Time, most int) (gained, lost []holdfast.Span, err error) {
	had, has := old.before(until), a.before(until)
	if gained, err = without(has, had, most); err != nil {
		return nil, nil, err
	}
	lost, err = without(had, has, most)
	return gained, lost, err
}

func (a Assignment) before(until time.Time) iter.Seq[stretch] {
	if a.From.IsZero() {
		return func(func(stretch) bool) {}
	}
	w := a.window()
	w.to = min(w.to, until.UnixNano())
	return w.parts()
}

// without returns what of some stretches is in none of others, both in order.
func without(these, those iter.Seq[stretch], most int) ([]holdfast.Span, error) {
	var out []holdfast.Span
	next, stop := iter.Pull(those)
	defer stop()
	b, more := next()
	for a := range these {
		for a.from < a.to {
			for ; more && b.to <= a.from; b, more = next() {
			}
			free := a
			if more && b.from < a.to {
				free.to = max(a.from, b.from)
				a.from = min(a.to, b.to)
			} else {
				a.from = a.to
			}
			if free.from < free.to {
				out = append(out, holdfast.Span{From: free.from, To: free.to - 1})
			}
			if len(out) > most {
				return nil, holdfast.Errorf(holdfast.TooLarge, "the change reaches over more than %d stretches of the past: take a later beginning", most)
			}
		}
	}
	return out, nil
}
