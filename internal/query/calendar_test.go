package query

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

func zoned(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := ParseZone(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// TestCalendarDays: days as clocks in a zone have them.
func TestCalendarDays(t *testing.T) {
	for name, c := range map[string]struct {
		zone, at   string
		calendar   Calendar
		start, end string
	}{
		"23 hours":                  {"Europe/Warsaw", "2026-03-29T12:00:00Z", Calendar{Days: 1}, "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"},
		"25 hours":                  {"Europe/Warsaw", "2026-10-25T12:00:00Z", Calendar{Days: 1}, "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"},
		"half an hour off":          {"Asia/Kolkata", "2026-01-01T18:29:59Z", Calendar{Days: 1}, "2026-01-01T00:00:00+05:30", "2026-01-02T00:00:00+05:30"},
		"and beyond":                {"Asia/Kolkata", "2026-01-01T18:30:00Z", Calendar{Days: 1}, "2026-01-02T00:00:00+05:30", "2026-01-03T00:00:00+05:30"},
		"three quarters":            {"Pacific/Chatham", "2026-01-01T12:00:00Z", Calendar{Days: 1}, "2026-01-02T00:00:00+13:45", "2026-01-03T00:00:00+13:45"},
		"summer time of 30 minutes": {"Australia/Lord_Howe", "2026-10-04T00:00:00Z", Calendar{Days: 1}, "2026-10-04T00:00:00+10:30", "2026-10-05T00:00:00+11:00"},
		"midnight passed over":      {"America/Sao_Paulo", "2018-11-04T12:00:00Z", Calendar{Days: 1}, "2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"},
		"midnight twice":            {"America/Havana", "2026-11-01T12:00:00Z", Calendar{Days: 1}, "2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00"},
		"back over midnight":        {"America/St_Johns", "2006-10-29T02:40:00Z", Calendar{Days: 1}, "2006-10-29T00:00:00-02:30", "2006-10-30T00:00:00-03:30"},
		"a day that never was":      {"Pacific/Apia", "2011-12-30T09:59:59Z", Calendar{Days: 1}, "2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00"},
		"a minute before new year":  {"America/New_York", "2026-01-01T04:59:00Z", Calendar{Months: 12}, "2025-01-01T00:00:00-05:00", "2026-01-01T00:00:00-05:00"},
		"new year":                  {"America/New_York", "2026-01-01T05:00:00Z", Calendar{Months: 12}, "2026-01-01T00:00:00-05:00", "2027-01-01T00:00:00-05:00"},
		"February":                  {"UTC", "2024-02-29T23:59:59Z", Calendar{Months: 1}, "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"},
		"a quarter":                 {"Europe/Warsaw", "2026-05-05T00:00:00Z", Calendar{Months: 3}, "2026-04-01T00:00:00+02:00", "2026-07-01T00:00:00+02:00"},
		"a decade":                  {"UTC", "2026-05-05T00:00:00Z", Calendar{Months: 120}, "2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"},
		"a week over new year":      {"Europe/Warsaw", "2026-01-01T00:00:00Z", Calendar{Weeks: 1}, "2025-12-29T00:00:00+01:00", "2026-01-05T00:00:00+01:00"},
		"the week of 1970":          {"UTC", "1970-01-01T00:00:00Z", Calendar{Weeks: 1}, "1969-12-29T00:00:00Z", "1970-01-05T00:00:00Z"},
		"the week before":           {"UTC", "1969-12-28T23:00:00Z", Calendar{Weeks: 1}, "1969-12-22T00:00:00Z", "1969-12-29T00:00:00Z"},
		"two days":                  {"UTC", "1970-01-02T00:00:00Z", Calendar{Days: 2}, "1970-01-01T00:00:00Z", "1970-01-03T00:00:00Z"},
		"two days before":           {"UTC", "1969-12-31T00:00:00Z", Calendar{Days: 2}, "1969-12-30T00:00:00Z", "1970-01-01T00:00:00Z"},
	} {
		parse := func(s string) time.Time {
			at, err := time.Parse(time.RFC3339, s)
			if err != nil {
				t.Fatal(err)
			}
			return at
		}
		c.calendar.Zone = zoned(t, c.zone)
		r := (&Request{Calendar: c.calendar}).ruler()
		start, end, last := r.around(parse(c.at).UnixNano())
		if start != parse(c.start).UnixNano() || end != parse(c.end).UnixNano() || last != end-1 {
			t.Errorf("%s: %s lies in %v to %v, want %s to %s", name, c.at, time.Unix(0, start).In(c.calendar.Zone), time.Unix(0, end).In(c.calendar.Zone), c.start, c.end)
		}
	}
}

// TestRulers: in every zone and for every length windows follow one another without
// a gap, each instant lies in its own, and days begin where a walk over the zone's
// instants finds the date to change.
func TestRulers(t *testing.T) {
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 5))
	zones := []string{"UTC", "Europe/Warsaw", "America/St_Johns", "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Apia", "Pacific/Kwajalein",
		"Africa/Monrovia", "Asia/Manila", "America/Anchorage", "Antarctica/Troll", "Europe/Dublin", "Africa/Casablanca", "Asia/Gaza", "America/Juneau"}
	for range 3000 {
		zone := zoned(t, zones[draw.IntN(len(zones))])
		req := Request{Calendar: Calendar{Zone: zone}}
		switch n := 1 + draw.IntN(5); draw.IntN(4) {
		case 0:
			req.Calendar.Days = n
		case 1:
			req.Calendar.Weeks = n
		case 2:
			req.Calendar.Months = n
		case 3:
			req.Calendar, req.Every = Calendar{}, time.Duration(1+draw.Int64N(1e15))
		}
		r := req.ruler()
		at := draw.Int64N(250*365*86400e9) - 120*365*86400e9 // 1850 to 2100
		start, end, last := r.around(at)
		if start > at || at > last || end != last+1 || start >= end {
			t.Fatalf("%v in %s: %d lies in [%d, %d]", req.Calendar, zone, at, start, last)
		}
		for _, inside := range []int64{start, last, start + draw.Int64N(end-start)} {
			if s, e, _ := r.around(inside); s != start || e != end {
				t.Fatalf("%v in %s: %d lies in [%d, %d), and %d of it in [%d, %d)", req.Calendar, zone, at, start, end, inside, s, e)
			}
		}
		if s, _, _ := r.around(end); s != end {
			t.Fatalf("%v in %s: behind [%d, %d) the next begins at %d", req.Calendar, zone, start, end, s)
		}
		if n := 1 + draw.IntN(20); r.after(at, n) < last {
			t.Fatalf("%v in %s: %d windows from %d end before the first does", req.Calendar, zone, n, at)
		} else if _, _, l := r.around(r.after(at, n)); l != r.after(at, n) {
			t.Fatalf("%v in %s: %d windows from %d end within one", req.Calendar, zone, n, at)
		}
		if req.Calendar.Days == 1 {
			date := func(t int64) string { return time.Unix(0, t).In(zone).Format(time.DateOnly) }
			before := int64(math.MinInt64)
			for s := start - 3*3600e9; s < start; s += 60e9 { // no earlier instant shows the date
				if date(s) >= date(start) && before == math.MinInt64 {
					before = s
				}
			}
			if before != math.MinInt64 || date(start-1) >= date(start) {
				t.Fatalf("%s: %s begins at %v, but %v is of it", zone, date(start), time.Unix(0, start).In(zone), time.Unix(0, max(before, start-1)).In(zone))
			}
		}
	}
}

