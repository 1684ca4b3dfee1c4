package erasure

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
)

// An administrator can't have a house emptied alone: what covers more assignments than
// Policy.Bulk, with what he has erased alone within a day, waits for a second one. Until
// he approves nothing has happened, and the owner sees that it was asked for. An owner's
// own word needs nobody else's, unless the one who invited him lately may have spoken.

// guard says whether an erasure needs a second administrator, and sets its window to
// what the hub asks for.
func (g *Gate) guard(ctx context.Context, by access.Principal, e *Erasure, s holdfast.Scope, w Wish) (approval bool, err error) {
	if !w.Guarded {
		return false, nil
	}
	if e.Undo == 0 {
		e.Undo = g.Policy.Undo
	}
	if by.Role != access.Administrator && by.Role != access.Owner || g.Policy.Bulk == 0 || g.People == nil {
		return false, nil
	}
	if by, err = g.whoseWord(ctx, by); err != nil || by.Holder.IsZero() && by.Role == access.Owner {
		return false, err
	}
	if e.alone, err = g.onOwnWord(ctx, by, s); err != nil || e.alone != nil {
		return false, err
	}
	n, err := g.People.Administrators(ctx)
	if err != nil {
		return false, err
	}
	if n < 2 { // nobody else can approve it: there is time to see it and to undo it
		e.Undo = max(e.Undo, aloneUndo)
	}
	return n >= 2, nil
}

// whoseWord is who an erasure counts for: an administrator himself, or the one who
// invited an owner so lately that the two may be one person; an owner of whom that
// can't be is returned without a holder.
func (g *Gate) whoseWord(ctx context.Context, by access.Principal) (access.Principal, error) {
	if by.Role == access.Administrator {
		return by, nil
	}
	var err error
	by.Holder, err = g.People.Inviter(ctx, by.Holder)
	return by, err
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
// erasure in bulk. It begins, or its window does. What was asked for more than seven
// days ago, or what a hold keeps since then, is a Conflict or Denied.
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
	asker := e.Asker
	if e.OwnWord {
		if asker, err = g.People.Inviter(ctx, e.Asker); err != nil {
			return e, err
		}
		if asker.IsZero() { // a month has passed: nobody else's word is needed any more
			asker = e.Asker
		}
	}
	if err := g.People.Another(ctx, by, asker); err != nil {
		return e, err
	}
	s, err := g.stillFree(ctx, &e)
	if err != nil {
		return e, err
	}
	e.Decider = by.Holder
	if e.Undo > 0 {
		return g.wait(ctx, e, s)
	}
	return g.accept(ctx, e, s)
}

// Refuse is the word of another administrator against an erasure in bulk.
func (g *Gate) Refuse(ctx context.Context, by access.Principal, id holdfast.ErasureID) (Erasure, error) {
	g.deciding.Lock()
	defer g.deciding.Unlock()
	e, err := g.proposed(ctx, by, id)
	if err != nil {
		return e, err
	}
	e.Decider = by.Holder
	return g.drop(ctx, e, Refused, "erasure refused")
}

func (g *Gate) proposed(ctx context.Context, by access.Principal, id holdfast.ErasureID) (Erasure, error) {
	if by.Role != access.Administrator || !by.Can(access.ScopeWrite) || g.People == nil {
		return Erasure{}, holdfast.Errorf(holdfast.Denied, "an administrator approves or refuses erasures")
	}
	e, err := g.Erasure(ctx, id)
	switch {
	case err != nil:
		return e, err
	case e.State != Approval:
		return e, holdfast.Errorf(holdfast.Conflict, "erasure %s is %s: it does not wait for approval", id, e.State)
	case g.Arrival() >= e.Until.UnixNano():
		return e, holdfast.Errorf(holdfast.Conflict, "erasure %s waited its %d days for approval: ask for it again", id, ApproveWithin/(24*time.Hour))
	}
	return e, nil
}
