package erasure

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
)

// An administrator can't have a house emptied alone: what covers more assignments than
// Policy.Bulk, with what he has erased alone within a day, waits for a second one. Until
// he approves nothing has happened, and the owner sees that it was asked for.
//
// An owner's own word needs nobody else's. Where the administrator who invited him
// lately may have spoken, it counts for that one, and beyond his bulk it has a window:
// refused at once, so that all notice, destroyed when nobody has stopped it.

// guard says whether an erasure needs a second administrator, and sets its window to
// what the hub asks for.
func (g *Gate) guard(ctx context.Context, by access.Principal, e *Erasure, s holdfast.Scope, w Wish) (approval bool, err error) {
	if !w.Guarded && len(w.Words) == 0 {
		return false, nil
	}
	if w.Guarded && e.Undo == 0 {
		e.Undo = g.Policy.Undo
	}
	if by.Role != access.Administrator && by.Role != access.Owner || g.Policy.Bulk == 0 || g.People == nil {
		return false, nil
	}
	whose, err := g.whoseWord(ctx, by, w)
	if err != nil || whose.IsZero() && by.Role == access.Owner {
		return false, err
	}
	if e.alone, err = g.onOwnWord(ctx, whose, s); err != nil || e.alone != nil {
		return false, err
	}
	e.For = whose
	if by.Role == access.Administrator {
		others, err := g.People.Others(ctx, whose)
		if err != nil || len(others) > 0 {
			return err == nil, err
		}
	}
	e.Wished, e.Undo, e.Safe = e.Undo, max(e.Undo, SafeUndo), true
	return false, nil
}

// whoseWord is the administrator for whom an erasure counts: who asks, or who invited
// those who do, so lately that he may be them. Zero: nobody can be.
func (g *Gate) whoseWord(ctx context.Context, by access.Principal, w Wish) (one holdfast.CredentialID, err error) {
	if by.Role == access.Administrator {
		return by.Holder, nil
	}
	words := w.Words
	if len(words) == 0 {
		words = []holdfast.CredentialID{by.Holder}
	}
	for _, x := range words {
		inviter, err := g.People.Inviter(ctx, x)
		if err != nil || inviter.IsZero() {
			return holdfast.CredentialID{}, err
		}
		if one.IsZero() || inviter == one {
			one = inviter
			continue
		}
		switch err := g.People.Another(ctx, access.Principal{Holder: inviter}, one); {
		case err == nil: // two persons would have to agree on it
			return holdfast.CredentialID{}, nil
		case holdfast.KindOf(err) != holdfast.Denied:
			return holdfast.CredentialID{}, err
		}
	}
	return one, nil
}

// Deciders are the administrators, by a credential of each, who may have a word about an
// erasure that waits for one, or that one may stop.
func (g *Gate) Deciders(ctx context.Context, e Erasure) ([]holdfast.CredentialID, error) {
	if g.People == nil || e.State != Approval && !(e.State == Waiting && e.Safe) {
		return nil, nil
	}
	whose, err := g.askedBy(ctx, e)
	if err != nil {
		return nil, err
	}
	return g.People.Others(ctx, whose)
}

// askedBy is the administrator who must not decide about an erasure.
func (g *Gate) askedBy(ctx context.Context, e Erasure) (holdfast.CredentialID, error) {
	if !e.For.IsZero() || !e.OwnWord {
		return cmp.Or(e.For, e.Asker), nil
	}
	// Written down before For was: an owner's waited for approval, too.
	whose, err := g.People.Inviter(ctx, e.Asker)
	return cmp.Or(whose, e.Asker), err
}

// propose writes down an erasure that a second administrator is to approve. The caller
// has g.deciding.
func (g *Gate) propose(ctx context.Context, e Erasure) (Erasure, error) {
	if err := g.repeated(ctx, e, e.scope(e.Party)); err != nil {
		return Erasure{}, err
	}
	e.State, e.Until = Approval, time.Unix(0, g.Arrival()).Add(ApproveWithin).UTC()
	box, err := g.sealPlan(ctx, e)
	if err != nil {
		return Erasure{}, err
	}
	err = g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if err := put(ctx, tx, e, e.State, box); err != nil {
			return err
		}
		return g.record(ctx, tx, "erasure proposed", e)
	})
	if err != nil {
		return Erasure{}, fmt.Errorf("ask for erasure: %w", err)
	}
	g.wake()
	return e, nil
}

