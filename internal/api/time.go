package api

import (
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// ParseTime reads a time as people and programs write it, in ns since 1970: RFC
// 3339, a date in the zone of now, or UTC (as an end, all of that day), "now", or a duration
// before or after now like -2h or +5m, with d for days of 24 hours.
func ParseTime(text string, now time.Time, end bool) (int64, error) {
	bad := holdfast.Errorf(holdfast.Invalid, "a time is RFC 3339, a date like 2026-01-31, now, or a duration like -2h or -7d")
	if len(text) > 64 {
		return 0, bad
	}
	if text == "now" {
		return now.UnixNano(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return fits(t)
	}
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		zone := now.Location()
		if zone == time.Local { // where this machine stands is no matter of the caller's
			zone = time.UTC
		}
		from, to := query.Day(t, zone)
		if end {
			return fits(to.Add(-1))
		}
		return fits(from)
	}
	if strings.HasPrefix(text, "-") || strings.HasPrefix(text, "+") {
		if d, err := ParseDuration(text); err == nil {
			return fits(now.Add(d))
		}
	}
	return 0, bad
}

// ParseDuration is time.ParseDuration with days: 7d, -1d12h.
func ParseDuration(text string) (time.Duration, error) {
	bad := holdfast.Errorf(holdfast.Invalid, "a duration looks like 30s, 15m, 2h or 7d")
	sign, rest := "", text
	if rest != "" && (rest[0] == '-' || rest[0] == '+') {
		sign, rest = rest[:1], rest[1:]
	}
	var days time.Duration
	if n, after, ok := strings.Cut(rest, "d"); ok {
		for _, c := range n {
			if c < '0' || c > '9' || days > 200_000 {
				return 0, bad
			}
			days = days*10 + time.Duration(c-'0')
		}
		if n == "" || days > 100_000 {
			return 0, bad
		}
		if rest = after; rest == "" {
			rest = "0s"
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || strings.ContainsAny(rest, "+-") {
		return 0, bad
	}
	total := days*24*time.Hour + d
	if total < 0 {
		return 0, bad
	}
	if sign == "-" {
		total = -total
	}
	return total, nil
}

// ParseEvery reads how long windows are: a duration, or days, weeks (w), months (mo)
// or years (y) of the calendar.
func ParseEvery(text string) (time.Duration, query.Calendar, error) {
	digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
	if n, err := strconv.Atoi(text[:digits]); err == nil && n > 0 && digits <= 5 {
		switch text[digits:] {
		case "d":
			return 0, query.Calendar{Days: n}, nil
		case "w":
			return 0, query.Calendar{Weeks: n}, nil
		case "mo":
			return 0, query.Calendar{Months: n}, nil
		case "y":
			return 0, query.Calendar{Months: 12 * n}, nil
		}
	}
	if d, err := ParseDuration(text); err == nil && d > 0 {
		return d, query.Calendar{}, nil
	}
	return 0, query.Calendar{}, holdfast.Errorf(holdfast.Invalid, "a window's length looks like 30s, 15m or 2h, or by the calendar 1d, 1w, 1mo or 1y")
}

func fits(t time.Time) (int64, error) {
	if t.Before(holdfast.MinTime) || t.After(holdfast.MaxTime) {
		return 0, holdfast.Errorf(holdfast.Invalid, "a time lies between the years 1677 and 2262")
	}
	return t.UnixNano(), nil
}

// span reads the two ends of a request, ends included.
func span(from, to string, now time.Time, fromDefault, toDefault int64) (s holdfast.Span, err error) {
	s = holdfast.Span{From: fromDefault, To: toDefault}
	if from != "" {
		if s.From, err = ParseTime(from, now, false); err != nil {
			return s, err
		}
	}
	if to != "" {
		if s.To, err = ParseTime(to, now, true); err != nil {
			return s, err
		}
	}
	if s.From > s.To {
		return s, holdfast.Errorf(holdfast.Invalid, "the time asked for ends before it begins")
	}
	return s, nil
}

// moment is a time in an answer; the zero one is left out.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func momentOf(ns int64) *time.Time {
	t := time.Unix(0, ns).UTC()
	return &t
}
