package custody

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Schedule is the hours of the week in which a period holds. An instant is within
// it if the clocks of the zone then show one of its hours: an hour that is set back
// counts twice, one that is skipped does not come.
type Schedule struct {
	Zone   string // of the IANA database
	Shifts []Shift

	zone *time.Location
	week []minutes // sorted, apart from each other
}

// Shift is a stretch of one day of the week, in minutes since its midnight. To may
// lie in the next day.
type Shift struct {
	Day      time.Weekday
	From, To int
}

// minutes is a stretch of the week from Monday midnight; to is not in it.
type minutes struct{ from, to int }

const (
	minutesOfDay  = 24 * 60
	minutesOfWeek = 7 * minutesOfDay
	maxShifts     = 100
)

var dayNames = [...]string{"Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"}

// dayOf counts a day of the week from Monday.
func dayOf(d time.Weekday) int { return (int(d) + 6) % 7 }

// ParseSchedule reads hours as people write them: "Mo-Fr 08:00-17:00", several with
// commas; "Sa 22:00-06:00" ends on the next day.
func ParseSchedule(text, zone string) (*Schedule, error) {
	bad := holdfast.Errorf(holdfast.Invalid, "hours look like Mo-Fr 08:00-17:00, several with commas; the days are Mo, Tu, We, Th, Fr, Sa, Su")
	s := &Schedule{Zone: zone}
	for part := range strings.SplitSeq(text, ",") {
		fields := strings.Fields(part)
		if len(fields) != 2 {
			return nil, bad
		}
		first, last, many := strings.Cut(fields[0], "-")
		if !many {
			last = first
		}
		day, end := slices.Index(dayNames[:], first), slices.Index(dayNames[:], last)
		begins, ends, ok := strings.Cut(fields[1], "-")
		from, fromOK := parseClock(begins)
		to, toOK := parseClock(ends)
		if day < 0 || end < 0 || !ok || !fromOK || !toOK || from == minutesOfDay {
			return nil, bad
		}
		if to <= from {
			to += minutesOfDay
		}
		for ; ; day = (day + 1) % 7 {
			s.Shifts = append(s.Shifts, Shift{Day: time.Weekday((day + 1) % 7), From: from, To: to})
			if day == end {
				break
			}
		}
	}
	return s, s.check()
}

func parseClock(text string) (int, bool) {
	var h, m int
	if len(text) != 5 || text[2] != ':' {
		return 0, false
	}
	for i, c := range []byte(text) {
		if i != 2 && (c < '0' || c > '9') {
			return 0, false
		}
	}
	h, m = int(text[0]-'0')*10+int(text[1]-'0'), int(text[3]-'0')*10+int(text[4]-'0')
	return h*60 + m, m < 60 && h*60+m <= minutesOfDay
}

// String is the hours as ParseSchedule reads them, without the zone.
func (s *Schedule) String() string {
	var parts []string
	for i := 0; i < len(s.Shifts); {
		first := s.Shifts[i]
		last := first
		for i++; i < len(s.Shifts) && s.Shifts[i].From == first.From && s.Shifts[i].To == first.To && dayOf(s.Shifts[i].Day) == dayOf(last.Day)+1; i++ {
			last = s.Shifts[i]
		}
		days := dayNames[dayOf(first.Day)]
		if last != first {
			days += "-" + dayNames[dayOf(last.Day)]
		}
		to := first.To
		if to > minutesOfDay {
			to -= minutesOfDay
		}
		parts = append(parts, fmt.Sprintf("%s %02d:%02d-%02d:%02d", days, first.From/60, first.From%60, to/60, to%60))
	}
	return strings.Join(parts, ", ")
}

