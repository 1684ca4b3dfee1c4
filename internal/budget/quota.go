package budget

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Rate is how much a device may send. A number of 0 or less bounds nothing.
type Rate struct {
	Readings float64       // a second
	Bytes    float64       // a second
	Burst    time.Duration // how much may come at once, as time at these rates
}

// bucket is a token bucket that counts in time: at is when all that was taken so
// far is paid for. The zero value bounds nothing.
type bucket struct {
	each  float64 // ns that one unit takes
	burst int64   // ns
	at    atomic.Int64
}

func (b *bucket) set(perSecond float64, burst time.Duration) {
	if perSecond > 0 {
		b.each, b.burst = float64(time.Second)/perSecond, int64(burst)
	}
}

func (b *bucket) take(now int64, n int) (debt int64) {
	if b.each == 0 {
		return 0
	}
	cost := int64(float64(n) * b.each)
	for {
		old := b.at.Load()
		next := max(old, now-b.burst) + cost
		if next == old || b.at.CompareAndSwap(old, next) {
			return next - now
		}
	}
}

// Allowance is what one device has left of its Rate. All its connections share it,
// and requests do. It is safe for concurrent use; nil bounds nothing.
type Allowance struct {
	rate     Rate
	readings bucket
	bytes    bucket
	slowed   atomic.Int64 // when it last was in debt
}

func newAllowance(r Rate) *Allowance {
	a := &Allowance{rate: r}
	a.readings.set(r.Readings, r.Burst)
	a.bytes.set(r.Bytes, r.Burst)
	return a
}

// Take takes readings and bytes, which may be more than are left, and returns how
// long it is until they are paid for: 0 if the device is within its rate. now is
// in ns since 1970.
func (a *Allowance) Take(now int64, readings, bytes int) time.Duration {
	if a == nil {
		return 0
	}
	d := max(a.readings.take(now, readings), a.bytes.take(now, bytes))
	if d <= 0 {
		return 0
	}
	a.slowed.Store(now)
	return time.Duration(d)
}

// Debt is what Take of nothing returns.
func (a *Allowance) Debt(now int64) time.Duration {
	if a == nil {
		return 0
	}
	return time.Duration(max(0, a.readings.at.Load()-now, a.bytes.at.Load()-now))
}

// idle reports whether a fresh allowance would be the same.
func (a *Allowance) idle(now int64) bool {
	return a.readings.at.Load() <= now-a.readings.burst && a.bytes.at.Load() <= now-a.bytes.burst && now-a.slowed.Load() > int64(time.Hour)
}

// Quotas keeps the allowances of devices. It forgets those that have their whole
// allowance back; a connection that lasts may count apart from a later one then,
// which is at most a second burst.
type Quotas struct {
	mu    sync.Mutex
	of    map[holdfast.DeviceID]*Allowance
	prune int // how many make it worth looking for idle ones
}

const leastPrune = 1024

// NewQuotas returns Quotas of nobody.
func NewQuotas() *Quotas {
	return &Quotas{of: make(map[holdfast.DeviceID]*Allowance), prune: leastPrune}
}

// Of returns the allowance of a device whose rate is r.
func (q *Quotas) Of(id holdfast.DeviceID, r Rate, now int64) *Allowance {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.of[id]
	if a != nil && a.rate == r {
		return a
	}
	if a == nil && len(q.of) >= q.prune {
		for id, a := range q.of {
			if a.idle(now) {
				delete(q.of, id)
			}
		}
		q.prune = max(leastPrune, 2*len(q.of))
	}
	a = newAllowance(r)
	q.of[id] = a
	return a
}

// Slowed returns the devices that were over their rate since a time, the last one
// first.
func (q *Quotas) Slowed(since int64) []holdfast.DeviceID {
	type one struct {
		id holdfast.DeviceID
		at int64
	}
	var all []one
	q.mu.Lock()
	for id, a := range q.of {
		if at := a.slowed.Load(); at >= since && at > 0 {
			all = append(all, one{id, at})
		}
	}
	q.mu.Unlock()
	slices.SortFunc(all, func(a, b one) int { return int(min(1, max(-1, b.at-a.at))) })
	var out []holdfast.DeviceID
	for _, x := range all {
		out = append(out, x.id)
	}
	return out
}