// Approve is the word of a second administrator, with a settled credential, for an
// erasure in bulk. It begins, or the window that was asked for does. What was asked for
// more than seven days ago, or what a hold keeps since then, is a Conflict or Denied.
func (g *Gate) Approve(ctx context.Context, by access.Principal, id holdfast.ErasureID) (Erasure, error) {
	g.deciding.Lock()
	defer g.deciding.Unlock()
	e, err := g.proposed(ctx, by, id)
	if err != nil {
		return e, err
	}
	if err := by.MustBeSettled(); err != nil {
		return e, err
	}
	if err := g.mayDecide(ctx, by, e); err != nil {
		return e, err
	}
	s, err := g.stillFree(ctx, &e)
	if err != nil {
		return e, err
	}
	e.Decider = by.Holder
	switch {
	case e.State == Waiting:
		return g.sooner(ctx, e, s)
	case e.Undo > 0:
		return g.wait(ctx, e, s)
	}
	return g.accept(ctx, e, s)
}

// sooner leaves an erasure that waits the window that was asked for, and begins it if
// that is over.
func (g *Gate) sooner(ctx context.Context, e Erasure, s holdfast.Scope) (Erasure, error) {
	e.Until, e.Undo, e.Safe = e.Until.Add(e.Wished-e.Undo), e.Wished, false
	if g.Arrival() >= e.Until.UnixNano() {
		return g.accept(ctx, e, s)
	}
	err := g.save(ctx, e, func(tx *sql.Tx) error { return g.record(ctx, tx, "erasure waits", e) })
	if err != nil {
		return e, fmt.Errorf("approve erasure: %w", err)
	}
	return e, nil
}

// Refuse is the word of another administrator against an erasure in bulk.
func (g *Gate) Refuse(ctx context.Context, by access.Principal, id holdfast.ErasureID) (Erasure, error) {
	g.deciding.Lock()
	defer g.deciding.Unlock()
	e, err := g.proposed(ctx, by, id)
	if err != nil {
		return e, err
	}
	if e.Safe { // who asked takes it back with Undo; of an owner's word no other may keep him
		if err := g.mayDecide(ctx, by, e); err != nil {
			return e, err
		}
	}
	e.Decider = by.Holder
	return g.drop(ctx, e, Refused, "erasure refused")
}

func (g *Gate) mayDecide(ctx context.Context, by access.Principal, e Erasure) error {
	whose, err := g.askedBy(ctx, e)
	if err != nil {
		return err
	}
	return g.People.Another(ctx, by, whose)
}

func (g *Gate) proposed(ctx context.Context, by access.Principal, id holdfast.ErasureID) (Erasure, error) {
	if by.Role != access.Administrator || !by.Can(access.ScopeWrite) || g.People == nil {
		return Erasure{}, holdfast.Errorf(holdfast.Denied, "an administrator approves or refuses erasures")
	}
	e, err := g.Erasure(ctx, id)
	switch {
	case err != nil:
		return e, err
	case e.State == Waiting && e.Safe && g.Arrival() >= e.Until.UnixNano():
		return e, holdfast.Errorf(holdfast.Conflict, "erasure %s could be stopped until %s", id, e.Until.Format(time.RFC3339))
	case e.State == Waiting && e.Safe:
		return e, nil
	case e.State != Approval:
		return e, holdfast.Errorf(holdfast.Conflict, "erasure %s is %s: it does not wait for approval", id, saying(e.State))
	case g.Arrival() >= e.Until.UnixNano():
		return e, holdfast.Errorf(holdfast.Conflict, "erasure %s waited its %d days for approval: ask for it again", id, ApproveWithin/(24*time.Hour))
	}
	return e, nil
}