// check refuses what is no schedule, and makes ready what is.
func (s *Schedule) check() error {
	zone, err := time.LoadLocation(s.Zone)
	if s.Zone == "" || s.Zone == "Local" || err != nil {
		return holdfast.Errorf(holdfast.Invalid, "a schedule needs a zone of the IANA database, like Europe/Berlin")
	}
	if len(s.Shifts) == 0 || len(s.Shifts) > maxShifts {
		return holdfast.Errorf(holdfast.Invalid, "a schedule has 1 to %d shifts", maxShifts)
	}
	week := make([]minutes, 0, len(s.Shifts)+1)
	for _, h := range s.Shifts {
		if h.Day < time.Sunday || h.Day > time.Saturday || h.From < 0 || h.From >= minutesOfDay || h.To <= h.From || h.To > h.From+minutesOfDay {
			return holdfast.Errorf(holdfast.Invalid, "a shift begins on a day of the week and lasts up to 24 hours")
		}
		at := dayOf(h.Day) * minutesOfDay
		m := minutes{at + h.From, at + h.To}
		if m.to > minutesOfWeek { // from Sunday into Monday
			week = append(week, minutes{0, m.to - minutesOfWeek})
			m.to = minutesOfWeek
		}
		week = append(week, m)
	}
	slices.SortFunc(week, func(a, b minutes) int { return cmp.Compare(a.from, b.from) })
	n := 0
	for _, m := range week[1:] {
		if m.from <= week[n].to {
			week[n].to = max(week[n].to, m.to)
			continue
		}
		n++
		week[n] = m
	}
	s.zone, s.week = zone, week[:n+1]
	return nil
}

// contains reports whether an instant is within the hours.
func (s *Schedule) contains(t int64) bool {
	_, offset := time.Unix(0, t).In(s.zone).Zone()
	minute := int(weekly(t, offset) / int64(time.Minute))
	for _, w := range s.week {
		if minute < w.from {
			return false
		}
		if minute < w.to {
			return true
		}
	}
	return false
}

// weekly returns how long ago clocks with an offset of so many seconds showed the
// midnight of a Monday.
func weekly(t int64, offset int) int64 {
	const week = minutesOfWeek * int64(time.Minute)
	const thursday = 3 * minutesOfDay * int64(time.Minute) // 1970-01-01
	into := (t%week + int64(offset)*int64(time.Second) + thursday) % week
	if into < 0 {
		into += week
	}
	return into
}

// stretch is a part of time; to is not in it, unless it is the last instant there
// is.
type stretch struct{ from, to int64 }

func (a stretch) overlap(b stretch) (stretch, bool) {
	s := stretch{max(a.from, b.from), min(a.to, b.to)}
	return s, s.from < s.to
}

// within gives the parts of a stretch of time that are within the hours, in order.
func (s *Schedule) within(in stretch) iter.Seq[stretch] {
	return func(yield func(stretch) bool) {
		var last stretch // held back: the next may continue it
		for part := range s.pieces(in) {
			if part.from <= last.to && last.to > last.from {
				last.to = part.to
				continue
			}
			if last.to > last.from && !yield(last) {
				return
			}
			last = part
		}
		if last.to > last.from {
			yield(last)
		}
	}
}

// pieces is within, cut where the week or the zone's offset changes.
func (s *Schedule) pieces(in stretch) iter.Seq[stretch] {
	return func(yield func(stretch) bool) {
		for at := in.from; at < in.to; {
			local := time.Unix(0, at).In(s.zone)
			_, end := local.ZoneBounds()
			until := in.to
			if !end.IsZero() && end.Before(holdfast.MaxTime) {
				// On the last day of leap years beyond the zone's table Go has the end of
				// the year before now: then an hour at a time.
				if end.UnixNano() <= at {
					end = local.Add(time.Hour)
				}
				until = min(until, end.UnixNano())
			}
			_, offset := local.Zone()
			for at < until {
				// Midnight of the week's Monday as this offset has it.
				into := weekly(at, offset)
				for _, w := range s.week {
					from, to := after(at, int64(w.from)*int64(time.Minute)-into), after(at, int64(w.to)*int64(time.Minute)-into)
					if piece, ok := (stretch{from, to}).overlap(stretch{at, until}); ok && !yield(piece) {
						return
					}
				}
				at = min(until, after(at, int64(minutesOfWeek)*int64(time.Minute)-into))
			}
		}
	}
}

// after is t + d, at most the last instant there is and at least the first.
func after(t, d int64) int64 {
	switch {
	case d > 0 && t > math.MaxInt64-d:
		return math.MaxInt64
	case d < 0 && t < math.MinInt64-d:
		return math.MinInt64
	}
	return t + d
}

// disjoint reports that two schedules of one zone never share an instant.
func (s *Schedule) disjoint(o *Schedule) bool {
	if s.Zone != o.Zone {
		return false
	}
	for _, a := range s.week {
		for _, b := range o.week {
			if a.from < b.to && b.from < a.to {
				return false
			}
		}
	}
	return true
}
