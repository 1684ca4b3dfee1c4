package simtest

import (
	"slices"
	"time"
)

// scope is what an erasure covers.
type scope struct {
	devices  []int
	whose    int      // of each, what is this owner's
	streams  []string // none: all
	from, to time.Time
	month    int // of arrival; 0: any
}

// unsure is what the senders can't know.
const unsure = -1

// monthOf counts the months.
func monthOf(t time.Time) int { return t.UTC().Year()*12 + int(t.UTC().Month()) - 1 }

func (s *scope) span() bool  { return !s.from.IsZero() }
func (s *scope) whole() bool { return len(s.streams) == 0 && !s.span() && s.month == 0 }

// lapse is when a borrower's slice was erased whole: from then on the device is its
// owner's at all hours.
type lapse struct {
	from, to time.Time // between these
	known    bool
}

// whose says whose a reading of a device is, by its time.
func (w *world) whose(at int, t time.Time) int {
	d := w.img.devices[at]
	x, lapsed := w.lapsed[at]
	switch {
	case !d.shared || t.Before(d.from) || t.UTC().Hour()%2 == 0:
		return d.owner
	case !lapsed || t.Before(x.from) && !w.books.slips:
		return d.borrower
	case t.After(x.to) && x.known && !w.books.slips:
		return d.owner
	}
	return unsure
}

// lapses enters that a borrower's slice was erased, or may have been.
func (w *world) lapses(at int, from time.Time, known bool) {
	x, before := w.lapsed[at]
	switch {
	case before && x.known:
		return
	case before:
		from = x.from
	}
	w.lapsed[at] = lapse{from, time.Now(), known}
}

// covered says whether a scope covers a reading.
type covered int

const (
	no covered = iota
	perhaps
	yes
)

func (s *scope) covers(r *reading) covered {
	sure := yes
	switch {
	case !slices.Contains(s.devices, r.device), len(s.streams) > 0 && !slices.Contains(s.streams, r.stream):
		return no
	case r.whose == unsure:
		sure = perhaps
	case r.whose != s.whose:
		return no
	}
	switch {
	case s.month == 0:
	case r.month == unsure:
		sure = perhaps
	case r.month != s.month:
		return no
	}
	switch {
	case !s.span():
	case !r.timed:
		return perhaps // the hub gave it a time
	case r.time.Before(s.from) || r.time.After(s.to):
		return no
	}
	return sure
}
