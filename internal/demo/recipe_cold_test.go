package demo

import (
	"testing"
	"time"
)

// A cold room keeps its temperature with a compressor that runs for a part of the
// time, but for one lapse a week; a demo of 20 minutes has one in its second half.
func TestColdRoomLapses(t *testing.T) {
	const week = 7 * 24 * time.Hour
	warm, spells, last, runs, told, doors := 0, 0, 0, 0, 0, 0
	for m := range ColdRoom(1, tuesday, Options{For: week}).Messages {
		s := m.Samples[0]
		second := int(time.Duration(s.Time-tuesday.UnixNano()) / time.Second)
		switch s.Stream {
		case "temperature":
			v := s.Value.Number()
			if v < 1.5 || v > 23 {
				t.Fatalf("%.1f °C", v)
			}
			if v > 8 {
				if warm++; second-last > 3600 {
					spells++
				}
				last = second
			}
		case "compressor":
			if told++; s.Value.Boolean() {
				runs++
			}
		case "door":
			if s.Value.Boolean() {
				doors++
			}
		}
	}
	if spells != 1 || warm < 10*6 || warm > 120*6 {
		t.Errorf("too warm %d times, for %d s in all", spells, 10*warm)
	}
	if share := float64(runs) / float64(told); share < 0.1 || share > 0.7 {
		t.Errorf("the compressor runs for %.2f of the time", share)
	}
	if doors < 100 {
		t.Errorf("%d times an open door", doors)
	}
}

// Whenever the demo is run, the shop's alarm has something to find: more than two
// minutes above 8 °C, up to the end.
func TestDemoGetsTooWarm(t *testing.T) {
	const length = 20 * time.Minute
	for begin := 0; begin < 24; begin += 3 {
		start := tuesday.Add(time.Duration(begin) * time.Hour)
		for seed := range uint64(8) {
			since := -1
			for m := range ColdRoom(seed, start, Options{For: length}).Messages {
				s := m.Samples[0]
				if s.Stream != "temperature" {
					continue
				}
				if second := int(time.Duration(s.Time-start.UnixNano()) / time.Second); s.Value.Number() <= 8 {
					since = -1
				} else if since < 0 {
					since = second
				}
			}
			if since < 600 || since > 1200-150 {
				t.Fatalf("at %d h, seed %d: too warm from second %d on", begin, seed, since)
			}
		}
	}
}
