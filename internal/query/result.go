package query

import (
	"context"
	"iter"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Result is the answer to a Request that was allowed at least in part.
//
// Its disclosures are open: range over Rows, or call Close, or both. The end of
// Rows closes them, however it came.
type Result struct {
	// Rows gives the rows once. Streams follow one another, each in order of time;
	// equal times in order of arrival. An error is the last thing it gives.
	Rows iter.Seq2[Row, error]

	Purpose     holdfast.Purpose
	Aggregates  []Aggregate             // of the request; empty: rows are readings
	By          Keys                    // of the request; 0: windows are of streams
	Fill        Fill                    // of the request
	Zone        *time.Location          // of the request
	Sources     []*Source               // the streams that may be read, in the order of Rows; or the groups
	Withheld    int                     // streams of the selection that may not be read, of devices of the reader's party
	Span        holdfast.Span           // of the request, or of its cursor
	Disclosures []holdfast.DisclosureID // under which the rows leave

	cursor string
	finish func() error
	still  func(context.Context) error

	unerased func() error
}

// Cursor returns where the next page begins, "" if there is none. It is known
// when Rows has ended; if that was with an error, the cursor goes on behind the
// last row given out.
func (r *Result) Cursor() string { return r.cursor }

// Still decides again on every stream that the rows come from, and fails when a right
// that the read rests on has ended. It may be called beside whoever ranges over Rows.
func (r *Result) Still(ctx context.Context) error { return r.still(ctx) }

// Close ends a read whose Rows nobody ranges over at the moment, and closes its
// disclosures with the amounts so far. It may be called again.
func (r *Result) Close() error { return r.finish() }
