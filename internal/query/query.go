// Package query is the way out: whatever leaves Holdfast passes it, whoever asks.
//
// A read goes one way. The selection becomes streams (custody); each stream and
// its owner's grants go to policy, which allows a span of it or nothing; for what
// is allowed a disclosure is opened, durably; then rows are scanned and handed
// out; when they end, for whatever reason, the disclosure is closed with the
// amounts.
//
// It promises that no row is given out that policy did not allow for this reader,
// purpose and time, or that stands on no disclosure; that a reader without rights
// can't tell what is refused from what does not exist; that a page and the next
// one give each reading once; and that memory does not grow with the rows.
//
// It does not authenticate, does not choose a default span, and keeps nothing of
// its own. docs/query.md is its page for users.
package query

import (
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// Selection says which streams are asked for: all of a party (Party alone) or of a
// device (Device alone), or with Stream those of that name; or with Stream those of a
// declared group, in windows of all of them together; or all that the reader may read,
// whosever they are.
type Selection struct {
	Party  holdfast.PartyID
	Device holdfast.DeviceID
	Group  holdfast.GroupID
	All    bool
	Stream string // a name

	declared *grant.Group // of Group
}

// Request is one question.
type Request struct {
	Who     access.Principal
	Purpose holdfast.Purpose // "": the only one that Who holds
	Selection
	// Span is of the readings' times, ends included. With a Cursor it is the first
	// page's, whatever stands here.
	Span holdfast.Span
	// Aggregates ask for windows in place of readings, whose length is Every, or
	// Calendar.
	Aggregates []Aggregate
	Every      time.Duration // windows begin at its multiples since 1970 UTC
	Calendar   Calendar
	By         Keys             // windows are of groups of streams; 0: of each stream
	Fill       Fill             // what to say of windows without readings
	FillValue  float64          // for FillConstant
	Zone       *time.Location   // of times in the answer, for who writes it; nil: UTC
	Limit      int              // rows of a page; 0: all
	Cursor     string           // of the page before; "": from the start
	Grant      holdfast.GrantID // the one to read under; zero: whichever fits
	crowd      *crowd           // of a declared group; nil: its members ask for no number
	Exact      bool             // readings as they are, or a refusal where obligations change them
	// Only are, of a selection of All, the streams to read, by the ids that Streams
	// gives them; nil: every one.
	Only map[holdfast.StreamID]bool
}

// MaxWindows is how many windows a span may have.
const MaxWindows = 10_000_000

// windows reports whether windows are asked for, not readings.
func (req *Request) windows() bool { return req.Every > 0 || !req.Calendar.zero() }

// Source is a stream as its readers know it. Of a group it has what the streams
// have in common: the keys that were asked for, unit and type.
type Source struct {
	Device     holdfast.DeviceID
	DeviceName string
	Stream     string
	Unit       string
	Type       holdfast.ValueType
	Profile    string // of the device, "" if it has none

	Owner      holdfast.PartyID
	Assignment holdfast.AssignmentID
	StreamID   holdfast.StreamID
	Streams    int // of a group: how many
}

// Row is one reading, or one window of readings.
type Row struct {
	*Source
	holdfast.Reading         // of a raw row
	Window           *Window // of an aggregated row; valid until the next one
}
