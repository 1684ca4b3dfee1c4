package ingest

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Clock gives arrival times that never run back, not when the system's clock is
// set back and not across a restart. It runs at the rate of the monotonic clock
// and follows the system's when that is ahead.
type Clock struct {
	start time.Time    // with its monotonic reading
	base  int64        // arrival at start
	ahead atomic.Int64 // how far the system's clock has jumped forward since
}

// NewClock starts a clock that is never before floor, the last arrival known.
func NewClock(floor int64) *Clock {
	now := time.Now()
	return &Clock{start: now, base: max(now.UnixNano(), floor)}
}

// Now returns the arrival time of what arrives now, in ns since 1970.
func (c *Clock) Now() int64 {
	now := time.Now()
	steady := c.base + int64(now.Sub(c.start))
	for {
		ahead := c.ahead.Load()
		jump := now.UnixNano() - steady
		if jump <= ahead {
			return steady + ahead
		}
		if c.ahead.CompareAndSwap(ahead, jump) {
			return steady + jump
		}
	}
}

// AtLeast moves the clock on to a time that was given out before.
func (c *Clock) AtLeast(arrival int64) {
	if behind := arrival - c.Now(); behind > 0 {
		c.ahead.Add(behind)
	}
}

// Behind returns how far the system's clock is behind arrival time: it was set
// back by as much.
func (c *Clock) Behind() time.Duration {
	return max(0, time.Duration(c.Now()-time.Now().UnixNano()))
}

func (c *Clock) collector() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "holdfast_clock_behind_seconds",
		Help: "How far the system's clock is behind the last arrival: it was set back.",
	}, func() float64 { return c.Behind().Seconds() })
}
