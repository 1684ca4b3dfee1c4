package timeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// maxSpans is over how many stretches of the past readings are moved or erased at once;
// a schedule makes one of each shift.
const maxSpans = 100

// change is one under way.
type change struct {
	by      access.Principal
	old, a  custody.Assignment // old without a beginning: the period is new
	already Already
	now     time.Time // what lies before it is past
}

// past says what is to become of readings that a change concerns: nil, if there are
// none or they stay whose they are. It refuses where that is not said, and where who
// asks may not say it.
func (l *Timeline) past(ctx context.Context, c *change) (*custody.Pending, error) {
	if c.already == Keep {
		return nil, nil
	}
	gained, lost, err := custody.Shifted(c.old, c.a, c.now, maxSpans)
	if err != nil {
		return nil, fmt.Errorf("%w, or keep what is there already", err)
	}
	if len(gained)+len(lost) == 0 {
		return nil, nil
	}
	d, err := l.Custody.Device(ctx, c.a.Device)
	if err != nil {
		return nil, err
	}
	own, err := l.Custody.Assignment(ctx, d.Assignment)
	if err != nil {
		return nil, err
	}
	concerned := uint64(0)
	known := true // the caller may know of all that is concerned
	for _, side := range []struct {
		from  custody.Assignment
		spans []holdfast.Span
	}{{own, gained}, {c.old, lost}} {
		if len(side.spans) == 0 {
			continue
		}
		reads, err := l.reads(ctx, c.by, side.from)
		if err != nil {
			return nil, err
		}
		if c.already != Unsaid && (reads || c.by.Role == access.Administrator) {
			if err := l.Custody.OneWord(ctx, side.from.Whose(), c.by.Person()); err != nil {
				return nil, err
			}
		}
		if !reads {
			known = false
			if c.already == Move || c.already == Erase && c.by.Role != access.Administrator {
				return nil, holdfast.Errorf(holdfast.Denied, "the readings of that time are another's: only he can have them moved or erased; say keep, and they stay his")
			}
			continue
		}
		n, err := l.count(ctx, side.from, side.spans)
		if err != nil {
			return nil, err
		}
		concerned += n
	}
	switch {
	case known && concerned == 0:
		return nil, nil
	case c.already != Unsaid:
		if err := c.by.MustBeSettled(); err != nil {
			return nil, err
		}
		return &custody.Pending{Move: c.already == Move, Gained: gained, Lost: lost, By: c.by.Credential, Party: c.by.Party,
			Staff: c.by.Role == access.Administrator}, nil
	case known:
		return nil, holdfast.Errorf(holdfast.Conflict,
			"%d readings of that time are there already, under another key: say what becomes of them: keep (they stay whose they are), erase, or move (they become those of whose time it is now)", concerned)
	}
	// Whether there are any is not the caller's to know.
	return nil, holdfast.Errorf(holdfast.Conflict,
		"the change reaches into a time that was another's: say what becomes of readings that may be there already: keep (they stay his), or erase or move, if he asks for it")
}

// reads reports whether an assignment's readings are the caller's own.
func (l *Timeline) reads(ctx context.Context, by access.Principal, a custody.Assignment) (bool, error) {
	if by.Role == access.Owner || by.Party != a.Whose() {
		return by.Party == a.Whose(), nil
	}
	operating, err := l.Custody.Operating(ctx)
	return by.Role == access.Administrator && by.Party == operating, err
}

func (l *Timeline) count(ctx context.Context, a custody.Assignment, spans []holdfast.Span) (n uint64, err error) {
	streams, err := l.Custody.StreamsOfAssignment(ctx, a)
	if err != nil {
		return 0, err
	}
	for _, s := range streams {
		for _, span := range spans {
			rows, err := l.rows(ctx, a.ID, s.ID, span)
			if err != nil {
				return 0, err
			}
			n += rows
		}
	}
	return n, nil
}

func (l *Timeline) rows(ctx context.Context, a holdfast.AssignmentID, s holdfast.StreamID, span holdfast.Span) (n uint64, err error) {
	for b, err := range l.Series.Read(ctx, []series.Want{{Assignment: a, Stream: s, Span: span}}) {
		if err != nil {
			return 0, fmt.Errorf("count readings: %w", err)
		}
		n += uint64(b.To - b.From)
	}
	return n, nil
}

// move takes a span of a stream over into another assignment. What it reads, it reads
// for the one whose data they are, with the record of it.
func (l *Timeline) move(ctx context.Context, by access.Principal, s *custody.Stream, into custody.Assignment, span holdfast.Span) (uint64, error) {
	route, err := l.Custody.RouteInto(ctx, into)
	if err != nil {
		return 0, err
	}
	there, err := l.there(ctx, into, s.Name, span)
	if err != nil {
		return 0, err
	}
	res, err := l.Query.Read(ctx, query.Request{Who: by, Selection: query.Selection{Device: route.Device, Stream: s.Name}, Span: span})
	if err != nil {
		return 0, err
	}
	readings := func(yield func(holdfast.Reading, error) bool) {
		for row, err := range res.Rows {
			if err != nil {
				yield(holdfast.Reading{}, err)
				return
			}
			if row.StreamID != s.ID {
				continue
			}
			if k := keyOf(row.Reading); there[k] > 0 {
				there[k]--
				continue
			}
			if !yield(row.Reading, nil) {
				return
			}
		}
	}
	moved, err := l.Ingest.Move(ctx, route, s, readings)
	return moved, errors.Join(err, res.Close())
}

// stamped is a reading without a time of its own, of which a repeat can't be told from
// another.
type stamped struct {
	time  int64
	seq   uint64
	value holdfast.Value
}

func keyOf(r holdfast.Reading) stamped {
	if r.Mark&holdfast.Stamped == 0 {
		return stamped{}
	}
	return stamped{r.Time, r.Seq, r.Value}
}

// there counts what an attempt that was cut short has moved already: readings that have
// no time of their own. Of the others, repeats count once.
func (l *Timeline) there(ctx context.Context, into custody.Assignment, name string, span holdfast.Span) (map[stamped]int, error) {
	s, err := l.Custody.StreamNamed(ctx, into.ID, name)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := map[stamped]int{}
	for b, err := range l.Series.Read(ctx, []series.Want{{Assignment: into.ID, Stream: s.ID, Span: span}}) {
		if err != nil {
			return nil, fmt.Errorf("look for what is moved already: %w", err)
		}
		for i := b.From; i < b.To; i++ {
			if k := keyOf(b.Columns.Reading(i)); k != (stamped{}) {
				all[k]++
			}
		}
	}
	return all, nil
}
