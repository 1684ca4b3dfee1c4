package erasure

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// Preview says what an erasure would do. It reads metadata: no reading is opened.
type Preview struct {
	Scope   holdfast.Scope
	Streams []Weighed
	Total   series.Weight
	Devices int
	Kept    []Kept
	// Held is the refusal that holds would lead to, nil if they would not.
	Held error
	// Received is what others than the owner have read of it.
	Received []Received

	// Ends are periods that are not over and end with it: what comes later in their
	// time is the device's owner's.
	Ends int

	InPart   bool          // what survives is sealed again
	Undo     time.Duration // window
	Approval bool          // a second administrator is needed
	Safe     bool          // the window is for another administrator to stop it
	// Deciders are the administrators who would do, by a credential of each; with
	// Approval or Safe.
	Deciders []holdfast.CredentialID
}

// Weighed is one stream of it.
type Weighed struct {
	Assignment holdfast.AssignmentID
	Device     holdfast.DeviceID
	Whose      holdfast.PartyID
	Stream     holdfast.StreamID
	Name       string
	Category   string
	series.Weight
}

// Received is what somebody has read of one owner's streams in it.
type Received struct {
	Whose holdfast.PartyID
	grant.Tally
}

// Preview is Request without doing anything: it is refused where that would be, but
// for holds, which it names.
func (g *Gate) Preview(ctx context.Context, by access.Principal, s holdfast.Scope, w Wish) (Preview, error) {
	w.Guarded = true
	err := mayAsk(by, s)
	if err == nil {
		err = g.check(ctx, s, w)
	}
	if err != nil {
		return Preview{}, err
	}
	rest, kept, err := g.withoutHeld(ctx, s, by.Role == access.Owner)
	if err != nil {
		return Preview{}, err
	}
	p := Preview{Kept: kept}
	if len(kept) > 0 && (!w.Rest || len(rest.Assignments) == 0) {
		p.Held = refuseHeld(kept, rest)
	} else {
		s = rest
	}
	e := Erasure{Plan: Plan{Undo: w.Undo}}
	if p.Approval, err = g.guard(ctx, by, &e, s, w); err != nil {
		return Preview{}, err
	}
	p.Scope, p.InPart, p.Undo, p.Safe = s, s.InPart(), e.Undo, e.Safe
	if !e.For.IsZero() {
		if p.Deciders, err = g.People.Others(ctx, e.For); err != nil {
			return Preview{}, err
		}
	}
	if err := g.weigh(ctx, &p); err != nil {
		return Preview{}, err
	}
	operating, err := g.Custody.Operating(ctx)
	if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
		return Preview{}, err
	}
	_, of, err := g.whoseStreams(ctx, s)
	if err != nil {
		return Preview{}, err
	}
	for whose, streams := range of {
		all, err := g.received(ctx, whose, operating, streams, s)
		if err != nil {
			return Preview{}, err
		}
		for _, t := range all {
			p.Received = append(p.Received, Received{whose, t})
		}
	}
	return p, nil
}

// weigh fills in how much goes.
func (g *Gate) weigh(ctx context.Context, p *Preview) error {
	devices := map[holdfast.DeviceID]bool{}
	n := 0
	var all []custody.Assignment
	for _, id := range p.Scope.Assignments {
		a, err := g.Custody.Assignment(ctx, id)
		if err != nil {
			return err
		}
		devices[a.Device] = true
		all = append(all, a)
		of, err := g.streamsIn(ctx, id, p.Scope)
		if err != nil {
			return err
		}
		if n += len(of); n > MaxItems {
			return holdfast.Errorf(holdfast.TooLarge, "a preview covers at most %d streams: ask for it device by device", MaxItems)
		}
		for _, x := range of {
			w, err := g.Series.Weigh(ctx, id, x.ID, p.Scope.Span, p.Scope.Month)
			if err != nil {
				return err
			}
			if w.Rows == 0 && (p.Scope.Partial() || p.Scope.Month != 0) {
				continue
			}
			p.Streams = append(p.Streams, Weighed{Assignment: id, Device: a.Device, Whose: a.Whose(), Stream: x.ID, Name: x.Name, Category: x.Category, Weight: w})
			p.Total.Add(w)
		}
	}
	p.Devices, p.Ends = len(devices), ends(p.Scope, all, g.Arrival())
	return nil
}

// ends counts the periods that are not over and end with a scope, on devices that go on.
func ends(s holdfast.Scope, all []custody.Assignment, now int64) (n int) {
	if s.InPart() {
		return 0
	}
	goes := map[holdfast.DeviceID]bool{} // with all that it would measure
	for _, a := range all {
		goes[a.Device] = goes[a.Device] || !a.Period
	}
	for _, a := range all {
		if a.Period && !goes[a.Device] && a.State == custody.Active && (a.To.IsZero() || a.To.UnixNano() > now) {
			n++
		}
	}
	return n
}
