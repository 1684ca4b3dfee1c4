package api

import (
	"time"
)

// clock writes times as RFC 3339 with the nanoseconds that there are, in a zone. What
// rows that follow one another have in common it writes once.
type clock struct {
	zone *time.Location // nil: UTC

	known    bool
	from, to int64  // the seconds since 1970 for which the two below are right
	before   []byte // the date, up to the T
	after    []byte // the offset
	offset   int64  // of the clocks in the zone, in seconds
}

// append appends a time.
func (c *clock) append(b []byte, ns int64) []byte {
	s, fraction := ns/1e9, ns%1e9
	if fraction < 0 {
		s, fraction = s-1, fraction+1e9
	}
	if !c.known || s < c.from || s >= c.to {
		c.look(s)
	}
	b = append(b, c.before...)
	day := s + c.offset - floorTo(s+c.offset, 86400)
	b = appendTwo(b, day/3600)
	b = appendTwo(append(b, ':'), day/60%60)
	b = appendTwo(append(b, ':'), day%60)
	if fraction > 0 {
		b = append(b, '.')
		for scale := int64(1e8); fraction > 0; scale /= 10 {
			b = append(b, byte('0'+fraction/scale))
			fraction %= scale
		}
	}
	return append(b, c.after...)
}

// look finds the date on the clocks at s, and how long they go on showing it.
func (c *clock) look(s int64) {
	zone := c.zone
	if zone == nil {
		zone = time.UTC
	}
	at := time.Unix(s, 0).In(zone)
	_, offset := at.Zone()
	c.known, c.offset = true, int64(offset)
	c.from = floorTo(s+c.offset, 86400) - c.offset
	c.to = c.from + 86400
	if begins, ends := at.ZoneBounds(); true {
		if !begins.IsZero() {
			c.from = max(c.from, begins.Unix())
		}
		if !ends.IsZero() {
			c.to = min(c.to, ends.Unix())
		}
	}
	c.before = at.AppendFormat(c.before[:0], "2006-01-02T")
	c.after = at.AppendFormat(c.after[:0], "Z07:00")
}

// floorTo is the multiple of n at or below s.
func floorTo(s, n int64) int64 {
	in := s % n
	if in < 0 {
		in += n
	}
	return s - in
}

func appendTwo(b []byte, n int64) []byte { return append(b, byte('0'+n/10), byte('0'+n%10)) }
