package ingest

import (
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

func (k *skews) all(now time.Time) map[holdfast.DeviceID]Skew {
	g := &Gate{clock: NewClock(now.UnixNano())}
	g.skews.of = k.of
	out := map[holdfast.DeviceID]Skew{}
	for _, s := range g.Skewed() {
		out[s.Device] = s
	}
	return out
}

func TestSkews(t *testing.T) {
	var k skews
	now := time.Now()
	ns := func(d time.Duration) int64 { return now.Add(d).UnixNano() }
	good, ahead, behind, busy := holdfast.DeviceID{1}, holdfast.DeviceID{2}, holdfast.DeviceID{3}, holdfast.DeviceID{4}
	for minute := range 90 {
		at := time.Duration(minute) * time.Minute
		k.note(good, &seen{newest: ns(at - time.Second)}, ns(at))
		k.note(ahead, &seen{newest: ns(at + 10*time.Minute), marked: 1, off: int64(10 * time.Minute)}, ns(at))
		k.note(behind, &seen{newest: ns(at - 2*time.Hour)}, ns(at))
		if minute < 80 { // it sends what it kept, then what it has now
			k.note(busy, &seen{newest: ns(at - 10*time.Hour)}, ns(at))
		} else {
			k.note(busy, &seen{newest: ns(at)}, ns(at))
		}
	}
	got := k.all(now.Add(90 * time.Minute))
	if len(got) != 2 {
		t.Errorf("%+v", got)
	}
	if s := got[ahead]; s.Marked != 90 || s.Off != 10*time.Minute || !s.Late.IsZero() {
		t.Errorf("ahead: %+v", s)
	}
	if s := got[behind]; !s.Late.Equal(time.Unix(0, ns(0))) || s.By != 2*time.Hour || s.Last.Sub(s.Late) != 89*time.Minute {
		t.Errorf("behind: %+v", s)
	}
	if got := k.all(now.Add(60 * time.Hour)); len(got) != 0 {
		t.Errorf("after days: %+v", got)
	}
	for i := range 3 * mostSkewed {
		k.note(holdfast.DeviceID{5, byte(i), byte(i >> 8)}, &seen{newest: 1, marked: 1, off: -5}, ns(90*time.Minute))
	}
	if len(k.of) != mostSkewed {
		t.Errorf("%d are remembered", len(k.of))
	}
	k.note(good, &seen{newest: 1, marked: 1}, ns(60*time.Hour)) // there is room again
	if _, ok := k.of[good]; !ok || len(k.of) != 1 {
		t.Errorf("%d are remembered after days", len(k.of))
	}
}

// BenchmarkSkew is what a message of a device whose clock is right costs, while
// nobody's is wrong and while a thousand are.
func BenchmarkSkew(b *testing.B) {
	now := time.Now().UnixNano()
	for name, wrong := range map[string]int{"none wrong": 0, "a thousand wrong": 1000} {
		b.Run(name, func(b *testing.B) {
			var k skews
			for i := range wrong {
				k.note(holdfast.DeviceID{byte(i), byte(i >> 8)}, &seen{newest: now, marked: 1}, now)
			}
			s := seen{newest: now}
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				k.note(holdfast.DeviceID{9, 9, 9}, &s, now)
			}
		})
	}
}
