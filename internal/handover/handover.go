// Package handover carries a unit from one pair of hands to the next, and an
// erasure from the first adult's wish to the last one's word.
//
// It promises that a unit changes hands whole or not at all: in one transaction
// the old device closes, its certificates and its code end, the new device begins
// and what was read before that moment is kept out of it; connections are cut when
// that is durable. What a seller wished for his readings, notices that have run
// out, majorities and joint erasures are carried out by Run, which takes up again
// whatever a crash has left.
//
// It decides nothing about whose a thing is: that is package custody's, and so are
// all its tables.
package handover

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// Deps is what a Desk stands on; all but Logger are required.
type Deps struct {
	Custody  *custody.Custody
	Identity *identity.Identity
	Grants   *grant.Register
	Erasure  *erasure.Gate
	Logger   *slog.Logger // default: nothing is logged
}

// Desk is where units change hands. It is safe for concurrent use.
type Desk struct{ Deps }

// New returns the desk over its keepers.
func New(d Deps) *Desk {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	return &Desk{d}
}

// Actor is whose credential acts, as package custody asks for it.
func Actor(by access.Principal) custody.Actor {
	return custody.Actor{Credential: by.Credential, Holder: by.Holder, Party: by.Person(), Administrator: by.Role == access.Administrator}
}

func owner(by access.Principal) error {
	if by.Role != access.Owner || !by.Can(access.ScopeWrite) {
		return holdfast.Errorf(holdfast.Denied, "this needs an owner's own credential, which may write")
	}
	return nil
}

// Offer offers a device of the caller's. The code is for whoever shall take it, if
// no buyer is named.
func (d *Desk) Offer(ctx context.Context, by access.Principal, s custody.TransferSpec) (custody.Transfer, string, error) {
	if err := errors.Join(owner(by), by.MustBeSettled()); err != nil {
		return custody.Transfer{}, "", err
	}
	s.Seller = by.Party
	if s.Fate == custody.Export || s.Fate == custody.Erase {
		if err := d.Custody.OneWord(ctx, s.Seller, by.Person()); err != nil {
			return custody.Transfer{}, "", err
		}
	}
	return d.Custody.OfferTransfer(ctx, by.Credential, s)
}

// Taken is a unit in its next owner's hands. The code, which gets it a certificate
// of its own, is shown to him alone and now or never: a later one he makes himself.
type Taken struct {
	Transfer custody.Transfer
	Device   custody.Device
	Children []custody.Device
	Code     string
	Until    time.Time
}

// Take makes the caller the owner of an offered unit: of the one offered to him by
// this id, or of the one whose code he shows. Of the two, one is given.
func (d *Desk) Take(ctx context.Context, by access.Principal, id holdfast.TransferID, code, label string, o identity.CodeOptions) (Taken, error) {
	if err := owner(by); err != nil {
		return Taken{}, err
	}
	var t custody.Transfer
	var err error
	if code != "" {
		t, err = d.Custody.OfferByCode(ctx, by.Party, code)
	} else {
		t, err = d.Custody.TransferOf(ctx, by.Party, id)
	}
	if err != nil {
		return Taken{}, err
	}
	if code == "" && t.State == custody.OnOffer && t.Buyer != by.Party {
		return Taken{}, holdfast.Errorf(holdfast.Conflict, "you offer this yourself")
	}
	var out Taken
	s := d.step("handed over")
	t, moved, err := d.Custody.TakeTransfer(ctx, by.Credential, by.Party, t, label, func(ctx context.Context, tx *sql.Tx, moved []custody.Moved) error {
		if err := s.within(ctx, tx, moved); err != nil {
			return err
		}
		made, until, err := d.Identity.MakeCodeWithin(ctx, tx, moved[0].New.ID, moved[0].New.Assignment, o)
		out.Code, out.Until = made.Text(), until
		return err
	})
	if err := s.end(ctx, err); err != nil {
		return Taken{}, err
	}
	out.Transfer, out.Device = t, moved[0].New
	for _, m := range moved[1:] {
		out.Children = append(out.Children, m.New)
	}
	if err := d.settle(ctx, t); err != nil { // it is taken all the same: Run goes on
		d.Logger.ErrorContext(ctx, "handover: carry out the seller's wish", "transfer", t.ID, "err", err)
	}
	return out, nil
}

// Release gives back a device of the caller's and returns the unclaimed one that
// the unit became.
func (d *Desk) Release(ctx context.Context, by access.Principal, device holdfast.DeviceID) (custody.Device, error) {
	if err := errors.Join(owner(by), by.MustBeSettled()); err != nil {
		return custody.Device{}, err
	}
	s := d.step("released")
	moved, err := d.Custody.Release(ctx, by.Credential, by.Party, device, s.within)
	if err := s.end(ctx, err); err != nil {
		return custody.Device{}, err
	}
	return moved[0].New, nil
}

