package identity

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// budget allows each name so many events per time. It forgets names that have
// their full allowance back, and all of them when there are too many: what it
// guards against is load and noise, for the secrets can't be guessed anyway.
type budget struct {
	mu    sync.Mutex
	limit rate.Limit
	burst int
	of    map[string]*rate.Limiter
}

// maxNames bounds the memory of one budget to a few megabytes.
const maxNames = 1 << 14

func newBudget(n int, per time.Duration, burst int) budget {
	return budget{limit: rate.Limit(float64(n) / per.Seconds()), burst: burst, of: make(map[string]*rate.Limiter)}
}

// spend takes one event from name's allowance and reports whether there was one.
func (b *budget) spend(name string, now time.Time) bool {
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

func (b *budget) forget(now time.Time) {
	for name, l := range b.of {
		if l.TokensAt(now) >= float64(b.burst) {
			delete(b.of, name)
		}
	}
	if len(b.of) >= maxNames {
		clear(b.of)
	}
}

// addressOf names the network that a request comes from: an IPv4 address, or an
// IPv6 /64, which one subscriber has whole.
func addressOf(r *http.Request) string {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}
