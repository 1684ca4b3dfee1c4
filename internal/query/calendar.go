package query

import (
	"math"
	"strings"
	"time"
	_ "time/tzdata" // zones are the same on every machine

	"github.com/holdfast-iot/holdfast"
)

// Calendar is windows as a calendar has them in a zone: so many days, counted from
// 1970-01-01; weeks, which begin on Monday as in ISO 8601, counted from that of
// 1970-01-01; or months, counted from January 1970. One of the three is set.
type Calendar struct {
	Days, Weeks, Months int
	Zone                *time.Location // nil: UTC
}

// mostUnits is a century of months.
const mostUnits = 1200

func (c Calendar) zero() bool { return c.Days == 0 && c.Weeks == 0 && c.Months == 0 }

func (c Calendar) check() error {
	set := 0
	for _, n := range [...]int{c.Days, c.Weeks, c.Months} {
		if n < 0 || n > mostUnits {
			return holdfast.Errorf(holdfast.Invalid, "a window has 1 to %d days, weeks or months", mostUnits)
		}
		set += min(n, 1)
	}
	if set > 1 {
		return holdfast.Errorf(holdfast.Invalid, "a window is days, weeks or months, not several of them")
	}
	return nil
}

// ParseZone reads the name of a zone in the IANA time zone database.
func ParseZone(name string) (*time.Location, error) {
	if name != "" && name != "Local" && len(name) <= 64 && !strings.ContainsAny(name, " \x00") {
		if z, err := time.LoadLocation(name); err == nil {
			return z, nil
		}
	}
	return nil, holdfast.Errorf(holdfast.Invalid, "a time zone is named as in the IANA database: Europe/Warsaw, America/St_Johns, UTC")
}

// ruler says where windows begin and end. Every instant lies in one window, and the
// next begins where the one before ends.
type ruler struct {
	every    time.Duration
	calendar Calendar
	zone     *time.Location
}

func (req *Request) ruler() ruler {
	r := ruler{every: req.Every, calendar: req.Calendar, zone: req.Calendar.Zone}
	if r.zone == nil {
		r.zone = time.UTC
	}
	return r
}

// length is about how long a window is.
func (r ruler) length() time.Duration {
	const day = 24 * time.Hour
	if r.every > 0 {
		return r.every
	}
	return time.Duration(r.calendar.Days)*day + time.Duration(r.calendar.Weeks)*7*day + time.Duration(r.calendar.Months)*28*day
}

// around returns the window that t lies in, cut to what an int64 holds: its start,
// its end, and the last instant in it.
func (r ruler) around(t int64) (start, end, last int64) {
	if r.every > 0 {
		return r.fixed(t)
	}
	k := r.index(t)
	from, to := r.begin(k), r.begin(k+1)
	for to <= seconds(t) { // a window that is passed over or a clock that was set back into the day before
		k++
		from, to = to, r.begin(k+1)
	}
	start, end = nanos(from), nanos(to)
	if end == math.MaxInt64 {
		return start, end, end
	}
	return start, end, end - 1
}

func (r ruler) fixed(t int64) (start, end, last int64) {
	in := t % int64(r.every)
	if in < 0 {
		in += int64(r.every)
	}
	start, end, last = math.MinInt64, math.MaxInt64, math.MaxInt64
	if t >= math.MinInt64+in {
		start = t - in
	}
	if rest := int64(r.every) - in; t <= math.MaxInt64-rest {
		end, last = t+rest, t+rest-1
	}
	return start, end, last
}

// index numbers the window of the date that clocks show at t.
func (r ruler) index(t int64) int {
	at := time.Unix(0, t).In(r.zone)
	if m := r.calendar.Months; m > 0 {
		return floor((at.Year()-1970)*12+int(at.Month())-1, m)
	}
	year, month, day := at.Date()
	days := int(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() / 86400)
	if w := r.calendar.Weeks; w > 0 {
		return floor(days+3, 7*w)
	}
	return floor(days, r.calendar.Days)
}

