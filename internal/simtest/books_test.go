package simtest

import (
	"fmt"
	"math"
	"slices"
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
	ended map[int]bool // devices that were erased whole, with an answer
}

func (b *books) add(r reading) *reading {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.n = len(b.all)
	b.all = append(b.all, &r)
	return &r
}

func (b *books) settle(n int, s state) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.all[n]
	if s == acked && r.gone && !r.timed {
		// It arrived after the erasure: without a time it is a new reading.
		r.gone, r.maybe = false, true
	}
	if r.state != acked {
		r.state = s
	}
}

// scope is what an erasure covers.
type scope struct {
	devices  []int
	stream   string // "": all
	from, to time.Time
}

func (s *scope) span() bool { return !s.from.IsZero() }

func (s *scope) covers(r *reading) bool {
	if !slices.Contains(s.devices, r.device) || s.stream != "" && s.stream != r.stream {
		return false
	}
	return !s.span() || r.timed && !r.time.Before(s.from) && !r.time.After(s.to)
}

// erase enters an erasure. known: the hub said that it holds.
func (b *books) erase(s *scope, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known && s.stream == "" && !s.span() {
		for _, d := range s.devices {
			b.ended[d] = true
		}
	}
	for _, r := range b.all {
		switch {
		case s.span() && !r.timed && slices.Contains(s.devices, r.device) && (s.stream == "" || s.stream == r.stream):
			r.maybe = true // the hub gave it a time
		case !s.covers(r):
		case known && (r.state == acked || r.state == refused):
			r.gone = true
		case known && r.timed:
			// On its way, or dropped: whatever comes of it, it carries a time from before.
			r.gone = true
		default:
			r.maybe = true
		}
	}
}

// check compares what a stream gave with the books.
func (b *books) check(device int, stream string, got []int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	count := map[int]int{}
	for _, n := range got {
		count[n]++
		if n < 0 || n >= len(b.all) || b.all[n].device != device || b.all[n].stream != stream {
			return fmt.Errorf("device %d, stream %s has reading %d, which was never sent there", device, stream, n)
		}
	}
	for _, r := range b.all {
		if r.device != device || r.stream != stream {
			continue
		}
		have := count[r.n]
		least, most := 0, math.MaxInt
		if r.state == acked && !r.gone && !r.maybe && r.hidden == 0 {
			least = 1
		}
		switch {
		case r.gone, r.state == refused && r.sent == 1, r.hidden > 0 && r.sent == 1:
			most = 0
		case r.once:
			most = 1
		}
		if have < least || have > most {
			return fmt.Errorf("device %d, stream %s: reading %d is there %d times, not %d to %d: %+v", device, stream, r.n, have, least, most, *r)
		}
	}
	return nil
}
