package ingest

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Skew is what the times of a device's readings say of its clock: nothing of what it
// measures is looked at.
type Skew struct {
	Device holdfast.DeviceID
	Last   time.Time // of arrival, of what is told here

	// Readings whose time can't be: marked holdfast.Clock since the start, and how far
	// the last of them was ahead of its arrival; negative: behind.
	Marked int
	Off    time.Duration

	// Late is since when not one message of the device had a reading of its last hour;
	// zero while some do. By is how far behind its newest reading is. Its clock is
	// behind, or it sends late.
	Late time.Time
	By   time.Duration
}

const (
	lateReading = time.Hour
	mostSkewed  = 1024 // devices remembered
	skewKept    = 24 * time.Hour
)

// skews remembers devices whose clocks are wrong. A device whose clock is right
// costs an atomic load a message, and a look into the map while others are wrong.
type skews struct {
	some  atomic.Bool
	mu    sync.RWMutex
	of    map[holdfast.DeviceID]*Skew
	swept time.Time // when stale entries were last looked for
}

// seen is what one message showed.
type seen struct {
	newest int64 // of the readings with a time of their own; 0: none had one
	marked int
	off    int64 // of the last one marked
}

// note takes what a message showed that arrived at a time.
func (k *skews) note(d holdfast.DeviceID, s *seen, arrival int64) {
	late := s.newest != 0 && s.newest < arrival-int64(lateReading)
	if !late && s.marked == 0 {
		if !k.some.Load() {
			return
		}
		k.mu.RLock()
		x := k.of[d]
		k.mu.RUnlock()
		if x == nil || s.newest == 0 {
			return
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	at := time.Unix(0, arrival)
	x := k.of[d]
	if x == nil {
		if x = k.begin(d, at); x == nil {
			return
		}
	}
	if s.marked > 0 {
		x.Marked, x.Off, x.Last = x.Marked+s.marked, time.Duration(s.off), at
	}
	switch {
	case late && x.Late.IsZero():
		x.Late = at
		fallthrough
	case late:
		x.By, x.Last = time.Duration(arrival-s.newest), at
	case s.newest != 0:
		x.Late, x.By = time.Time{}, 0
		if x.Marked == 0 {
			delete(k.of, d)
			k.some.Store(len(k.of) > 0)
		}
	}
}

// begin makes an entry, nil while there are too many: which ones are told matters
// less than that there are.
func (k *skews) begin(d holdfast.DeviceID, now time.Time) *Skew {
	if len(k.of) >= mostSkewed && now.Sub(k.swept) > time.Minute {
		k.sweep(now)
	}
	if len(k.of) >= mostSkewed {
		return nil
	}
	if k.of == nil {
		k.of = map[holdfast.DeviceID]*Skew{}
	}
	x := &Skew{Device: d, Last: now}
	k.of[d] = x
	k.some.Store(true)
	return x
}

// Skewed returns the devices whose readings of the last day had times that can't be,
// or came late without end, in no order; of very many, some.
func (g *Gate) Skewed() []Skew {
	k, now := &g.skews, time.Unix(0, g.clock.Now())
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweep(now)
	out := make([]Skew, 0, len(k.of))
	for _, x := range k.of {
		out = append(out, *x)
	}
	k.some.Store(len(k.of) > 0)
	return out
}

// sweep is called with mu held.
func (k *skews) sweep(now time.Time) {
	k.swept = now
	for d, x := range k.of {
		if now.Sub(x.Last) > skewKept {
			delete(k.of, d)
		}
	}
}
