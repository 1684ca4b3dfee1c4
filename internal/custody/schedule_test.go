package custody

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

func TestSchedulesAreReadAndWritten(t *testing.T) {
	for text, want := range map[string]string{
		"Mo-Fr 08:00-17:00":                    "Mo-Fr 08:00-17:00",
		"Sa 22:00-06:00":                       "Sa 22:00-06:00",
		"Mo 00:00-24:00,  We 12:30-13:00":      "Mo 00:00-24:00, We 12:30-13:00",
		"Fr-Mo 06:00-06:00":                    "Fr-Su 06:00-06:00, Mo 06:00-06:00",
		"Mo-Fr 08:00-12:00, Mo-Fr 13:00-17:00": "Mo-Fr 08:00-12:00, Mo-Fr 13:00-17:00",
	} {
		s, err := ParseSchedule(text, "Europe/Berlin")
		if err != nil || s.String() != want {
			t.Errorf("%q is %q, %v", text, s, err)
			continue
		}
		again, err := ParseSchedule(s.String(), s.Zone)
		if err != nil || again.String() != want {
			t.Errorf("%q again is %q, %v", want, again, err)
		}
	}
	for _, text := range []string{"", "Mo", "Mo 8:00-17:00", "Mo 08:00", "Mo 24:00-25:00", "Xx 08:00-17:00", "Mo-Fr-Sa 08:00-17:00", "Mo 08:60-17:00", "Mo 08:00-17:00,"} {
		_, err := ParseSchedule(text, "Europe/Berlin")
		wants(t, err, holdfast.Invalid, "hours look like")
	}
	for _, zone := range []string{"", "Local", "Mars/North"} {
		_, err := ParseSchedule("Mo 08:00-17:00", zone)
		wants(t, err, holdfast.Invalid, "zone of the IANA database")
	}
}

// A shift is by the clocks of its zone: on the day that clocks change, too.
func TestScheduleOverTheChangeOfClocks(t *testing.T) {
	s := schedule(t, "Mo-Su 01:00-04:00", "Europe/Berlin")
	hours := func(day string) (n time.Duration) {
		from, err := time.Parse(time.DateOnly, day)
		if err != nil {
			t.Fatal(err)
		}
		for p := range s.within(stretch{from.Add(-2 * time.Hour).UnixNano(), from.Add(20 * time.Hour).UnixNano()}) {
			n += time.Duration(p.to - p.from)
		}
		return n
	}
	for day, want := range map[string]time.Duration{"2026-03-28": 3 * time.Hour, "2026-03-29": 2 * time.Hour, "2026-10-24": 3 * time.Hour, "2026-10-25": 4 * time.Hour} {
		if got := hours(day); got != want {
			t.Errorf("%s: %v, want %v", day, got, want)
		}
	}
	office := schedule(t, "Mo-Fr 08:00-17:00", "Europe/Berlin")
	for at, want := range map[string]bool{
		"2026-11-23T07:00:00Z": true, "2026-11-23T06:59:59Z": false, "2026-11-23T16:00:00Z": false, // a Monday in winter
		"2026-07-06T06:00:00Z": true, "2026-07-06T05:59:59Z": false, "2026-07-06T14:59:59Z": true, // and in summer
		"2026-11-22T10:00:00Z": false,
	} {
		instant, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := office.contains(instant.UnixNano()); got != want {
			t.Errorf("%s: %v", at, got)
		}
	}
}

