package holdfast

import (
	"errors"
	"fmt"
)

// Kind says what a caller can do about an error. Each edge translates kinds to
// its own codes in exactly one table.
type Kind uint8

const (
	// Internal is a fault of ours; its text goes to the operator's log only.
	Internal Kind = iota
	// Invalid: the input is wrong and will stay wrong.
	Invalid
	// Denied: the caller may not do this, or may not know whether it exists.
	Denied
	// NotFound: there is no such thing for this caller.
	NotFound
	// Conflict: the thing exists, or is in a state that does not allow this.
	Conflict
	// TooLarge: the input or the answer is beyond a stated limit.
	TooLarge
	// Unavailable: it may work later, unchanged; nothing was done.
	Unavailable
)

var kindNames = [...]string{"internal", "invalid", "denied", "not found", "conflict", "too large", "unavailable"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "internal"
}

// Error is an error with a kind. Its message is for the caller: it names ids and
// limits, never payloads, keys or people.
type Error struct {
	Kind Kind
	msg  string
	err  error
}

func (e *Error) Error() string { return e.msg }

// Unwrap returns the error given to Errorf with %w, if any.
func (e *Error) Unwrap() error { return e.err }

// Errorf makes an error of a kind; %w wraps as in fmt.Errorf.
func Errorf(k Kind, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: k, msg: err.Error(), err: errors.Unwrap(err)}
}

// KindOf returns the kind of the first Error in err's chain, else Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}