func TestRulersAtTheEndsOfTime(t *testing.T) {
	for _, c := range []Calendar{{Days: 1}, {Weeks: 3}, {Months: 1}, {Months: 1200}, {Days: 1200}} {
		for _, zone := range []string{"UTC", "Pacific/Apia", "America/New_York"} {
			c.Zone = zoned(t, zone)
			r := (&Request{Calendar: c}).ruler()
			for _, at := range []int64{math.MinInt64, math.MinInt64 + 1, math.MaxInt64 - 1, math.MaxInt64} {
				if start, end, last := r.around(at); start > at || at > last || end < last {
					t.Errorf("%v in %s: %d lies in [%d, %d)", c, zone, at, start, end)
				}
				if l := r.after(at, 1000); l < at {
					t.Errorf("%v in %s: 1,000 windows from %d end at %d", c, zone, at, l)
				}
			}
		}
	}
}

func TestZoneNames(t *testing.T) {
	for _, name := range []string{"", "Local", "Warsaw", "../etc/passwd", "/etc/localtime", "Europe/Warsaw ", "europe", "Europe/War\x00saw"} {
		if z, err := ParseZone(name); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%q is %v, %v", name, z, err)
		}
	}
}

// TestDay: the dates of a request are the zone's.
func TestDay(t *testing.T) {
	from, to := Day(time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC), zoned(t, "Europe/Warsaw"))
	if d := to.Sub(from); d != 23*time.Hour || from.UTC().Format(time.RFC3339) != "2026-03-28T23:00:00Z" {
		t.Error(from, d)
	}
}