// begin returns the first instant, in seconds since 1970, at which clocks in the
// zone show the first date of window k or a later one. Where midnight is passed
// over that is later than midnight; where it comes twice it is the first.
func (r ruler) begin(k int) int64 {
	var date time.Time
	switch {
	case r.calendar.Months > 0:
		date = time.Date(1970, time.Month(1+k*r.calendar.Months), 1, 0, 0, 0, 0, time.UTC)
	case r.calendar.Weeks > 0:
		date = time.Date(1970, 1, 1-3+k*7*r.calendar.Weeks, 0, 0, 0, 0, time.UTC)
	default:
		date = time.Date(1970, 1, 1+k*r.calendar.Days, 0, 0, 0, 0, time.UTC)
	}
	const furthest = 24 * 3600 // from UTC, of any zone there ever was
	shown := date.Unix()       // on a clock
	at := time.Unix(shown-furthest, 0).In(r.zone)
	for {
		_, offset := at.Zone()
		_, changes := at.ZoneBounds()
		if !changes.IsZero() && !changes.After(at) { // so it is said of a leap year's last day, far ahead
			changes = at.Add(time.Hour)
		}
		if first := max(at.Unix(), shown-int64(offset)); changes.IsZero() || first < changes.Unix() {
			return first
		}
		at = changes
	}
}

// Day returns the first instant of a date in a zone, and that of the next.
func Day(date time.Time, zone *time.Location) (from, to time.Time) {
	r := ruler{calendar: Calendar{Days: 1}, zone: zone}
	year, month, day := date.Date()
	k := int(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() / 86400)
	return time.Unix(r.begin(k), 0), time.Unix(r.begin(k+1), 0)
}

// floor divides towards the past.
func floor(a, b int) int {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func seconds(t int64) int64 { return int64(floor(int(t), 1e9)) }

// nanos cuts what an int64 does not hold.
func nanos(s int64) int64 {
	const second = int64(1e9)
	switch {
	case s > math.MaxInt64/second:
		return math.MaxInt64
	case s < math.MinInt64/second:
		return math.MinInt64
	}
	return s * second
}

// within reports whether the windows of a span begin and end at multiples of every,
// as windows of that length do: so that whoever has both, or these of several
// lengths and zones, can't take one from the other and be left with less.
func (r ruler) within(every time.Duration, s holdfast.Span) bool {
	const day = 24 * time.Hour
	if r.every > 0 {
		return r.every%every == 0
	}
	if day%every != 0 { // a month can't be, nor a zone where midnight is not UTC's
		weeks := time.Duration(r.calendar.Weeks) * 7 * day
		return r.zone == time.UTC && r.calendar.Months == 0 && time.Duration(r.calendar.Days)*day%every == 0 && weeks%every == 0 && (weeks == 0 || 3*day%every == 0)
	}
	for at := time.Unix(0, s.From).In(r.zone); ; {
		_, offset := at.Zone()
		_, changes := at.ZoneBounds()
		if time.Duration(offset)*time.Second%every != 0 {
			return false
		}
		if changes.IsZero() || !changes.After(at) || changes.UnixNano() > s.To {
			return true
		}
		if time.Duration(changes.Unix())*time.Second%every != 0 { // a day may begin there
			return false
		}
		at = changes
	}
}

// whole cuts a span to the windows that lie in it from end to end. If there are none
// it ends before it begins.
func (r ruler) whole(s holdfast.Span) holdfast.Span {
	start, _, last := r.around(s.From)
	if start < s.From {
		if last == math.MaxInt64 {
			return holdfast.Span{From: 0, To: -1}
		}
		s.From = last + 1
	}
	if start, _, last = r.around(s.To); last > s.To {
		if start == math.MinInt64 {
			return holdfast.Span{From: 0, To: -1}
		}
		s.To = start - 1
	}
	return s
}
