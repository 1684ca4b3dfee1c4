// Package policy decides who may read what. Its answer depends on its arguments
// alone: it keeps nothing, asks nobody and takes the time as an argument.
//
// It denies unless a rule allows, and there are three:
//   - an owner reads his own data under the purpose own-access;
//   - the operating organisation's staff read its own devices, by role, under a
//     live purpose that they hold, unless somebody else is the data subject;
//   - anyone, administrators included, reads with a live grant that the one whose
//     data it is made to their party, for a live purpose that they hold, covering
//     the stream and the time.
//
// "The one whose data it is" is the assignment's data subject if it names one,
// else its owner. A role gives nobody another's data.
//
// It does not read the grants, does not know whether a purpose is live, and does
// not record: its caller gives the first two and writes the disclosure.
package policy

import (
	"cmp"
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// ReaderKind says in what capacity somebody asks.
type ReaderKind uint8

// The kinds of reader; the zero kind may read nothing.
const (
	Staff     ReaderKind = 1 + iota // of the operating organisation, by role
	Owner                           // with an owner's credential
	Recipient                       // a party's program, or anyone else
)

// Request is one question: may this reader have these readings of one stream?
type Request struct {
	Reader       ReaderKind
	ReaderParty  holdfast.PartyID
	HeldPurposes []holdfast.Purpose // of the reader's credential

	Purpose holdfast.Purpose
	Live    bool // the purpose exists and has not ended

	Operating  holdfast.PartyID // the operating organisation
	Owner      holdfast.PartyID // of the assignment; zero: nobody's
	Subject    holdfast.PartyID // of the assignment, if another than the owner
	Device     holdfast.DeviceID
	Assignment holdfast.AssignmentID
	Stream     string // the stream's name

	Span  holdfast.Span    // of the readings asked for
	Grant holdfast.GrantID // the grant the reader names; zero: whichever fits
	Now   int64            // ns since 1970
}

// Grant is an owner's word that a recipient may use streams for a purpose.
type Grant struct {
	ID         holdfast.GrantID
	Grantor    holdfast.PartyID
	Recipient  holdfast.PartyID
	Purpose    holdfast.Purpose
	AllDevices bool                // else Devices, of which none means none
	Devices    []holdfast.DeviceID // of the grantor
	AllStreams bool                // else Streams, of which none means none
	Streams    []string            // names
	Data       holdfast.Span       // times of the readings it covers
	Made       int64               // ns since 1970
	Until      int64               // ns since 1970; from then on it allows nothing
	Ended      bool                // taken back
	Obligations
}

// Live reports whether g allows anything at the time now.
func (g Grant) Live(now int64) bool { return !g.Ended && g.Made <= now && now < g.Until }

// Decision is the answer. A denial's Reason is for the reader and tells nothing
// about the data or about whether they exist.
type Decision struct {
	Allow  bool
	Reason string           // which rule allowed, or what is missing
	Grant  holdfast.GrantID // under which grant; zero: none was needed
	Span   holdfast.Span    // what may be read: the request's, clipped by the grant
	Obligations
}

// The reasons. They are stable: disclosures and tests hold them.
const (
	ByOwner     = "own data"
	ByRole      = "the operating organisation's own device"
	ByGrant     = "grant of the owner"
	NoPurpose   = "a purpose is needed that the reader's credential holds"
	NotLive     = "the purpose does not exist or has ended"
	NotOwn      = "own-access is for an owner's own data"
	NoGrant     = "a live grant of the owner is needed"
	NoReader    = "the reader belongs to no party"
	NobodysData = "the data belong to nobody"
)

// Decide answers a request. Of several grants that fit it takes the one that
// covers most of the span, then the one that ends first, and never joins two: a
// disclosure names one grant, and who wants another one names it.
func Decide(r Request, grants []Grant) Decision {
	deny := func(reason string) Decision { return Decision{Reason: reason} }
	whose := r.Owner
	if !r.Subject.IsZero() {
		whose = r.Subject
	}
	switch {
	case r.Reader < Staff || r.Reader > Recipient || r.ReaderParty.IsZero():
		return deny(NoReader)
	case r.Owner.IsZero():
		return deny(NobodysData)
	case r.Purpose == holdfast.OwnAccess:
		if r.Reader == Owner && r.ReaderParty == whose {
			return Decision{Allow: true, Reason: ByOwner, Span: r.Span}
		}
		return deny(NotOwn)
	case r.Purpose == "" || !slices.Contains(r.HeldPurposes, r.Purpose):
		return deny(NoPurpose)
	case !r.Live:
		return deny(NotLive)
	case r.Reader == Staff && r.ReaderParty == r.Operating && r.Owner == r.Operating && whose == r.Owner && r.Grant.IsZero():
		return Decision{Allow: true, Reason: ByRole, Span: r.Span}
	}
	best := Decision{Reason: NoGrant}
	var until int64
	for _, g := range grants {
		span, ok := g.covers(r, whose)
		if !ok || (!r.Grant.IsZero() && r.Grant != g.ID) {
			continue
		}
		better := !best.Allow || cmp.Or(cmp.Compare(width(span), width(best.Span)), cmp.Compare(until, g.Until)) > 0
		if better {
			best, until = Decision{Allow: true, Reason: ByGrant, Grant: g.ID, Span: span, Obligations: g.Obligations}, g.Until
		}
	}
	return best
}

// covers reports whether g, made by whose data it is, allows r, and for which
// part of its span.
func (g Grant) covers(r Request, whose holdfast.PartyID) (holdfast.Span, bool) {
	span := holdfast.Span{From: max(r.Span.From, g.Data.From), To: min(r.Span.To, g.Data.To)}
	ok := g.Grantor == whose &&
		g.Recipient == r.ReaderParty &&
		g.Purpose == r.Purpose &&
		g.Live(r.Now) &&
		(g.AllDevices || slices.Contains(g.Devices, r.Device)) &&
		(g.AllStreams || slices.Contains(g.Streams, r.Stream)) &&
		span.From <= span.To
	return span, ok
}

// width is exact for every span: the difference of two int64 fits in a uint64.
func width(s holdfast.Span) uint64 { return uint64(s.To) - uint64(s.From) }
