package holdfast

import "time"

// Nanoseconds is an instant as it is stored: since 1970, in UTC, 0 for the zero time.
func Nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Instant is the time that Nanoseconds stored.
func Instant(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
