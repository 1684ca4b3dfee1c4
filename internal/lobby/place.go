package lobby

import (
	"net"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// maxPlaces bounds the addresses remembered. Beyond it all strangers share one
// place, so that many addresses can't take memory.
const maxPlaces = 1 << 16

// knownFor is how long an address stays known after a device has come from it.
const knownFor = 24 * time.Hour

// place is what is remembered of an address. The lobby's mutex guards it.
type place struct {
	addr    netip.Addr
	waiting int       // in the lobby
	known   time.Time // when a device last came from it
	rate    *rate.Limiter
}

func (p *place) isKnown(now time.Time) bool { return !p.known.IsZero() && now.Sub(p.known) < knownFor }

// placeLocked finds or makes the place of an address.
func (l *Lobby) placeLocked(from netip.Addr, now time.Time) *place {
	if p := l.places[from]; p != nil {
		return p
	}
	if len(l.places) >= maxPlaces && now.Sub(l.swept) >= time.Second {
		l.swept = now
		for a, p := range l.places {
			if p.waiting == 0 && !p.isKnown(now) && p.rate.TokensAt(now) >= float64(l.o.Burst) {
				delete(l.places, a)
			}
		}
	}
	if len(l.places) >= maxPlaces {
		from = netip.Addr{}
		if p := l.places[from]; p != nil {
			return p
		}
	}
	p := &place{addr: from, rate: rate.NewLimiter(rate.Limit(l.o.PerSecond), l.o.Burst)}
	l.places[from] = p
	return p
}

// addressOf is the IPv4 address or the IPv6 /64 of a socket, zero if it has none.
func addressOf(nc net.Conn) netip.Addr {
	tcp, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	a := tcp.AddrPort().Addr().Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