// step is what a unit's change of hands asks of the other keepers.
type step struct {
	d       *Desk
	reason  string
	revoked map[holdfast.DeviceID]*identity.Revoked
}

func (d *Desk) step(reason string) *step { return &step{d: d, reason: reason} }

// never is as long as a bar can stand that keeps the past out of a new owner's
// hands.
const never = 100 * 365 * 24 * time.Hour

// within ends the old devices' certificates and keeps out of the new devices what
// was taken before they began: a unit may have readings left that it did not send.
func (s *step) within(ctx context.Context, tx *sql.Tx, moved []custody.Moved) error {
	s.revoked = map[holdfast.DeviceID]*identity.Revoked{}
	for _, m := range moved {
		r, err := s.d.Identity.RevokeWithin(ctx, tx, m.Old.ID, s.reason)
		switch {
		case err == nil:
			s.revoked[m.Old.ID] = r
		case holdfast.KindOf(err) != holdfast.NotFound: // a declared child, or never enrolled
			return err
		}
		if err := s.d.Grants.BarPast(ctx, tx, m.New.Owner, m.New.Assignment, m.New.Added, m.New.Added.Add(never)); err != nil {
			return err
		}
	}
	return nil
}

// end makes felt what the transaction has written down, or takes back what it has
// left in memory. One that failed may have been done all the same, if its answer was
// lost: the catalog says which.
func (s *step) end(ctx context.Context, err error) error {
	late := context.WithoutCancel(ctx) // whoever asked may have gone away
	if err != nil {
		err = errors.Join(err, s.d.Grants.ReloadBars(late))
	}
	for id, r := range s.revoked {
		if err != nil {
			d, unknown := s.d.Custody.Device(late, id)
			if unknown != nil || d.State == custody.Active {
				continue
			}
		}
		r.Cut(late)
	}
	return err
}

// settle carries out what the seller wished for the readings of the device that he
// gave away.
func (d *Desk) settle(ctx context.Context, t custody.Transfer) error {
	if t.Fate == custody.Export {
		return nil // when its time has come, Run does
	}
	if t.Fate == custody.Erase {
		if err := d.eraseSold(ctx, t); err != nil {
			return err
		}
	}
	return d.Custody.SettleTransfer(ctx, t)
}

// eraseSold has the seller's readings erased. That they are gone already is well.
func (d *Desk) eraseSold(ctx context.Context, t custody.Transfer) error {
	scope, err := d.Custody.ScopeOfSlice(ctx, t.Device, t.Seller)
	if holdfast.KindOf(err) == holdfast.NotFound || err == nil && len(scope.Assignments) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = d.Erasure.Ask(ctx, standIn(t.Seller), scope)
	return err
}

// standIn is the hub acting on the word that an owner gave with his own credential.
func standIn(party holdfast.PartyID) access.Principal {
	return access.Principal{Party: party, Role: access.Owner, Scopes: access.ScopeRead | access.ScopeWrite, Settled: true}
}

// Once carries out all that is due.
func (d *Desk) Once(ctx context.Context) error {
	errs := []error{d.Custody.EndMajorities(ctx), d.Custody.ForgetSources(ctx)}
	sold, err := d.Custody.DueTransfers(ctx)
	errs = append(errs, err)
	for _, t := range sold {
		if t.Fate == custody.Export { // its time is over
			t.Fate = custody.Erase
		}
		if err := d.settle(ctx, t); err != nil {
			errs = append(errs, fmt.Errorf("settle transfer %s: %w", t.ID, err))
		}
	}
	due, err := d.Custody.DueNotices(ctx)
	errs = append(errs, err)
	for _, n := range due {
		s := d.step("released after notice")
		_, err := d.Custody.ReleaseByNotice(ctx, n, s.within)
		if err := s.end(ctx, err); err != nil && holdfast.KindOf(err) != holdfast.Conflict {
			errs = append(errs, fmt.Errorf("release by notice %s: %w", n.ID, err))
		}
	}
	ready, err := d.Custody.ReadyJoints(ctx)
	errs = append(errs, err)
	for _, j := range ready {
		if _, err := d.carry(ctx, j); err != nil {
			errs = append(errs, fmt.Errorf("carry out joint erasure %s: %w", j.ID, err))
		}
	}
	return errors.Join(errs...)
}

// Run is Once at the start and each minute, until ctx ends.
func (d *Desk) Run(ctx context.Context) error {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		if err := d.Once(ctx); err != nil && ctx.Err() == nil {
			d.Logger.ErrorContext(ctx, "handover: not done yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
