package demo

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
)

const (
	gapSeconds  = 4   // mean length of a gap
	lateSeconds = 180 // mean length of a stretch without network
	packRecords = 250 // at most, in a stored batch
)

// link carries what a device measures to its messages, and spoils it on the way.
type link struct {
	rng    *rand.Rand
	faults Faults
	rfc    bool // write times as RFC 3339, as every other seed does; else as Unix seconds
	start  time.Time
	half   time.Time // from here on a broken sensor may show
	broke  bool
	gap    spell
	outage spell
	seqs   map[*Stream]uint64
	stored []reading
	queue  []Message // by At
}

func newLink(seed uint64, start time.Time, o Options) *link {
	return &link{
		rng: rand.New(rand.NewPCG(seed, linkDraws)), faults: o.Faults, rfc: seed%2 == 1,
		start: start, half: start.Add(o.For / 2), seqs: make(map[*Stream]uint64),
		gap:    spell{share: o.Faults.Gap, mean: gapSeconds},
		outage: spell{share: o.Faults.Late, mean: lateSeconds},
	}
}

// flush yields what is due by a time.
func (l *link) flush(by time.Time, yield func(Message) bool) bool {
	for len(l.queue) > 0 && !l.queue[0].At.After(by) {
		m := l.queue[0]
		l.queue = l.queue[1:]
		if !yield(m) {
			return false
		}
	}
	return true
}

// second takes what was measured at one second. A lost reading keeps its sequence
// number: that is how a gap shows.
func (l *link) second(at time.Time, measures []measure) {
	lost, away := l.gap.on(l.rng), l.outage.on(l.rng)
	clock := at.Add(l.faults.ClockOffset + time.Duration(l.faults.ClockDrift*float64(at.Sub(l.start)))).Truncate(time.Millisecond)
	var together []reading
	for _, m := range measures {
		r := reading{measure: m, time: clock}
		if m.stream.form == object {
			l.seqs[m.stream]++
			r.seq = l.seqs[m.stream]
		}
		if l.faults.BrokenSensor && !l.broke && !lost && !at.Before(l.half) && m.stream.Type == holdfast.Number {
			l.broke, r.measure = true, m.broken()
		}
		switch {
		case lost:
		case away:
			l.stored = append(l.stored, r)
		case m.stream.form == packed:
			together = append(together, r)
		default:
			l.push(at.Add(l.latency()), r.single(l.rfc))
		}
	}
	if len(together) > 0 {
		l.push(at.Add(l.latency()), pack(together))
	}
	if !away {
		l.deliver(at)
	}
}

func (l *link) latency() time.Duration {
	return time.Duration(20+l.rng.IntN(180)) * time.Millisecond
}

// deliver sends what was stored, four packs a second while live readings go on.
func (l *link) deliver(at time.Time) {
	for batch := range slices.Chunk(l.stored, packRecords) {
		at = at.Add(250 * time.Millisecond)
		l.push(at, pack(batch))
	}
	l.stored = l.stored[:0]
}

func (l *link) push(at time.Time, m Message) {
	if l.rng.Float64() < l.faults.Disorder {
		at = at.Add(time.Second + l.upTo(4*time.Second))
	}
	m.At = at
	l.enqueue(m)
	if m.Samples[0].Timed && l.rng.Float64() < l.faults.Duplicate {
		m.At, m.Repeat = at.Add(200*time.Millisecond+l.upTo(30*time.Second)), true
		l.enqueue(m)
	}
}

func (l *link) upTo(d time.Duration) time.Duration {
	return time.Duration(l.rng.Int64N(int64(d))).Truncate(time.Millisecond)
}

func (l *link) enqueue(m Message) {
	i, _ := slices.BinarySearchFunc(l.queue, m, func(q, m Message) int {
		if q.At.After(m.At) {
			return 1
		}
		return -1 // the same moment too: first made, first sent
	})
	l.queue = slices.Insert(l.queue, i, m)
}

// spell is a condition that comes for some seconds at a time and holds for a
// given share of all seconds.
type spell struct {
	share float64
	mean  int
	left  int
}

func (s *spell) on(rng *rand.Rand) bool {
	if s.left <= 0 && s.share > 0 && rng.Float64() < s.share/(float64(s.mean)*(1-s.share)+s.share) {
		s.left = 1 + s.mean/2 + rng.IntN(s.mean-1)
	}
	s.left--
	return s.left >= 0
}
