// Package budget bounds how often somebody may do something: failed enrolments of
// an address, certificates of a device (Budget); and how much a device may send
// (Quotas). It keeps its counts in memory alone and takes the time as an argument.
package budget

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Budget allows each name so many events per time. It forgets names that have
// their full allowance back, and all of them when there are too many: what it
// guards against is load and noise, for the secrets can't be guessed anyway.
type Budget struct {
	mu    sync.Mutex
	limit rate.Limit
	burst int
	of    map[string]*rate.Limiter
}

// maxNames bounds the memory of one budget to a few megabytes.
const maxNames = 1 << 14

// New returns a Budget of n events per time, of which burst may come at once.
func New(n int, per time.Duration, burst int) *Budget {
	return &Budget{limit: rate.Limit(float64(n) / per.Seconds()), burst: burst, of: make(map[string]*rate.Limiter)}
}

// Spend takes one event from name's allowance and reports whether there was one.
func (b *Budget) Spend(name string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.of[name]
	if l == nil {
		if len(b.of) >= maxNames {
			b.forget(now)
		}
		l = rate.NewLimiter(b.limit, b.burst)
		b.of[name] = l
	}
	return l.AllowN(now, 1)
}

func (b *Budget) forget(now time.Time) {
	for name, l := range b.of {
		if l.TokensAt(now) >= float64(b.burst) {
			delete(b.of, name)
		}
	}
	if len(b.of) >= maxNames {
		clear(b.of)
	}
}

// Network names the network that HOST:PORT lies in: an IPv4 address, or an IPv6
// /64, which one subscriber has whole.
func Network(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}
