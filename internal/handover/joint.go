package handover

import (
	"context"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// Jointly writes down the wish to erase what is a household's, to be carried out
// when every adult has confirmed it. If nobody else's word is needed, it begins at
// once. ok is false for a party that decides alone: its erasure is asked for as any.
func (d *Desk) Jointly(ctx context.Context, by access.Principal, j custody.Joint) (out custody.Joint, ok bool, err error) {
	adults, err := d.Custody.Adults(ctx, j.Party)
	if err != nil || len(adults) == 0 {
		return custody.Joint{}, false, err
	}
	if err := by.MustBeSettled(); err != nil {
		return custody.Joint{}, true, err
	}
	if out, err = d.Custody.AskJoint(ctx, Actor(by), j); err != nil {
		return custody.Joint{}, true, err
	}
	out, err = d.ifReady(ctx, out)
	return out, true, err
}

// Confirm is an adult's own word for a joint erasure. With the last one it begins.
func (d *Desk) Confirm(ctx context.Context, by access.Principal, id holdfast.JointID) (custody.Joint, error) {
	if err := owner(by); err != nil {
		return custody.Joint{}, err
	}
	if err := by.MustBeSettled(); err != nil {
		return custody.Joint{}, err
	}
	j, err := d.Custody.ConfirmJoint(ctx, Actor(by), id)
	if err != nil {
		return custody.Joint{}, err
	}
	return d.ifReady(ctx, j)
}

func (d *Desk) ifReady(ctx context.Context, j custody.Joint) (custody.Joint, error) {
	if j.State != custody.Waiting || len(j.Missing) > 0 || len(j.Words) == 0 {
		return j, nil
	}
	return d.carry(ctx, j)
}

// scopes is how often the scope of an erasure is made: a household may be given a
// device between that and the asking, which then is a conflict.
const scopes = 3

// carry asks for the erasure that all have confirmed.
func (d *Desk) carry(ctx context.Context, j custody.Joint) (custody.Joint, error) {
	for try := 1; ; try++ {
		s, err := d.scopeOf(ctx, j)
		if holdfast.KindOf(err) == holdfast.NotFound { // it was erased meanwhile
			return j, d.Custody.BeginJoint(ctx, j.ID, j.Erasure)
		}
		if err != nil {
			return j, err
		}
		// What a hold keeps stays, and the certificate says so: the adults' word is for
		// all, and the rest need not wait for it.
		e, err := d.Erasure.Request(ctx, standIn(j.Party), s, erasure.Wish{Rest: true, Words: j.Holders})
		if holdfast.KindOf(err) == holdfast.Conflict && s.Whole && try < scopes {
			continue
		}
		if err != nil {
			return j, err
		}
		j.State, j.Erasure = custody.Begun, e.ID
		// The household's own record may be gone by now, and its rows with it.
		if err := d.Custody.BeginJoint(ctx, j.ID, e.ID); err != nil && holdfast.KindOf(err) != holdfast.Conflict && holdfast.KindOf(err) != holdfast.NotFound {
			return j, err
		}
		return j, nil
	}
}

func (d *Desk) scopeOf(ctx context.Context, j custody.Joint) (s holdfast.Scope, err error) {
	if j.Device.IsZero() {
		return d.Custody.ScopeOfParty(ctx, j.Party)
	}
	if s, err = d.Custody.ScopeOfSlice(ctx, j.Device, j.Party); err != nil {
		return s, err
	}
	if j.Stream != "" {
		if s, err = d.Custody.OfStream(ctx, s, j.Stream); err != nil {
			return s, err
		}
	}
	if len(s.Assignments) == 0 {
		return s, holdfast.Errorf(holdfast.NotFound, "nothing is in this scope")
	}
	s.Span = j.Span
	return s, nil
}
