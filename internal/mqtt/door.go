package mqtt

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxVisitors bounds the addresses remembered. Beyond it all strangers share one
// place, so that many addresses can't take memory.
const maxVisitors = 1 << 16

// door counts who comes in.
type door struct {
	o        *Options
	mu       sync.Mutex
	open     int // connections
	visitors map[netip.Addr]*visitor
	swept    time.Time
}

type visitor struct {
	pending int // sockets without CONNECT
	rate    *rate.Limiter
}

// enter admits a new socket; v is nil if not.
func (d *door) enter(from netip.Addr, now time.Time) (v *visitor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open >= d.o.MaxConnections {
		return nil
	}
	v = d.visitor(from, now)
	if v.pending >= d.o.MaxPendingPerIP || !v.rate.AllowN(now, 1) {
		return nil
	}
	v.pending++
	d.open++
	return v
}

// settle says that a socket of v is no longer without CONNECT.
func (d *door) settle(v *visitor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v.pending--
}

// leave says that a connection has ended.
func (d *door) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
}

func (d *door) visitor(from netip.Addr, now time.Time) *visitor {
	if v := d.visitors[from]; v != nil {
		return v
	}
	if len(d.visitors) >= maxVisitors {
		d.sweep(now)
	}
	if len(d.visitors) >= maxVisitors {
		from = netip.Addr{}
		if v := d.visitors[from]; v != nil {
			return v
		}
	}
	v := &visitor{rate: rate.NewLimiter(rate.Limit(d.o.HandshakesPerIP), d.o.HandshakeBurst)}
	d.visitors[from] = v
	return v
}

// sweep forgets addresses that a fresh visitor would not differ from, at most once
// a second.
func (d *door) sweep(now time.Time) {
	if now.Sub(d.swept) < time.Second {
		return
	}
	d.swept = now
	for a, v := range d.visitors {
		if v.pending == 0 && v.rate.TokensAt(now) >= float64(d.o.HandshakeBurst) {
			delete(d.visitors, a)
		}
	}
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
