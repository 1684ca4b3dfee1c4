package policy

import (
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
	ActsFor      []holdfast.PartyID // those in whose place the reader may read as an owner: his household, his ward
	Bound        []holdfast.GrantID // the grants that the reader's credential is bound to; nil: it is not bound
	Permission   Permission         // of staff, approved; zero: none

	Purpose holdfast.Purpose
	Broader []holdfast.Purpose // every purpose that Purpose is a part of
	Live    bool               // the purpose exists and neither it nor a broader one has ended

	Operating  holdfast.PartyID // the operating organisation
	Owner      holdfast.PartyID // of the assignment; zero: nobody's
	Subject    holdfast.PartyID // of the assignment, if another than the owner
	Device     holdfast.DeviceID
	Assignment holdfast.AssignmentID
	Stream     string   // the stream's name
	Category   string   // IRI of the stream's category, "" if none
	Categories []string // IRIs of every category that Category is a part of

	Span  holdfast.Span    // of the readings asked for
	Grant holdfast.GrantID // the grant the reader names; zero: whichever fits
	Now   int64            // ns since 1970
}

// Whose returns the one whose data it is: the subject if the assignment names one,
// else its owner.
func (r *Request) Whose() holdfast.PartyID {
	if !r.Subject.IsZero() {
		return r.Subject
	}
	return r.Owner
}

// holds reports whether the reader's credential holds the purpose.
func (r *Request) holds() bool {
	return r.Purpose != "" && slices.Contains(r.HeldPurposes, r.Purpose)
}

// acts reports whether the reader stands in the place of the one whose data it is.
func (r *Request) acts(whose holdfast.PartyID) bool {
	return !whose.IsZero() && slices.Contains(r.ActsFor, whose)
}

// Permission lets staff read one party's data for a while. Somebody else approved
// it: that, and that it was not taken back, is its keeper's to know.
type Permission struct {
	ID          holdfast.PermissionID
	Whose       holdfast.PartyID
	Purpose     holdfast.Purpose    // and the narrower ones
	Devices     []holdfast.DeviceID // none: all
	From, Until int64               // ns since 1970, Until excluded
}
