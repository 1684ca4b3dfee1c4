// Package timeline is who has a device when: it adds, changes and ends the periods of
// devices for those who may, settles what becomes of readings that were sealed before
// the change, and erases periods whose time to erase themselves has come.
//
// It promises that a change which reaches into the past happens only when it was said
// what becomes of the readings that are there, and only as a whole: what a hold or an
// erasure that waits would keep from moving is looked for before anything is changed; that these are moved or erased at the
// word of the one whose data they are (or of an administrator, for an erasure) and of
// nobody else; that what was begun is gone on with after a crash; and that whoever may
// not read an assignment learns nothing of its readings from a refusal.
//
// It keeps nothing of its own: what is to be done stands with the period (custody).
package timeline

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// Already is what becomes of readings that were sealed before a change of which they
// are concerned.
type Already string

// What can become of them. Unsaid, a change that concerns some is refused.
const (
	Unsaid Already = ""
	Keep   Already = "keep"  // they stay whose they were
	Erase  Already = "erase" // they are erased from where they are
	Move   Already = "move"  // they become those of the one to whom their time belongs now
)

// ParseAlready reads the word for it.
func ParseAlready(s string) (Already, error) {
	switch a := Already(s); a {
	case Unsaid, Keep, Erase, Move:
		return a, nil
	}
	return "", holdfast.Errorf(holdfast.Invalid, "what becomes of readings that are there already is keep, erase or move")
}

// Eraser is the way out for good.
type Eraser interface {
	Ask(ctx context.Context, by access.Principal, s holdfast.Scope) (erasure.Erasure, error)
	// Claim keeps from of other erasures' reach until it is released, and refuses what
	// can't be moved or erased now.
	Claim(ctx context.Context, by access.Principal, from []holdfast.Scope, into []holdfast.AssignmentID) (*erasure.Claim, error)
}

// Mover is the way in, for readings that move from one assignment to another.
type Mover interface {
	Move(ctx context.Context, into *custody.Route, of *custody.Stream, readings iter.Seq2[holdfast.Reading, error]) (uint64, error)
}

// Reader looks at readings that don't leave.
type Reader interface {
	Read(ctx context.Context, wants []series.Want) iter.Seq2[*series.Batch, error]
}

// Deps is what a Timeline stands on; all but Held, Now and Logger are required.
type Deps struct {
	Custody *custody.Custody
	Query   *query.Query
	Series  Reader
	Ingest  Mover
	Erasure Eraser
	// Held reports whether a hold keeps an assignment from erasing itself; default:
	// there are none.
	Held   func(a custody.Assignment) bool
	Now    func() time.Time
	Logger *slog.Logger
}

// Timeline keeps the periods of devices. It is safe for concurrent use.
type Timeline struct {
	Deps
	working sync.Mutex // one settlement at a time
}

