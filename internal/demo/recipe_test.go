package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/senml"
)

// A Tuesday, at midnight.
var tuesday = time.Date(2026, time.November, 17, 0, 0, 0, 0, time.UTC)

const hour = time.Hour

// worst are faults of every kind.
func worst() Faults {
	f := UsualFaults()
	f.ClockOffset, f.ClockDrift, f.BrokenSensor = -90*time.Second, 50e-6, true
	return f
}

func digest(messages iter.Seq[Message]) string {
	h := sha256.New()
	for m := range messages {
		fmt.Fprintf(h, "%d %s %t %s\n", m.At.UnixNano(), m.Topic, m.Repeat, m.Payload)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func TestSameSeedSameBytes(t *testing.T) {
	evening := tuesday.Add(16 * hour)
	builds := map[string]func(seed uint64) Device{
		"flawless bench": func(seed uint64) Device { return Bearing(seed, evening, Options{For: hour / 3}) },
		"faulty bench":   func(seed uint64) Device { return Bearing(seed, evening, Options{Faults: worst(), For: hour / 3}) },
		"flawless band":  func(seed uint64) Device { return Wearable(seed, evening, Options{}) },
		"faulty band":    func(seed uint64) Device { return Wearable(seed, evening, Options{Faults: worst(), For: 2 * hour}) },
		"flawless van":   func(seed uint64) Device { return Van(seed, evening, Options{}) },
		"faulty van":     func(seed uint64) Device { return Van(seed, evening, Options{Faults: worst()}) },
		"flawless room":  func(seed uint64) Device { return ColdRoom(seed, evening, Options{}) },
		"faulty room":    func(seed uint64) Device { return ColdRoom(seed, evening, Options{Faults: worst()}) },
	}
	want := map[string]string{
		"flawless bench": "cf5ea3e6665df547",
		"faulty bench":   "e3763d566ea413a9",
		"flawless band":  "1d5ef5efed293a45",
		"faulty band":    "e38be020d4ce837f",
		"flawless van":   "b88500bb8bde9d0d",
		"faulty van":     "3133fdd568b9d325",
		"flawless room":  "bd3e1b95890bc4eb",
		"faulty room":    "d7ee4ba67f0f76ff",
	}
	got := map[string]string{}
	for name, build := range builds {
		d := build(7)
		got[name] = digest(d.Messages)
		if again := digest(d.Messages); again != got[name] {
			t.Errorf("%s: the second time over the messages gives others", name)
		}
		if again := digest(build(7).Messages); again != got[name] {
			t.Errorf("%s: the same seed gives other messages", name)
		}
		if other := digest(build(8).Messages); other == got[name] {
			t.Errorf("%s: another seed gives the same messages", name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the recipes' bytes have changed (-want +got):\n%s", diff)
	}
}

// Every payload is JSON, and the hub's decoder reads from it exactly what Samples says.
func TestPayloadsReadBack(t *testing.T) {
	forms := map[string]int{}
	for _, d := range []Device{
		Bearing(1, tuesday, Options{Faults: worst()}),
		Bearing(2, tuesday, Options{Faults: worst()}),
		Wearable(1, tuesday.Add(16*time.Hour), Options{For: 3 * time.Hour, Faults: worst()}),
		Wearable(2, tuesday.Add(16*time.Hour), Options{For: 3 * time.Hour, Faults: worst()}),
		Van(1, tuesday, Options{Faults: worst()}),
		Van(2, tuesday, Options{Faults: worst()}),
		ColdRoom(1, tuesday, Options{Faults: worst()}),
		ColdRoom(2, tuesday, Options{Faults: worst()}),
	} {
		streams := map[string]Stream{}
		for _, s := range d.Streams {
			streams[s.Name] = s
		}
		for m := range d.Messages {
			if !json.Valid(m.Payload) {
				t.Fatalf("%s: not JSON: %s", m.Topic, m.Payload)
			}
			var got []holdfast.Sample
			var err error
			if name, one := strings.CutPrefix(m.Topic, "data/"); one {
				var s holdfast.Sample
				s, err = senml.DecodeScalar(m.Payload)
				s.Stream = name
				got = []holdfast.Sample{s}
			} else if m.Topic == "data" {
				got, err = senml.DecodeJSON(m.Payload, m.At.UnixNano())
			}
			if err != nil {
				t.Fatalf("%s %s: %v", m.Topic, m.Payload, err)
			}
			if !slices.Equal(got, m.Samples) {
				t.Fatalf("%s %s:\ngot  %+v\nwant %+v", m.Topic, m.Payload, got, m.Samples)
			}
			for _, s := range got {
				stream, known := streams[s.Stream]
				written := stream.Type
				if written == holdfast.Integer {
					written = holdfast.Number // a plain number of JSON; the profile makes it an integer
				}
				if !known || s.Value.Type() != written {
					t.Fatalf("stream %q does not declare a %v", s.Stream, s.Value.Type())
				}
				if f := s.Value.Number(); stream.Type == holdfast.Integer && f != math.Trunc(f) {
					t.Fatalf("stream %q is of integers and got %v", s.Stream, f)
				}
			}
			forms[formOf(m)]++
		}
	}
	for _, form := range []string{"scalar", "Unix time", "RFC 3339", "location", "pack", "pack with sequence", "NaN"} {
		if forms[form] == 0 {
			t.Errorf("no payload has the form %q", form)
		}
	}
	if forms["NaN"] != 8 {
		t.Errorf("%d messages with a NaN from 8 devices", forms["NaN"])
	}
}

func formOf(m Message) string {
	p := string(m.Payload)
	switch {
	case strings.Contains(p, "NaN"):
		if m.Repeat {
			return "repeat of the NaN"
		}
		return "NaN"
	case m.Topic == "data" && strings.Contains(p, "hf_seq"):
		return "pack with sequence"
	case m.Topic == "data":
		return "pack"
	case !m.Samples[0].Timed:
		return "scalar"
	case m.Topic == "data/location":
		return "location"
	case strings.HasPrefix(p, `{"t":"`):
		return "RFC 3339"
	}
	return "Unix time"
}

func TestFlawlessDevice(t *testing.T) {
	seqs := map[string]uint64{}
	var last time.Time
	for m := range Wearable(3, tuesday.Add(17*time.Hour), Options{}).Messages {
		if m.Repeat || m.Topic == "data" || m.At.Before(last) {
			t.Fatalf("a fault in %+v", m)
		}
		last = m.At
		s := m.Samples[0]
		if !s.Timed {
			continue
		}
		if lag := m.At.UnixNano() - s.Time; lag < 0 || lag > int64(time.Second) {
			t.Errorf("sent %v after it was measured", time.Duration(lag))
		}
		if s.Seq != seqs[s.Stream]+1 {
			t.Errorf("%s: sequence %d follows %d", s.Stream, s.Seq, seqs[s.Stream])
		}
		seqs[s.Stream] = s.Seq
	}
	if seqs["heart_rate"] != 3600 {
		t.Errorf("%d heart rates in an hour", seqs["heart_rate"])
	}
}

// truth is a timed sample without what depends on the form of its payload.
type truth struct {
	stream string
	time   int64
	value  holdfast.Value
}

func truths(messages iter.Seq[Message]) map[truth]int {
	out := map[truth]int{}
	for m := range messages {
		for _, s := range m.Samples {
			if s.Timed && !m.Repeat {
				out[truth{s.Stream, s.Time, s.Value}]++
			}
		}
	}
	return out
}

func TestFaultsLeaveTheMeasurementsAlone(t *testing.T) {
	clean := truths(Bearing(5, tuesday, Options{For: hour / 2}).Messages)
	spoilt := truths(Bearing(5, tuesday, Options{For: hour / 2, Faults: UsualFaults()}).Messages)
	for v := range spoilt {
		if _, known := clean[v]; !known && v.stream != "ambient" { // without a time when it is sent at once
			t.Fatalf("%+v was never measured", v)
		}
	}
	if len(spoilt) >= len(clean) {
		t.Errorf("%d readings with gaps, %d without", len(spoilt), len(clean))
	}
}

func TestFaultRates(t *testing.T) {
	const length = 48 * time.Hour
	want := Faults{Gap: 0.03, Late: 0.1, Duplicate: 0.02, Disorder: 0.04, ClockOffset: 90 * time.Second, ClockDrift: 20. / 86400}
	measured := func(f Faults) map[string]int {
		n := map[string]int{}
		var newest time.Time
		for m := range Wearable(11, tuesday, Options{For: length, Faults: f}).Messages {
			if m.At.Before(newest) {
				t.Fatal("messages are not in the order of sending")
			}
			newest = m.At
			n["messages"]++
			switch {
			case m.Repeat:
				n["repeats"]++
				continue
			case m.Topic == "data":
				n["late"] += len(m.Samples)
			}
			n["readings"] += len(m.Samples)
		}
		return n
	}
	clean, spoilt := measured(Faults{}), measured(want)
	check := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > want/4 {
			t.Errorf("%s: %.4f, asked for %.4f", what, got, want)
		}
	}
	check("gaps", 1-float64(spoilt["readings"])/float64(clean["readings"]), want.Gap)
	check("late", float64(spoilt["late"])/float64(spoilt["readings"]), want.Late)
	check("duplicates", float64(spoilt["repeats"])/float64(spoilt["messages"]-spoilt["repeats"]), want.Duplicate)

	// Where disorder is the only fault, a message is overtaken if one that was measured later was sent before it.
	overtaken, all, newest := 0, 0, int64(math.MinInt64)
	for m := range Wearable(11, tuesday, Options{For: length / 4, Faults: Faults{Disorder: want.Disorder}}).Messages {
		if m.Topic != "data/heart_rate" {
			continue
		}
		all++
		if m.Samples[0].Time < newest {
			overtaken++
		}
		newest = max(newest, m.Samples[0].Time)
	}
	check("disorder", float64(overtaken)/float64(all), want.Disorder)

	// The clock alone: ahead by the offset at first, by the drift more at the end.
	var first, last time.Duration
	for m := range Wearable(11, tuesday, Options{For: length / 4, Faults: Faults{ClockOffset: want.ClockOffset, ClockDrift: want.ClockDrift}}).Messages {
		if s := m.Samples[0]; s.Timed {
			last = time.Duration(s.Time - m.At.UnixNano())
			if first == 0 {
				first = last
			}
		}
	}
	for what, pair := range map[string][2]time.Duration{"at first": {first, 90 * time.Second}, "at the end": {last, 100 * time.Second}} {
		if off := (pair[0] - pair[1]).Abs(); off > 500*time.Millisecond {
			t.Errorf("%s the clock is ahead by %v, not %v", what, pair[0], pair[1])
		}
	}
}

func TestRepeatsFollowTheirOriginals(t *testing.T) {
	sent, repeats := map[string]bool{}, 0
	for m := range Bearing(9, tuesday, Options{Faults: UsualFaults()}).Messages {
		key := m.Topic + " " + string(m.Payload)
		if m.Repeat {
			repeats++
			if !sent[key] || !m.Samples[0].Timed {
				t.Errorf("the repeat %s has no original that a hub could tell it from", key)
			}
		} else if sent[key] && m.Samples[0].Timed {
			t.Errorf("%s is sent twice and not marked as a repeat", key)
		}
		sent[key] = true
	}
	if repeats == 0 {
		t.Error("no repeats")
	}
}

// series collects a device's numbers of one stream by seconds since start.
func series(d Device, start time.Time) map[string]map[int]float64 {
	out := map[string]map[int]float64{}
	for m := range d.Messages {
		for _, s := range m.Samples {
			if s.Value.Type() == holdfast.Number && s.Timed {
				if out[s.Stream] == nil {
					out[s.Stream] = map[int]float64{}
				}
				out[s.Stream][int(time.Duration(s.Time-start.UnixNano())/time.Second)] = s.Value.Number()
			}
		}
	}
	return out
}

// mean is taken over the seconds in [from, to) that have a value.
func mean(values map[int]float64, from, to int) float64 {
	sum, n := 0.0, 0
	for s, v := range values {
		if s >= from && s < to {
			sum += v
			n++
		}
	}
	return sum / float64(n)
}

func TestBearingWearsOut(t *testing.T) {
	const life = 4800
	for _, seed := range []uint64{1, 2} {
		d := Bearing(seed, tuesday, Options{For: (life + 600) * time.Second, Life: life * time.Second})
		all := series(d, tuesday)
		rises := map[string]int{}
		for _, name := range []string{"vibration/rms", "vibration/crest", "vibration/kurtosis"} {
			values := all[name]
			fresh, worn := mean(values, 0, life/2), mean(values, life/2, life*8/10)
			if math.Abs(worn/fresh-1) > 0.05 {
				t.Errorf("seed %d: %s is %.3f at first and %.3f before the wear begins", seed, name, fresh, worn)
			}
			for s := 0; s < life; s += 10 {
				if m := mean(values, s, s+30); m > 1.4*fresh { // false for NaN: no value in it
					rises[name] = s
					break
				}
			}
			if rises[name] < life*8/10 {
				t.Errorf("seed %d: %s rises at %d s of %d", seed, name, rises[name], life)
			}
		}
		if r := rises["vibration/rms"]; rises["vibration/crest"] >= r || rises["vibration/kurtosis"] >= r {
			t.Errorf("seed %d: crest factor and kurtosis do not rise before RMS: %v", seed, rises)
		}
		if r := mean(all["vibration/rms"], life-60, life) / mean(all["vibration/rms"], 0, life/2); r < 5 {
			t.Errorf("seed %d: RMS grows %.1f-fold", seed, r)
		}
		if k := mean(all["vibration/kurtosis"], 0, life/2); math.Abs(k-3) > 0.2 {
			t.Errorf("seed %d: the kurtosis of a good bearing is %.2f, not near 3", seed, k)
		}
		if c, h := mean(all["temperature"], 3000, life*8/10), mean(all["temperature"], life-60, life); h < c+3 || h > 90 {
			t.Errorf("seed %d: temperature goes from %.1f to %.1f", seed, c, h)
		}
		if n := mean(all["rpm"], life+60, life+600); n != 0 {
			t.Errorf("seed %d: the tripped bench turns at %.0f rpm", seed, n)
		}
		if c := all["cycles"][life]; c != life/cycle+1 {
			t.Errorf("seed %d: started %v times in %d cycles and a half", seed, c, life/cycle)
		}
	}
}

func TestZonesFollowInOrder(t *testing.T) {
	var zones []string
	for m := range Bearing(4, tuesday, Options{}).Messages {
		if m.Topic == "data/zone" {
			zones = append(zones, m.Samples[0].Value.Text())
		}
	}
	for i, z := range zones[1:] {
		if d := int(z[0]) - int(zones[i][0]); d < -1 || d > 1 {
			t.Errorf("zone %s follows %s", z, zones[i])
		}
	}
	seen := slices.Compact(slices.Sorted(slices.Values(zones)))
	if diff := cmp.Diff([]string{"A", "B", "C", "D"}, seen); diff != "" || zones[0] != "A" || zones[len(zones)-1] != "D" {
		t.Errorf("from %s to %s through %v", zones[0], zones[len(zones)-1], seen)
	}
}

func TestHeartAndSteps(t *testing.T) {
	d := Wearable(2, tuesday, Options{For: 48 * time.Hour})
	var doing string
	var measured []int64 // when a heart rate was
	worn := map[int64]bool{}
	beats := map[string][]float64{}
	steps, day := 0.0, 0
	total := map[int]float64{}
	for m := range d.Messages {
		s := m.Samples[0]
		switch s.Stream {
		case "heart_rate":
			hr := s.Value.Number()
			if hr < 35 || hr > 205 {
				t.Fatalf("a heart rate of %v", hr)
			}
			measured = append(measured, s.Time)
			if doing != "" { // the first may come before it
				beats[doing] = append(beats[doing], hr)
			}
		case "activity":
			doing = s.Value.Text()
		case "worn":
			worn[s.Time] = s.Value.Boolean()
		case "steps":
			n, today := s.Value.Number(), time.Unix(0, s.Time).UTC().YearDay()
			if n < steps && today == day {
				t.Fatalf("steps of the day fall from %v to %v", steps, n)
			}
			steps, day, total[today] = n, today, n
		case "battery":
			if b := s.Value.Number(); b < 1 || b > 100 {
				t.Fatalf("battery at %v %%", b)
			}
		}
	}
	told := slices.Sorted(maps.Keys(worn))
	for _, at := range measured {
		if i, same := slices.BinarySearch(told, at); !same && !worn[told[i-1]] || same && !worn[at] {
			t.Fatalf("a heart rate of a device that is not worn")
		}
	}
	if !slices.Contains(slices.Collect(maps.Values(worn)), false) {
		t.Errorf("always worn")
	}
	order := []string{"sleep", "sit", "walk", "run"}
	last := 0.0
	for _, a := range order {
		slices.Sort(beats[a])
		if len(beats[a]) == 0 {
			t.Fatalf("never %s in two days", a)
		}
		median := beats[a][len(beats[a])/2]
		if median <= last {
			t.Errorf("%s at a median of %v, no more than what is calmer", a, median)
		}
		last = median
	}
	if len(beats) != len(order) {
		t.Errorf("activities %v", slices.Sorted(maps.Keys(beats)))
	}
	for today, n := range total {
		if n < 4000 || n > 40_000 {
			t.Errorf("%v steps on day %d", n, today)
		}
	}
}

// Who reads the raw locations finds the wearer's home and place of work.
func TestAnchorsShow(t *testing.T) {
	for _, seed := range []uint64{1, 2} {
		home, work := Anchors(seed)
		near := func(a, b holdfast.Position) bool {
			return math.Hypot((a.Latitude-b.Latitude)*111_320, (a.Longitude-b.Longitude)*64_000) < 30
		}
		night, atHome, day, atWork := 0, 0, 0, 0
		for m := range Wearable(seed, tuesday, Options{For: 24 * time.Hour, Faults: UsualFaults()}).Messages {
			for _, s := range m.Samples {
				if s.Stream != "location" || m.Repeat {
					continue
				}
				switch h := time.Unix(0, s.Time).UTC().Hour(); {
				case h < 6 || h == 23:
					night++
					if near(s.Value.Position(), home) {
						atHome++
					}
				case h >= 10 && h < 16:
					day++
					if near(s.Value.Position(), work) {
						atWork++
					}
				}
			}
		}
		if night == 0 || float64(atHome) < 0.95*float64(night) {
			t.Errorf("seed %d: %d of %d nightly fixes at home", seed, atHome, night)
		}
		if day == 0 || float64(atWork) < 0.95*float64(day) {
			t.Errorf("seed %d: %d of %d daily fixes at work", seed, atWork, day)
		}
		if near(home, work) {
			t.Errorf("seed %d: home and work are one place", seed)
		}
	}
}

func BenchmarkBearingSecond(b *testing.B) {
	for b.Loop() {
		for range Bearing(1, tuesday, Options{For: time.Minute}).Messages {
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(60*b.N), "µs/second")
}