// Windows are made of exactly the instants that they contain, and collide exactly if
// they share one: random schedules in zones that change their clocks, minute by minute.
func TestWindowsMinuteByMinute(t *testing.T) {
	seed := testseed.Of(t)
	rnd := rand.New(rand.NewPCG(seed, 2))
	zones := []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC", "Pacific/Apia"}
	starts := []time.Time{time.Date(2026, 3, 27, 0, 0, 0, 0, time.UTC), time.Date(2026, 10, 23, 0, 0, 0, 0, time.UTC),
		time.Date(2011, 12, 28, 0, 0, 0, 0, time.UTC), time.Date(1969, 12, 28, 0, 0, 0, 0, time.UTC)}
	random := func(start time.Time) window {
		w := window{stretch{start.Add(time.Duration(rnd.IntN(3*24*60)) * time.Minute).UnixNano(), 0}, nil}
		w.to = after(w.from, int64(1+rnd.IntN(6*24*60))*int64(time.Minute))
		if rnd.IntN(4) == 0 {
			return w
		}
		s := &Schedule{Zone: zones[rnd.IntN(len(zones))]}
		for range 1 + rnd.IntN(3) {
			from := rnd.IntN(minutesOfDay)
			s.Shifts = append(s.Shifts, Shift{time.Weekday(rnd.IntN(7)), from, from + 1 + rnd.IntN(10*60)})
		}
		if err := s.check(); err != nil {
			t.Fatal(err)
		}
		w.schedule = s
		return w
	}
	collided := 0
	for range 300 {
		start := starts[rnd.IntN(len(starts))]
		a, b := random(start), random(start)
		next, shared := a.collides(b)
		first, found := int64(0), false
		parts := a.parts()
		inside := func(at int64) bool {
			for p := range parts {
				if p.from <= at && at < p.to {
					return true
				}
			}
			return false
		}
		for at := start.UnixNano(); at < start.Add(10*24*time.Hour).UnixNano(); at += int64(time.Minute) {
			in := a.contains(at)
			if rnd.IntN(50) == 0 && in != inside(at) {
				t.Fatalf("%v is in %v: %v", time.Unix(0, at).UTC(), a, in)
			}
			if in && b.contains(at) {
				first, found = at, true
				break
			}
		}
		if shared != found || found && next != first {
			t.Fatalf("%v and %v share %v at %v, counted %v at %v", a, b, shared, time.Unix(0, next).UTC(), found, time.Unix(0, first).UTC())
		}
		if found {
			collided++
		}
	}
	if collided < 30 || collided > 270 {
		t.Errorf("%d of 300 pairs collide: the test shows little", collided)
	}
}

// Two that never meet are told apart, to the end of time.
func TestSchedulesOfOtherZonesThatNeverMeet(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	x := windowOf(start, time.Time{}, schedule(t, "Mo-Su 00:00-08:00", "Europe/Berlin"))
	y := windowOf(start, time.Time{}, schedule(t, "Mo-Su 14:00-15:00", "Asia/Kolkata"))
	if at, shared := x.collides(y); shared {
		t.Errorf("they share %v", time.Unix(0, at))
	}
	var days int
	for p := range x.parts() {
		if d := time.Duration(p.to - p.from); d != 8*time.Hour && d != 7*time.Hour && d != 9*time.Hour && p.to < windowOf(start.AddDate(230, 0, 0), time.Time{}, nil).from {
			t.Fatalf("%v from %v", d, time.Unix(0, p.from).UTC())
		}
		days++
	}
	if days < 230*365 {
		t.Errorf("%d days", days)
	}
}

// Two open periods of other zones are compared over all of time.
func BenchmarkOverlap(b *testing.B) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	x := windowOf(start, time.Time{}, schedule(b, "Mo-Fr 00:00-08:00", "Europe/Berlin"))
	y := windowOf(start, time.Time{}, schedule(b, "Mo-Fr 14:00-15:00", "Asia/Kolkata"))
	b.ReportAllocs()
	for b.Loop() {
		if _, shared := x.collides(y); shared {
			b.Fatal("they collide")
		}
	}
}

func BenchmarkAt(b *testing.B) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	bare := &Route{}
	single := &Route{periods: newTimeline([]span{{windowOf(now.Add(-time.Hour), time.Time{}, nil), &Route{}}})}
	shift := &Route{periods: newTimeline([]span{{windowOf(now.Add(-time.Hour), time.Time{}, schedule(b, "Mo-Fr 08:00-17:00", "Europe/Berlin")), &Route{}}})}
	var many []span
	for i := range MaxPeriods {
		from := now.Add(time.Duration(i-MaxPeriods/2) * time.Hour)
		many = append(many, span{windowOf(from, from.Add(time.Hour), nil), &Route{}})
	}
	for name, r := range map[string]*Route{"none": bare, "one": single, "shift": shift, "thousand": {periods: newTimeline(many)}} {
		b.Run(name, func(b *testing.B) {
			t := now.UnixNano()
			b.ReportAllocs()
			for b.Loop() {
				if _, late := r.At(t-1, t); late {
					b.Fatal("late")
				}
			}
		})
	}
}
