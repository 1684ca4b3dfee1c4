package erasure

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// The window in which an erasure can be undone. All that it covers is refused, as if
// it had begun; nothing is destroyed, no bar is set, no credential ends. Its end is
// told by arrival time, which goes on where the system's clock is set back.

// wait has an erasure refused on every path, to begin when its window is over. Of a
// living assignment it covers what was taken before now, so that what comes in
// meanwhile stays. The caller has g.deciding.
func (g *Gate) wait(ctx context.Context, e Erasure, s holdfast.Scope) (Erasure, error) {
	was := e.State
	if err := g.repeated(ctx, e, s); err != nil {
		return Erasure{}, err
	}
	now := g.Arrival()
	// A range that begins later is of clocks that were wrong: it stays as it was asked for.
	if s.Before = now; s.InPart() && s.Month == 0 && s.Span.From < now && s.Span.To >= now {
		s.Span.To, e.Clipped = now-1, true
	}
	e.State, e.Scope, e.Until, e.RefusedAt = Waiting, scopeText(s), time.Unix(0, now).Add(e.Undo).UTC(), time.Now().UTC()
	box, err := g.sealPlan(ctx, e)
	if err != nil {
		return Erasure{}, err
	}
	g.hide(e.ID, s, true)
	err = g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if was == Asked {
			was = e.State // there is no row yet
		}
		if err := put(ctx, tx, e, was, box); err != nil {
			return err
		}
		if err := e.alone.add(ctx, tx, e.ID, now); err != nil {
			return err
		}
		if err := g.Custody.Leave(ctx, tx, s); err != nil {
			return err
		}
		if err := takeBack(ctx, tx, e, nil); err != nil {
			return err
		}
		return g.record(ctx, tx, "erasure waits", e)
	})
	if err != nil {
		g.show(e.ID)
		return Erasure{}, fmt.Errorf("ask for erasure: %w", err)
	}
	if err := g.refuse(ctx, e, s); err != nil {
		g.Logger.Error("erasure: refuse at once", "erasure", e.ID, "err", err)
	}
	g.wake()
	return e, nil
}

// LastAsked returns the arrival time at which the newest erasure was asked for that
// waits, 0 if none does. Nothing that it does not cover may arrive before.
func (g *Gate) LastAsked(ctx context.Context) (arrival int64, err error) {
	all, err := g.list(ctx, `state = $1`, Waiting)
	if err != nil {
		return 0, fmt.Errorf("list erasures that wait: %w", err)
	}
	for _, e := range all {
		arrival = max(arrival, e.Until.Add(-e.Undo).UnixNano())
	}
	return arrival, nil
}

// refuse hides what a waiting erasure covers, and leaves its party nothing but to undo
// it.
func (g *Gate) refuse(ctx context.Context, e Erasure, s holdfast.Scope) error {
	g.hide(e.ID, s, true)
	err := g.Places.Memory(ctx, s)
	if s.Whole && g.People != nil {
		err = errors.Join(err, g.People.Suspend(ctx, s.Party))
	}
	return err
}

// repeated refuses what an erasure that waits already covers.
func (g *Gate) repeated(ctx context.Context, e Erasure, s holdfast.Scope) error {
	all, err := g.list(ctx, `state IN ($1, $2)`, Waiting, Approval)
	if err != nil {
		return err
	}
	for _, x := range all {
		if x.ID != e.ID && x.Party == e.Party && x.coversAll(s) {
			return holdfast.Errorf(holdfast.Conflict, "erasure %s covers this already and is %s: take that back first, or wait for its end", x.ID, saying(x.State))
		}
	}
	return nil
}

// saying is a state behind the word is.
func saying(state string) string {
	if state == Approval {
		return "waiting for approval"
	}
	return state
}

// coversAll reports whether an erasure covers all of a scope.
func (e *Erasure) coversAll(s holdfast.Scope) bool {
	have := e.scope(e.Party)
	if e.Clipped { // nothing later was there to be asked for
		have.Span.To = holdfast.Always.To
	}
	in := newOpened(have, true)
	for _, a := range s.Assignments {
		if _, ok := in.assignments[a]; !ok {
			return false
		}
	}
	for _, x := range s.Streams {
		if !in.has(x) {
			return false
		}
	}
	return (len(in.streams) == 0 || len(s.Streams) > 0) && have.Span.Covers(s.Span) && (have.Month == 0 || have.Month == s.Month) && (have.Whole || !s.Whole)
}

// Undo takes back an erasure that waits, or one that is not approved: who asked for
// it, or the owner. It is a Conflict when it has begun or its window is over. All is
// as before: nothing was changed but what is refused.
func (g *Gate) Undo(ctx context.Context, by access.Principal, id holdfast.ErasureID) (Erasure, error) {
	g.deciding.Lock()
	defer g.deciding.Unlock()
	e, err := g.Erasure(ctx, id)
	switch {
	case err != nil:
		return e, err
	case !by.Can(access.ScopeWrite):
		return e, holdfast.Errorf(holdfast.Denied, "this credential can't change anything")
	case by.Role == access.Owner && !e.Party.IsZero() && by.Party == e.Party:
	case by.Role == access.Administrator && !e.OwnWord && by.Holder == e.Asker:
	case by.Role == access.Administrator && !e.OwnWord && !e.Heir.IsZero() && by.Holder == e.Heir:
		e.undoer = by.Credential
	default:
		return Erasure{}, holdfast.Errorf(holdfast.Denied, "who asked for an erasure, or the owner, takes it back")
	}
	switch {
	case e.State == Undone:
		return e, holdfast.Errorf(holdfast.Conflict, "erasure %s was undone already: all is as before", id)
	case e.State != Waiting && e.State != Approval:
		return e, holdfast.Errorf(holdfast.Conflict, "erasure %s is %s: it can't be undone", id, saying(e.State))
	case e.State == Waiting && g.Arrival() >= e.Until.UnixNano():
		return e, holdfast.Errorf(holdfast.Conflict, "erasure %s could be undone until %s", id, e.Until.Format(time.RFC3339))
	}
	return g.drop(ctx, e, Undone, "erasure undone")
}

