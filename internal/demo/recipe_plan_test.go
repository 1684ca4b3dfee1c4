package demo

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/holdfast-iot/holdfast"
)

func TestPlanMergesAll(t *testing.T) {
	p := Fleet(21, tuesday.Add(8*time.Hour), 20*time.Minute)
	want, got := map[string]int{}, map[string]int{}
	for _, d := range p.Devices {
		for range d.Messages {
			want[d.Name]++
		}
	}
	var last time.Time
	for d, m := range p.Messages() {
		if m.At.Before(last) {
			t.Fatalf("%s sends at %v, after a message of %v", d.Name, m.At, last)
		}
		last = m.At
		got[d.Name]++
	}
	if diff := cmp.Diff(want, got); diff != "" || len(got) != 7 {
		t.Errorf("messages per device (-alone +merged):\n%s", diff)
	}
}

// The demo is about faults, so an hour of it shows each of them.
func TestFleetShowsItsFaults(t *testing.T) {
	p := Fleet(1, tuesday.Add(8*time.Hour), time.Hour)
	seen := map[string]bool{}
	seqs, counts := map[string]uint64{}, map[string]uint64{}
	for d, m := range p.Messages() {
		for _, s := range m.Samples {
			late := m.At.Sub(time.Unix(0, s.Time))
			name := d.Name + " " + s.Stream
			switch {
			case m.Repeat:
				seen["repeat"] = true
			case s.Timed && late > 30*time.Second:
				seen["late"] = true
			case s.Timed && late < -80*time.Second:
				seen["clock "+d.Name] = true
			case s.Seq > 0 && s.Seq < seqs[name]:
				seen["disorder"] = true
			}
			if s.Value.Type() == holdfast.Number && math.IsNaN(s.Value.Number()) {
				seen["NaN"] = true
			}
			seqs[name] = max(seqs[name], s.Seq)
			if s.Seq > 0 && !m.Repeat {
				counts[name]++
			}
		}
	}
	for name, n := range counts {
		if n < seqs[name] {
			seen["gap"] = true
		}
	}
	want := map[string]bool{"repeat": true, "late": true, "clock band-ben": true, "disorder": true, "gap": true, "NaN": true}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("faults in the demo's first hour (-want +got):\n%s", diff)
	}
}

func TestPlanStopsWhenAsked(t *testing.T) {
	p := Fleet(21, tuesday, time.Hour)
	n := 0
	for range p.Messages() {
		if n++; n == 10 {
			break
		}
	}
	if n != 10 {
		t.Errorf("%d messages", n)
	}
}

func TestPlayKeepsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := tuesday.Add(8 * time.Hour)
		p := Fleet(22, start, 10*time.Minute)
		p.Speed = 60
		begun, n := time.Now(), 0
		for _, m := range p.Play(t.Context()) {
			due := m.At.Sub(start) / 60
			if off := time.Since(begun) - due; off < -time.Microsecond || off > time.Microsecond {
				t.Fatalf("a message due at %v came at %v", due, time.Since(begun))
			}
			n++
		}
		if took := time.Since(begun); n == 0 || took < 10*time.Second || took > 12*time.Second {
			t.Errorf("%d messages of ten minutes in %v at speed 60", n, took)
		}
	})
}

func TestPlayEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		p := Fleet(22, tuesday, time.Hour)
		p.Speed = 1
		begun := time.Now()
		for range p.Play(ctx) {
		}
		if took := time.Since(begun); took != 3*time.Second {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestPlayWithoutSpeedDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Fleet(22, tuesday, 5*time.Minute)
		begun, n := time.Now(), 0
		for range p.Play(t.Context()) {
			n++
		}
		if took := time.Since(begun); n == 0 || took != 0 {
			t.Errorf("%d messages in %v", n, took)
		}
	})
}
