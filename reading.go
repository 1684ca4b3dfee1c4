package holdfast

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Mark is a set of facts about how a reading came to be. The bits are part of
// the on-disk formats.
type Mark uint8

const (
	// Stamped: the device sent no time; Time is the arrival.
	Stamped Mark = 1 << iota
	// Clock: the device's time is outside [arrival - spool limit, arrival + 5 min].
	Clock
	// TLS12: it came over TLS 1.2.
	TLS12
)

// Reading is one value of one stream at one time.
type Reading struct {
	// Time is nanoseconds since 1970 UTC, negative before. The device's own, or
	// the arrival's if Mark has Stamped.
	Time int64
	// Seq is the device's sequence number, 0 if it gives none.
	Seq   uint64
	Value Value
	Mark  Mark
}

// Repeats reports whether r says again what q said: same device time, sequence
// and value. A reading stamped on arrival repeats nothing.
func (r Reading) Repeats(q Reading) bool {
	return r.Time == q.Time && r.Seq == q.Seq && r.Mark&Stamped == 0 && q.Mark&Stamped == 0 && r.Value.Same(q.Value)
}

// Sample is a reading on its way in: it still names its stream, and may have no
// time.
type Sample struct {
	Stream string
	Time   int64 // valid if Timed
	Timed  bool
	Seq    uint64
	Value  Value
	Unit   string // as the device said, "" if it did not
	// Literal: Value was written as a plain number of JSON. An open stream made by
	// it is `number`. An integer that a float64 can't hold exactly comes as Integer.
	Literal bool
}

// Limits on what a reading may carry.
const (
	MaxNameBytes  = 128       // names of streams, devices, parties, profiles, purposes
	MaxValueBytes = 256 << 10 // one text or bytes value
)

// CheckName refuses names that could not be shown, typed or put in a topic:
// empty, over MaxNameBytes, not UTF-8, with control characters, MQTT wildcards,
// or space at an end. A slash is allowed only where the name is a stream's.
func CheckName(what, name string) error {
	switch {
	case name == "":
		return Errorf(Invalid, "%s has no name", what)
	case len(name) > MaxNameBytes:
		return Errorf(Invalid, "the name of a %s has at most %d bytes", what, MaxNameBytes)
	case !utf8.ValidString(name):
		return Errorf(Invalid, "the name of a %s must be UTF-8", what)
	case strings.TrimSpace(name) != name:
		return Errorf(Invalid, "the name of a %s must not begin or end with space", what)
	case strings.ContainsAny(name, "+#"):
		return Errorf(Invalid, "the name of a %s must not contain + or #", what)
	case what != "stream" && strings.Contains(name, "/"):
		return Errorf(Invalid, "the name of a %s must not contain /", what)
	case strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/"):
		return Errorf(Invalid, "the name of a %s must not begin or end with /", what)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == utf8.RuneError {
			return Errorf(Invalid, "the name of a %s must not contain control characters", what)
		}
	}
	return nil
}

// Bounds of a time that fits in a Reading: 1677-09-21 to 2262-04-11.
var (
	MinTime = time.Unix(0, -1<<63).UTC()
	MaxTime = time.Unix(0, 1<<63-1).UTC()
)
