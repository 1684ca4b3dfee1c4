package journal

import "iter"

// Pos is a byte position in the whole log. It only grows, survives a restart, and
// a record's position is less than the next one's.
type Pos uint64

// Entry is one durable record.
type Entry struct {
	Pos  Pos    // of this record
	Next Pos    // where the record after it begins; Trim(Next) lets this one go
	Data []byte // valid until the next iteration
}

// Log is a durable sequence of records. All methods are safe for concurrent use.
type Log interface {
	// Append hands over a record, which must not be empty nor change before done.
	// done is called exactly once, in order of Append, when the record is durable
	// (its position, nil) or has failed: TooLarge or Invalid for what will never
	// be taken, Unavailable for what may be taken later or by the next process.
	//
	// Append blocks while too many bytes wait. done must be quick: it runs on the
	// goroutine that commits, and must not call Append or Close.
	Append(record []byte, done func(Pos, error))

	// Read yields the durable records at or after from, in order, up to End at the
	// time of the call. Records that were trimmed before the call are left out; a
	// reader overtaken by Trim gets NotFound. It ends after the first error.
	Read(from Pos) iter.Seq2[Entry, error]

	// At returns the durable record at pos: NotFound if there is none or it was
	// trimmed, Invalid if no record begins there.
	At(pos Pos) ([]byte, error)

	// Start is the position of the oldest record kept, or End if there is none.
	Start() Pos

	// End is just past the newest durable record; what is appended next gets a
	// position that is not less.
	End() Pos

	// Trim lets go of what lies before a position. A driver may keep more than
	// asked, since it frees in larger units.
	Trim(before Pos) error

	// Failed is closed after a failure that only a new process can mend.
	Failed() <-chan struct{}

	// Close finishes what was handed over, then refuses everything.
	Close() error
}
