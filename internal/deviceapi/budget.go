package deviceapi

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/budget"
)

// budgets bound how often and how many times at once each device asks.
type budgets struct {
	perSecond rate.Limit
	burst     int
	atOnce    int

	mu    sync.Mutex
	of    map[holdfast.DeviceID]*pace
	prune int // how many make it worth looking for idle ones
}

type pace struct {
	perSecond *rate.Limiter
	inside    int
}

func newBudgets(o Options) *budgets {
	b := &budgets{perSecond: rate.Limit(o.PerSecond), burst: o.Burst, atOnce: o.MaxPerDevice, of: make(map[holdfast.DeviceID]*pace), prune: 1024}
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
		x = &pace{perSecond: rate.NewLimiter(b.perSecond, b.burst)}
		b.of[d] = x
	}
	if x.inside >= b.atOnce || !x.perSecond.AllowN(now, 1) {
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
		if x.inside == 0 && x.perSecond.TokensAt(now) >= float64(b.burst) {
			delete(b.of, d)
		}
	}
	b.prune = max(1024, 2*len(b.of))
}

// overQuota is the error of a request that a quota refuses.
type overQuota struct {
	device holdfast.DeviceID // who is over it: the peer, or a child of it
	owed   time.Duration     // until it is within its quota again
}

func (e *overQuota) Error() string {
	return "device " + e.device.String() + " sends more than its quota: come again when Retry-After says so"
}

// charge takes what the messages cost of the quotas of those whose they are, or
// refuses all of them. Each pays for its share of the bytes. A device that owes
// nothing may send one more request, of whatever size.
func (a *API) charge(size int, messages []message) error {
	readings := 0
	for i := range messages {
		readings += len(messages[i].samples)
	}
	now := time.Now().UnixNano()
	quotas := make([]*budget.Allowance, len(messages))
	for i := range messages {
		quotas[i] = a.o.Quota(messages[i].route)
		if owed := quotas[i].Debt(now); owed > 0 {
			a.metrics.refuse("quota")
			return holdfast.Errorf(holdfast.Unavailable, "%w", &overQuota{messages[i].route.Device, owed})
		}
	}
	for i := range messages {
		n := len(messages[i].samples)
		quotas[i].Take(now, n, size*n/max(1, readings))
	}
	return nil
}