// drop ends an erasure of which nothing has been carried out, for good: a restore to
// before must not begin it. The caller has g.deciding.
func (g *Gate) drop(ctx context.Context, e Erasure, to, kind string) (Erasure, error) {
	return g.dropAnd(ctx, e, to, kind, func(tx *sql.Tx) error {
		return ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.ErasureUndone, ID: ledger.TakenID(e.ID), State: to})
	})
}

func (g *Gate) dropAnd(ctx context.Context, e Erasure, to, kind string, also func(*sql.Tx) error) (Erasure, error) {
	was := e.State
	stays := was == Waiting && e.Scope.Whole
	if stays {
		others, err := g.list(ctx, `state IN ($1, $2, $3) AND party = $4`, Waiting, Asked, Destroyed, e.Party)
		if err != nil {
			return e, err
		}
		for _, x := range others {
			stays = stays && (x.ID == e.ID || !x.Scope.Whole)
		}
	}
	e.State, e.EndedAt = to, time.Now().UTC()
	box, err := g.sealPlan(ctx, e)
	if err != nil {
		return e, err
	}
	err = g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if err := put(ctx, tx, e, was, box); err != nil {
			return err
		}
		if err := uncount(ctx, tx, e.ID); err != nil {
			return err
		}
		if stays {
			if err := g.Custody.Stay(ctx, tx, e.Party); err != nil {
				return err
			}
		}
		if err := also(tx); err != nil {
			return err
		}
		return g.record(ctx, tx, kind, e)
	})
	if err != nil {
		return e, fmt.Errorf("end erasure: %w", err)
	}
	g.show(e.ID)
	if stays && g.People != nil {
		g.People.Resume(e.Party)
	}
	return e, nil
}

// ripenEvery is how often Run looks whether a window is over, while one is open.
const ripenEvery = time.Second

// ripen begins the erasures whose window is over, as it ends, until ctx ends.
func (g *Gate) ripen(ctx context.Context) {
	for {
		left, err := g.ripenNow(ctx)
		if err != nil && ctx.Err() == nil {
			g.Logger.Error("erasure: not begun, will be tried again", "err", err)
		}
		var tick <-chan time.Time
		if left > 0 || err != nil {
			tick = time.After(ripenEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-g.ripe:
		case <-tick:
		}
	}
}

func (g *Gate) wake() {
	select {
	case g.ripe <- struct{}{}:
	default:
	}
}

// ripenNow begins what is due, and returns how many wait.
func (g *Gate) ripenNow(ctx context.Context) (left int, err error) {
	g.deciding.Lock()
	defer g.deciding.Unlock()
	all, err := g.list(ctx, `state IN ($1, $2)`, Waiting, Approval)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	var errs []error
	now := g.Arrival()
	for _, e := range all {
		switch {
		case now < e.Until.UnixNano(), g.Suspended:
			left++
			continue
		case e.State == Approval:
			_, err = g.drop(ctx, e, Expired, "erasure expired")
		default:
			err = g.beginRipe(ctx, e)
		}
		if err != nil {
			left++
			g.blame([]Erasure{e}, err)
			errs = append(errs, fmt.Errorf("erasure %s: %w", e.ID, err))
		}
	}
	return left, errors.Join(errs...)
}

// beginRipe begins an erasure whose window is over. A hold that was set meanwhile
// keeps it waiting, or what it covers out of it, as was asked.
func (g *Gate) beginRipe(ctx context.Context, e Erasure) error {
	s, err := g.stillFree(ctx, &e)
	if err != nil {
		return err
	}
	_, err = g.accept(ctx, e, s)
	return err
}

// stillFree is the scope of an erasure that was asked for a while ago, without what
// has been held since, or is gone.
func (g *Gate) stillFree(ctx context.Context, e *Erasure) (holdfast.Scope, error) {
	s, kept, err := g.withoutHeld(ctx, e.scope(e.Party), e.OwnWord)
	if err != nil || len(kept) == 0 {
		return s, err
	}
	if !e.Rest || len(s.Assignments) == 0 {
		return s, refuseHeld(kept, s)
	}
	e.Kept = append(e.Kept, kept...)
	e.Of, err = g.streamsByAssignment(ctx, s)
	return s, err
}

// blame keeps why erasures do not get on, for whoever asks how far they have come;
// nil: they do.
func (g *Gate) blame(all []Erasure, why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range all {
		if why == nil {
			delete(g.why, e.ID)
		} else {
			g.why[e.ID] = why
		}
	}
}

// Why returns what keeps an erasure from getting on, nil if nothing does.
func (g *Gate) Why(id holdfast.ErasureID) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.why[id]
}
