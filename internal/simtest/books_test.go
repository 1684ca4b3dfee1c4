package simtest

import (
	"fmt"
	"math"
	"sync"
	"time"
)

// state is what the sender knows of a reading.
type state int

const (
	unknown state = iota // no answer yet, or the answer was lost
	acked
	refused
)

// reading is one entry in the books.
type reading struct {
	n      int
	device int
	whose  int // owner; unsure: it has no time, and the hub gave it one at which its device changed hands
	month  int // of arrival, from the year 1 on; unsure
	handed time.Time
	stream string
	timed  bool
	time   time.Time // if timed
	once   bool      // by QoS 2, or with a time: never twice
	state  state
	sent   int  // how often it was handed over as a new message
	gone   bool // an erasure that covers it was answered
	hidden int  // by so many erasures that can be undone
	maybe  bool // an erasure covers it whose fate, or whose order with it, is not known
}

// books say what must be readable. They are kept by the clients alone.
type books struct {
	mu    sync.Mutex
	all   []*reading
	ended map[part]bool // what was erased whole, with an answer
	slips bool          // the clock was set back: the hub's own is ahead, by nobody knows how much
	of    func(device int, at time.Time) (whose int)
}

// part is what an owner has of a device.
type part struct{ device, whose int }

func (b *books) add(r reading) *reading {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.n, r.handed, r.month, r.whose = len(b.all), time.Now(), unsure, unsure
	if r.timed {
		r.whose = b.of(r.device, r.time)
	} else if first := b.of(r.device, r.handed); b.of(r.device, r.handed.Add(time.Hour)) == first {
		r.whose = first // it is his at all times
	}
	b.all = append(b.all, &r)
	return &r
}

func (b *books) settle(n int, s state) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.all[n]
	if s == acked && r.state != acked && !b.slips && r.sent == 1 { // it arrived between then and now
		now := time.Now()
		if monthOf(r.handed) == monthOf(now) {
			r.month = monthOf(now)
		}
		if !r.timed && r.whose == unsure && r.handed.Truncate(time.Hour).Equal(now.Truncate(time.Hour)) {
			r.whose = b.of(r.device, now)
		}
	}
	if s == acked && r.gone && !r.timed {
		// It arrived after the erasure: without a time it is a new reading.
		r.gone, r.maybe = false, true
	}
	if r.state != acked {
		r.state = s
	}
}

// erase enters an erasure. known: the hub said that it holds.
func (b *books) erase(s *scope, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known && s.whole() {
		for _, d := range s.devices {
			b.ended[part{d, s.whose}] = true
		}
	}
	for _, r := range b.all {
		switch covered := s.covers(r); {
		case covered == no:
		case covered == perhaps:
			r.maybe = true
		case known && r.state == acked && (s.month == 0 || r.sent == 1): // sent again, it may have arrived in another month, too
			r.gone = true
		case known && s.month == 0 && (r.state == refused || r.timed):
			// On its way, or dropped: whatever comes of it, it carries a time from before.
			// Of a month it may arrive in another.
			r.gone = true
		default:
			r.maybe = true
		}
	}
}

// check compares what a stream gave with the books.
func (b *books) check(of part, stream string, got []int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	count := map[int]int{}
	for _, n := range got {
		count[n]++
		if n < 0 || n >= len(b.all) || b.all[n].device != of.device || b.all[n].stream != stream {
			return fmt.Errorf("device %d, stream %s has reading %d, which was never sent there", of.device, stream, n)
		}
		if r := b.all[n]; r.whose != of.whose && r.whose != unsure {
			return fmt.Errorf("owner %d is shown reading %d of device %d, stream %s, which is owner %d's: %+v", of.whose, n, of.device, stream, r.whose, *r)
		}
	}
	for _, r := range b.all {
		if r.device != of.device || r.stream != stream || r.whose != of.whose && r.whose != unsure {
			continue
		}
		have := count[r.n]
		least, most := 0, math.MaxInt
		if r.state == acked && !r.gone && !r.maybe && r.hidden == 0 && r.whose == of.whose {
			least = 1
		}
		switch {
		case r.gone, r.state == refused && r.sent == 1, r.hidden > 0 && r.sent == 1:
			most = 0
		case r.once:
			most = 1
		}
		if have < least || have > most {
			return fmt.Errorf("device %d of owner %d, stream %s: reading %d is there %d times, not %d to %d: %+v", of.device, of.whose, stream, r.n, have, least, most, *r)
		}
	}
	return nil
}
