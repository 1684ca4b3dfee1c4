package timeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// settle does what is pending of a period.
func (l *Timeline) settle(ctx context.Context, by access.Principal, a custody.Assignment) (Result, error) {
	r := Result{Assignment: a}
	if a.Pending == nil {
		return r, nil
	}
	l.working.Lock()
	defer l.working.Unlock()
	d, err := l.Custody.Device(ctx, a.Device)
	if err != nil {
		return r, err
	}
	own, err := l.Custody.Assignment(ctx, d.Assignment)
	if err != nil {
		return r, err
	}
	for _, side := range []struct {
		from, into custody.Assignment
		spans      []holdfast.Span
	}{{own, a, a.Pending.Gained}, {a, own, a.Pending.Lost}} {
		for _, span := range side.spans {
			if err := l.shift(ctx, by, side.from, side.into, span, &r); err != nil {
				return r, fmt.Errorf("the period is in force; what was there already is not settled yet, which is tried again: %w", err)
			}
		}
	}
	r.Pending = nil
	return r, l.Custody.Settle(ctx, a.ID)
}

// shift moves or erases what an assignment has of a span. It may run again.
func (l *Timeline) shift(ctx context.Context, by access.Principal, from, into custody.Assignment, span holdfast.Span, r *Result) error {
	streams, err := l.Custody.StreamsOfAssignment(ctx, from)
	if err != nil {
		return err
	}
	var concerned []holdfast.StreamID
	for _, s := range streams {
		n, err := l.rows(ctx, from.ID, s.ID, span)
		if err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		concerned = append(concerned, s.ID)
		if !r.Assignment.Pending.Move {
			continue
		}
		moved, err := l.move(ctx, by, s, into, span)
		r.Moved += moved
		if err != nil {
			return err
		}
	}
	if len(concerned) == 0 {
		return nil
	}
	e, err := l.Erasure.Ask(ctx, by, holdfast.Scope{Party: from.Whose(), Assignments: []holdfast.AssignmentID{from.ID}, Streams: concerned, Span: span})
	if err == nil {
		r.Erasures = append(r.Erasures, e.ID)
	}
	return err
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

// Between two looks for what is due.
const lookEvery = time.Minute

// Run erases periods whose time has come and goes on with what a crash or an error
// left pending, until ctx ends.
func (l *Timeline) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := l.Once(ctx); err != nil && ctx.Err() == nil {
			l.Logger.Error("timeline: not all of it is done, will be tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Once does what is due now. What fails for one period does not keep the others.
func (l *Timeline) Once(ctx context.Context) error {
	over, pending, err := l.Custody.Due(ctx, l.Now())
	if err != nil {
		return fmt.Errorf("look for periods that are over: %w", err)
	}
	operating, err := l.Custody.Operating(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range slices.Concat(pending, over) {
		if a.Pending != nil {
			p := a.Pending
			by := access.Principal{Credential: p.By, Party: p.Party, Role: access.Owner, Scopes: access.ScopeRead | access.ScopeWrite, Settled: true}
			if p.Staff {
				by.Role = access.Administrator
			}
			if _, err := l.settle(ctx, by, a); err != nil {
				errs = append(errs, fmt.Errorf("settle assignment %s: %w", a.ID, err))
			}
			continue
		}
		if l.Held(a) {
			continue
		}
		hub := access.Principal{Party: operating, Role: access.Administrator, Scopes: access.ScopeWrite, Settled: true}
		if _, err := l.Erasure.Ask(ctx, hub, l.Custody.ScopeOfAssignment(a)); err != nil {
			errs = append(errs, fmt.Errorf("erase assignment %s, which is over: %w", a.ID, err))
		}
	}
	return errors.Join(errs...)
}
