package deviceapi

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/holdfast-iot/holdfast"
)

// budgets bound how often and how many times at once each device asks.
type budgets struct {
	perSecond rate.Limit
	burst     int
	atOnce    int

	mu    sync.Mutex
	of    map[holdfast.DeviceID]*budget
	prune int // how many make it worth looking for idle ones
}

type budget struct {
	pace   *rate.Limiter
	inside int
}

func newBudgets(o Options) *budgets {
	b := &budgets{perSecond: rate.Limit(o.PerSecond), burst: o.Burst, atOnce: o.MaxPerDevice, of: make(map[holdfast.DeviceID]*budget), prune: 1024}
	if o.PerSecond < 0 {
		b.perSecond = rate.Inf
	}
	return b
}

// enter lets a request of d in, or not; leave ends it.
func (b *budgets) enter(d holdfast.DeviceID, now time.Time) (leave func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.of[d]
	if x == nil {
		b.forgetIdle(now)
		x = &budget{pace: rate.NewLimiter(b.perSecond, b.burst)}
		b.of[d] = x
	}
	if x.inside >= b.atOnce || !x.pace.AllowN(now, 1) {
		return nil, errPace
	}
	x.inside++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		x.inside--
	}, nil
}

// forgetIdle drops budgets that a fresh one would equal.
func (b *budgets) forgetIdle(now time.Time) {
	if len(b.of) < b.prune {
		return
	}
	for d, x := range b.of {
		if x.inside == 0 && x.pace.TokensAt(now) >= float64(b.burst) {
			delete(b.of, d)
		}
	}
	b.prune = max(1024, 2*len(b.of))
}
