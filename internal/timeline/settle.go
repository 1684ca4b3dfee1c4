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
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// side is one direction in which time changes hands.
type side struct {
	from, into custody.Assignment // without an id: a period that is not made yet
	spans      []holdfast.Span
}

// sides returns both, for what is pending of a period.
func (l *Timeline) sides(ctx context.Context, a custody.Assignment, p *custody.Pending) ([]side, error) {
	d, err := l.Custody.Device(ctx, a.Device)
	if err != nil {
		return nil, err
	}
	own, err := l.Custody.Assignment(ctx, d.Assignment)
	if err != nil {
		return nil, err
	}
	return []side{{own, a, p.Gained}, {a, own, p.Lost}}, nil
}

// claim keeps what is pending of a period from being erased otherwise until it is
// settled, and refuses whatever would keep it from that: it comes before the first step.
func (l *Timeline) claim(ctx context.Context, by access.Principal, a custody.Assignment, p *custody.Pending) (release func(), _ *erasure.Claim, err error) {
	if p == nil {
		return func() {}, nil, nil
	}
	if p.Move && !by.Can(access.ScopeRead) {
		return nil, nil, holdfast.Errorf(holdfast.Denied, "moving readings reads them, and the credential may not read: its scopes lack %s", access.ScopeRead)
	}
	all, err := l.sides(ctx, a, p)
	if err != nil {
		return nil, nil, err
	}
	var from []holdfast.Scope
	var into []holdfast.AssignmentID
	for _, s := range all {
		had := len(from)
		for _, span := range s.spans {
			concerned, err := l.concerned(ctx, s.from, span)
			if err != nil {
				return nil, nil, err
			}
			if len(concerned) == 0 {
				continue
			}
			if p.Move {
				if err := l.mayTake(ctx, s.into, concerned); err != nil {
					return nil, nil, err
				}
			}
			from = append(from, scopeOf(s.from, concerned, span))
		}
		if p.Move && len(from) > had && !s.into.ID.IsZero() {
			into = append(into, s.into.ID)
		}
	}
	c, err := l.Erasure.Claim(ctx, by, from, into)
	if err != nil {
		return nil, nil, err
	}
	return c.Release, c, nil
}

func scopeOf(a custody.Assignment, of []*custody.Stream, span holdfast.Span) holdfast.Scope {
	s := holdfast.Scope{Party: a.Whose(), Assignments: []holdfast.AssignmentID{a.ID}, Span: span}
	for _, x := range of {
		s.Streams = append(s.Streams, x.ID)
	}
	return s
}

// concerned returns the streams of an assignment that have readings in a span.
func (l *Timeline) concerned(ctx context.Context, a custody.Assignment, span holdfast.Span) (out []*custody.Stream, err error) {
	streams, err := l.Custody.StreamsOfAssignment(ctx, a)
	if err != nil {
		return nil, err
	}
	for _, s := range streams {
		n, err := l.rows(ctx, a.ID, s.ID, span)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			out = append(out, s)
		}
	}
	return out, nil
}

// mayTake refuses streams whose readings an assignment can't take over.
func (l *Timeline) mayTake(ctx context.Context, into custody.Assignment, of []*custody.Stream) error {
	if into.ID.IsZero() {
		return nil
	}
	for _, s := range of {
		there, err := l.Custody.StreamNamed(ctx, into.ID, s.Name)
		switch {
		case holdfast.KindOf(err) == holdfast.NotFound:
		case err != nil:
			return err
		case there.Type != s.Type:
			return holdfast.Errorf(holdfast.Conflict, "readings of a stream are of type %s, and of type %s where they would move to: keep or erase them", s.Type, there.Type)
		}
	}
	return nil
}

// settle does what is pending of a period, under a claim. The period is in force: what
// fails is gone on with by Once, and is no error of the change.
func (l *Timeline) settle(ctx context.Context, by access.Principal, c *erasure.Claim, a custody.Assignment) Result {
	r := Result{Assignment: a}
	if a.Pending == nil {
		return r
	}
	if err := l.finish(ctx, by, c, &r); err != nil {
		l.Logger.Error("timeline: the period is in force; what was there already is not settled yet, which is tried again", "assignment", a.ID, "err", err)
		return r
	}
	r.Pending = nil
	return r
}

// finish is settle with what keeps it from its end.
func (l *Timeline) finish(ctx context.Context, by access.Principal, c *erasure.Claim, r *Result) error {
	l.working.Lock()
	defer l.working.Unlock()
	all, err := l.sides(ctx, r.Assignment, r.Pending)
	if err != nil {
		return err
	}
	for _, s := range all {
		for _, span := range s.spans {
			if err := l.shift(ctx, by, c, s, span, r); err != nil {
				return err
			}
		}
	}
	return l.Custody.Settle(ctx, r.ID)
}

// shift moves or erases what an assignment has of a span. It may run again.
func (l *Timeline) shift(ctx context.Context, by access.Principal, c *erasure.Claim, s side, span holdfast.Span, r *Result) error {
	concerned, err := l.concerned(ctx, s.from, span)
	if err != nil || len(concerned) == 0 {
		return err
	}
	if r.Pending.Move {
		for _, x := range concerned {
			moved, err := l.move(ctx, by, x, s.into, span)
			r.Moved += moved
			if err != nil {
				return err
			}
		}
	}
	e, err := c.Erase(ctx, scopeOf(s.from, concerned, span))
	if err == nil {
		r.Erasures = append(r.Erasures, e.ID)
	}
	return err
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
			if err := l.goOn(ctx, a); err != nil {
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

// goOn settles a period of which something is pending since a crash or an error.
func (l *Timeline) goOn(ctx context.Context, a custody.Assignment) error {
	p := a.Pending
	by := access.Principal{Credential: p.By, Party: p.Party, Role: access.Owner, Scopes: access.ScopeRead | access.ScopeWrite, Settled: true}
	if p.Staff {
		by.Role = access.Administrator
	}
	release, c, err := l.claim(ctx, by, a, p)
	if err != nil {
		return err
	}
	defer release()
	// Another may have settled it since it was listed.
	if a, err = l.Custody.Assignment(ctx, a.ID); err != nil || a.Pending == nil || a.State == custody.Erased {
		return err
	}
	return l.finish(ctx, by, c, &Result{Assignment: a})
}
