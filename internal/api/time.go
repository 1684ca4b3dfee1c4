package api

import (
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// ParseTime reads a time as people and programs write it, in ns since 1970: RFC
// 3339, a date in UTC (as an end, all of that day), "now", or a duration before or
// after now like -2h or +5m, with d for days of 24 hours.
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
		if end {
			t = t.AddDate(0, 0, 1).Add(-1)
		}
		return fits(t)
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
