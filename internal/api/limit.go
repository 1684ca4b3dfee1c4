package api

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/holdfast-iot/holdfast/internal/access"
)

// rates allows each name so many requests per second. Names that have their whole
// allowance back are forgotten when there are many.
type rates struct {
	limit rate.Limit
	burst int

	mu sync.Mutex
	of map[string]*rate.Limiter
}

// maxNames bounds the memory of one rates to a few megabytes.
const maxNames = 1 << 14

func newRates(perSecond float64, burst int) *rates {
	return &rates{limit: rate.Limit(perSecond), burst: max(burst, 1), of: map[string]*rate.Limiter{}}
}

// wait takes one request from name's allowance. If there is none it returns how
// long until there is.
func (r *rates) wait(name string) time.Duration {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.of[name]
	if l == nil {
		if len(r.of) >= maxNames {
			r.forget(now)
		}
		l = rate.NewLimiter(r.limit, r.burst)
		r.of[name] = l
	}
	if l.AllowN(now, 1) {
		return 0
	}
	return time.Duration((1 - l.TokensAt(now)) / float64(r.limit) * float64(time.Second))
}

func (r *rates) forget(now time.Time) {
	for name, l := range r.of {
		if l.TokensAt(now) >= float64(r.burst) {
			delete(r.of, name)
		}
	}
	if len(r.of) >= maxNames {
		clear(r.of) // what this guards against is load: the rest of it is still bounded
	}
}

// slots bounds how many streams are under way, in all and by who reads them.
type slots[of comparable] struct {
	all, own int
	tooMany  string

	mu   sync.Mutex
	used int
	of   map[of]int
}

func newSlots[of comparable](all, own int, tooMany string) *slots[of] {
	return &slots[of]{all: all, own: own, tooMany: tooMany, of: map[of]int{}}
}

// take takes a slot until leave is called.
func (s *slots[of]) take(o of) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.of[o] >= s.own:
		return nil, tooMany(s.tooMany, time.Second)
	case s.used >= s.all:
		return nil, problem(http.StatusServiceUnavailable, "too many streams are under way").retry(time.Second)
	}
	s.used++
	s.of[o]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.used--
		if s.of[o]--; s.of[o] == 0 {
			delete(s.of, o)
		}
	}, nil
}

// begin takes what a long answer needs until leave is called: a slot of the
// credential's and one of its party's, which may have any number of credentials.
func (a *API) begin(by access.Principal) (leave func(), err error) {
	party, err := a.sharing.take(by.Party)
	if err != nil {
		return nil, err
	}
	own, err := a.streams.take(by.Credential)
	if err != nil {
		party()
		return nil, err
	}
	return func() { own(); party() }, nil
}

func (s *slots[of]) count() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.used)
}

// addressOf names the network that a request comes from: an IPv4 address, or an
// IPv6 /64, which one subscriber has whole.
func addressOf(r *http.Request) string {
	if place := placeOf(r.RemoteAddr); place.IsValid() {
		return place.String()
	}
	return r.RemoteAddr
}

// placeOf is the address of HOST:PORT, of IPv6 the first of its /64.
func placeOf(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}
