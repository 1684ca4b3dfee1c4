package query

import (
	"math"
	"slices"
	"strconv"

	"github.com/holdfast-iot/holdfast"
)

// Fill is what to say of a window without readings. It is said of windows in what
// the reader asked for and may see, up to now, of a stream or group that has a
// window with readings there: from its start if the fill needs nothing before.
type Fill uint8

const (
	NoFill       Fill = iota // there is no such window
	FillNull                 // nothing
	FillPrevious             // what was said of the window before
	FillLinear               // the straight line between the windows before and after
	FillConstant             // Request.FillValue
)

// ParseFill reads the name of a Fill; a number is a FillConstant.
func ParseFill(text string) (Fill, float64, error) {
	if i := slices.Index([]string{"none", "null", "previous", "linear"}, text); i >= 0 {
		return Fill(i), 0, nil
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && len(text) <= 64 && !math.IsNaN(f) && !math.IsInf(f, 0) {
		return FillConstant, f, nil
	}
	return 0, 0, holdfast.Errorf(holdfast.Invalid, "a fill is none, null, previous, linear or a number like 0")
}

// checkFill keeps filled windows in number.
func (r *run) checkFill() error {
	if r.req.Fill == NoFill {
		return nil
	}
	n := uint64(0)
	for _, s := range r.visible() {
		s.To = min(s.To, r.began)
		if s.From <= s.To {
			n += r.req.manyWindows(s)
		}
		if n >= MaxWindows {
			return holdfast.Errorf(holdfast.TooLarge, "with those to fill there are more than %d windows: ask for longer windows, a shorter time, fewer streams, or leave out fill", MaxWindows)
		}
	}
	return nil
}

// visible is of each stream or group what may be seen, in one span.
func (r *run) visible() (all []holdfast.Span) {
	for _, g := range r.groups {
		all = append(all, holdfast.Span{From: g.spans[0].From, To: g.spans[len(g.spans)-1].To})
	}
	if r.req.By == 0 {
		for i := range r.streams {
			all = append(all, r.streams[i].Span)
		}
	}
	return all
}

// fillUpTo gives the windows without readings before w.
func (o *outlet) fillUpTo(w *Window) bool {
	if o.r.req.Fill == NoFill || o.beyond || w.Start == math.MinInt64 {
		return true
	}
	at := o.next
	if !o.seen {
		at, _, _ = o.r.plan.ruler.around(o.spans[0].From)
	}
	return o.fillBetween(at, w.Start-1, w)
}

// end gives the windows without readings behind the last that has some.
func (o *outlet) end() bool {
	if o.r.req.Fill == NoFill || !o.seen || o.beyond {
		return true
	}
	return o.fillBetween(o.next, min(o.spans[len(o.spans)-1].To, o.r.began), nil)
}

// fillBetween gives the windows that begin at or after one that begins at from and
// no later than to. after is the window with readings that comes next, if one does.
func (o *outlet) fillBetween(from, to int64, after *Window) bool {
	from = max(from, o.from)
	apart := o.apart(after)
	for at := from; at <= to; {
		w := &o.scrap
		*w = Window{plan: o.r.plan, typ: o.source.Type, filled: w.filled[:0]}
		w.Start, w.End, w.last = o.r.plan.ruler.around(at)
		if o.sees(w) {
			o.fill(w, after, apart)
			if !o.give(w, o.fillReach(after, apart)) {
				return false
			}
			o.next = w.End
		} else {
			o.prev, apart = o.prev[:0], true
		}
		if w.last == w.End { // time ends
			o.beyond = true
			return true
		}
		at = w.End
	}
	return true
}

// sees reports whether any of a window is the reader's to see.
func (o *outlet) sees(w *Window) bool {
	return slices.ContainsFunc(o.spans, func(s holdfast.Span) bool { return s.From <= w.last && w.Start <= s.To })
}

// apart reports whether between the window before and the one after lies what the
// reader may not see.
func (o *outlet) apart(after *Window) bool {
	if after == nil || len(o.prev) == 0 {
		return true
	}
	return !slices.ContainsFunc(o.spans, func(s holdfast.Span) bool { return s.From < o.prevEnd && after.Start <= s.To })
}

// fill says what is to be said of a window without readings.
func (o *outlet) fill(w, after *Window, apart bool) {
	for i, a := range o.r.plan.asked {
		var v holdfast.Value
		switch o.r.req.Fill {
		case FillPrevious:
			if i < len(o.prev) {
				v = o.prev[i]
			}
		case FillLinear:
			if !apart && i < len(o.prev) {
				next, _ := after.Value(a)
				v = between(o.prev[i], next, float64(w.Start-o.prevAt)/float64(after.Start-o.prevAt))
			}
		case FillConstant:
			if a.of(o.source.Type) && Sum.of(o.source.Type) {
				v = holdfast.NumberValue(o.r.req.FillValue)
			}
		}
		w.filled = append(w.filled, v)
	}
}

// fillReach is where the readings lie that fill says something of, no time if it
// says nothing of any.
func (o *outlet) fillReach(after *Window, apart bool) holdfast.Span {
	switch fill := o.r.req.Fill; {
	case len(o.prev) == 0:
	case fill == FillPrevious:
		return o.prevReach
	case fill == FillLinear && !apart:
		return holdfast.Span{From: o.prevReach.From, To: after.last}
	}
	return holdfast.Span{From: 0, To: -1}
}

// between is the value so far along the line from a to b; nothing where they are no
// numbers.
func between(a, b holdfast.Value, part float64) holdfast.Value {
	x, xok := numberOf(a)
	y, yok := numberOf(b)
	if !xok || !yok {
		return holdfast.Value{}
	}
	return holdfast.NumberValue(x*(1-part) + y*part)
}

func numberOf(v holdfast.Value) (float64, bool) {
	switch v.Type() {
	case holdfast.Number:
		return v.Number(), true
	case holdfast.Integer:
		return float64(v.Integer()), true
	}
	return 0, false
}

// fillOf is Window.Value of a window without readings. How many there are is no
// matter of filling.
func (w *Window) fillOf(a Aggregate) (holdfast.Value, bool) {
	if a == Count {
		return holdfast.IntegerValue(0), true
	}
	if i := slices.Index(w.plan.asked, a); i >= 0 && i < len(w.filled) {
		return w.filled[i], w.filled[i].Type().Valid()
	}
	return holdfast.Value{}, false
}
