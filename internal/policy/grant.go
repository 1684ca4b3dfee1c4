package policy

import (
	"cmp"

	"github.com/holdfast-iot/holdfast"
)

// Grant is the word of the one whose data it is that a recipient may use streams
// for a purpose, and so for the narrower ones.
type Grant struct {
	ID          holdfast.GrantID
	Grantor     holdfast.PartyID
	Recipient   holdfast.PartyID
	Purpose     holdfast.Purpose
	AllDevices  bool                    // else Devices, of which none means none
	Devices     []holdfast.DeviceID     // of the grantor
	AllStreams  bool                    // else Streams, of which none means none
	Streams     []string                // names
	Assignments []holdfast.AssignmentID // of the grantor's data; none: all
	Categories  []string                // IRIs: streams of these and of narrower categories only; none: of any, and those without
	Data        holdfast.Span           // times of the readings it covers
	Made        int64                   // ns since 1970
	Until       int64                   // ns since 1970; from then on it allows nothing
	Ended       bool                    // taken back
	Obligations
}

// Live reports whether g allows anything at the time now. Times of decisions are
// whole milliseconds, those of readings are exact.
func (g Grant) Live(now int64) bool {
	at := milliseconds(now)
	return !g.Ended && milliseconds(g.Made) <= at && at < milliseconds(g.Until)
}

// Forbid stops a use whatever grants, roles and permissions say: a restriction
// stops all but the owner's own access, an objection one purpose and the narrower
// ones. Nothing stops an owner from reading his own.
type Forbid struct {
	ID          holdfast.HoldID
	Whose       holdfast.PartyID
	Assignments []holdfast.AssignmentID // none: all
	Streams     []string                // names; none: all
	Purpose     holdfast.Purpose        // "": every one but own-access
}

// better orders two grants that fit: the one of which the wider span can be read,
// then the one that asks more, then the one that ends first. Ids settle the rest,
// so that the order in which grants are kept never decides.
func (g *Grant) better(span holdfast.Span, than *Grant, its holdfast.Span) bool {
	return cmp.Or(
		cmp.Compare(width(span), width(its)),
		g.Obligations.compare(than.Obligations),
		cmp.Compare(than.Until, g.Until),
		cmp.Compare(than.ID.String(), g.ID.String()),
	) > 0
}

// clip returns what of s lies within the times that g covers.
func (g *Grant) clip(s holdfast.Span) (holdfast.Span, bool) {
	c := holdfast.Span{From: max(s.From, g.Data.From), To: min(s.To, g.Data.To)}
	return c, c.From <= c.To
}

// width is exact for every span: the difference of two int64 fits in a uint64.
func width(s holdfast.Span) uint64 { return uint64(s.To) - uint64(s.From) }