// New makes a Timeline.
func New(d Deps) *Timeline {
	if d.Held == nil {
		d.Held = func(custody.Assignment) bool { return false }
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	return &Timeline{Deps: d}
}

// Result is what a change has done.
type Result struct {
	custody.Assignment
	Erasures []holdfast.ErasureID // of readings that were there already
	Moved    uint64               // how many of them belong to the one whose time it is now
}

// Add gives a device a period. The owner of the device may, with his own credential,
// and an administrator for devices of the operating organisation.
func (l *Timeline) Add(ctx context.Context, by access.Principal, spec custody.PeriodSpec, already Already) (Result, error) {
	if err := l.mayLend(ctx, by, spec.Device); err != nil {
		return Result{}, err
	}
	now := l.Now() // before a beginning that is left out
	a, err := l.Custody.CheckPeriod(ctx, spec)
	if err != nil {
		return Result{}, err
	}
	c := change{by: by, a: a, already: already, now: now}
	if spec.Pending, err = l.past(ctx, &c); err != nil {
		return Result{}, err
	}
	release, claim, err := l.claim(ctx, by, a, spec.Pending)
	if err != nil {
		return Result{}, err
	}
	defer release()
	if a, err = l.Custody.AddPeriod(ctx, by.Credential, spec); err != nil {
		return Result{}, err
	}
	return l.settle(ctx, by, claim, a), nil
}

// Change puts other terms in the place of a period's. Whoever may add one may.
func (l *Timeline) Change(ctx context.Context, by access.Principal, id holdfast.AssignmentID, t custody.Terms, already Already) (Result, error) {
	a, err := l.See(ctx, by, id)
	if err != nil {
		return Result{}, err
	}
	if err := l.mayLend(ctx, by, a.Device); err != nil {
		return Result{}, err
	}
	now := l.Now()
	old, a, err := l.Custody.CheckChange(ctx, id, t)
	if err != nil {
		return Result{}, err
	}
	return l.amend(ctx, change{by: by, old: old, a: a, already: already, now: now}, false)
}

// End ends a period at a time, the zero one being now. Either side may: whoever may
// add one, and its owner and its data subject.
func (l *Timeline) End(ctx context.Context, by access.Principal, id holdfast.AssignmentID, at time.Time, already Already) (Result, error) {
	a, err := l.See(ctx, by, id)
	if err != nil {
		return Result{}, err
	}
	if by.Role != access.Owner || a.Owner != by.Party && a.Subject != by.Party {
		if err := l.mayLend(ctx, by, a.Device); err != nil {
			return Result{}, err
		}
	}
	now := l.Now() // before an end that is left out
	old, a, err := l.Custody.CheckEnd(ctx, id, at)
	if err != nil {
		return Result{}, err
	}
	return l.amend(ctx, change{by: by, old: old, a: a, already: already, now: now}, true)
}

func (l *Timeline) amend(ctx context.Context, c change, ends bool) (Result, error) {
	if err := l.mayErase(ctx, c); err != nil {
		return Result{}, err
	}
	pending, err := l.past(ctx, &c)
	if err != nil {
		return Result{}, err
	}
	release, claim, err := l.claim(ctx, c.by, c.a, pending)
	if err != nil {
		return Result{}, err
	}
	defer release()
	a, err := l.Custody.Amend(ctx, c.by.Credential, c.a.ID, c.a.Terms(), ends, pending)
	if err != nil {
		return Result{}, err
	}
	return l.settle(ctx, c.by, claim, a), nil
}

// mayErase refuses a change after which a period erases itself sooner than was agreed,
// unless the one whose data they are wants it. That it ends now, and the days begin to
// count, was agreed.
func (l *Timeline) mayErase(ctx context.Context, c change) error {
	was, will := c.old.Ends(), c.a.Ends()
	shorter := c.a.EraseAfter > 0 && (c.old.EraseAfter == 0 || c.a.EraseAfter < c.old.EraseAfter)
	backdated := !will.IsZero() && (was.IsZero() || will.Before(was)) && c.a.To.Before(c.now)
	if !shorter && !backdated {
		return nil
	}
	reads, err := l.reads(ctx, c.by, c.a)
	if err != nil {
		return err
	}
	if !reads {
		return holdfast.Errorf(holdfast.Denied, "the readings are another's, and would be erased sooner than was agreed: end the period now or later, and leave its days as they are")
	}
	if err := c.by.MustBeSettled(); err != nil {
		return err
	}
	return l.Custody.OneWord(ctx, c.a.Whose(), c.by.Person())
}

func missing() error { return holdfast.Errorf(holdfast.NotFound, "there is no such assignment") }

// See returns an assignment to those who may know of it: its owner and its data
// subject, the device's own, and an administrator.
func (l *Timeline) See(ctx context.Context, by access.Principal, id holdfast.AssignmentID) (custody.Assignment, error) {
	a, err := l.Custody.Assignment(ctx, id)
	if holdfast.KindOf(err) == holdfast.NotFound || err == nil && a.State == custody.Erased {
		return custody.Assignment{}, missing()
	}
	if err != nil {
		return custody.Assignment{}, err
	}
	seen, err := l.seen(ctx, by, a)
	if err == nil && !seen {
		err = missing()
	}
	if err != nil {
		return custody.Assignment{}, err
	}
	return a, nil
}

func (l *Timeline) seen(ctx context.Context, by access.Principal, a custody.Assignment) (bool, error) {
	switch {
	case by.Role == access.Administrator:
		return true, nil
	case by.Role != access.Owner:
		return false, nil
	case a.Owner == by.Party, a.Subject == by.Party:
		return true, nil
	}
	d, err := l.Custody.Device(ctx, a.Device)
	return err == nil && d.Owner == by.Party && d.State != custody.Erased, err
}

// Of returns those assignments of a device that the caller may know of, as they are
// known now, or with a time as they were known then. Whoever may know of none gets
// none, as if there were no such device.
func (l *Timeline) Of(ctx context.Context, by access.Principal, device holdfast.DeviceID, known time.Time) ([]custody.Assignment, error) {
	var all []custody.Assignment
	var err error
	if known.IsZero() {
		all, err = l.Custody.AssignmentsOf(ctx, device)
	} else {
		all, err = l.Custody.AssignmentsKnown(ctx, device, known)
	}
	if err != nil {
		return nil, err
	}
	var out []custody.Assignment
	for _, a := range all {
		ok, err := l.seen(ctx, by, a)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, a)
		}
	}
	return out, nil
}

// mayLend refuses whoever may not give a device's time to others.
func (l *Timeline) mayLend(ctx context.Context, by access.Principal, device holdfast.DeviceID) error {
	if !by.Can(access.ScopeWrite) {
		return holdfast.Errorf(holdfast.Denied, "this credential can't change anything")
	}
	d, err := l.Custody.Device(ctx, device)
	if err != nil {
		return err
	}
	operating, err := l.Custody.Operating(ctx)
	if err != nil {
		return fmt.Errorf("find operating organisation: %w", err)
	}
	switch {
	case by.Role == access.Owner && !d.Owner.IsZero() && d.Owner == by.Party:
		return nil
	case by.Role == access.Administrator && d.Owner == operating:
		return nil
	}
	return holdfast.Errorf(holdfast.Denied, "the device's owner gives its time to others, or an administrator for devices of the operating organisation")
}
