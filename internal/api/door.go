package api

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/holdfast-iot/holdfast"
)

// door counts connections, so that those of nobody can't take all files and
// memory of a process that has devices to serve, and no party those of all others.
// A connection is a stranger's until a request on it was authenticated.
type door struct {
	maxOpen, maxPerOwner, maxStrangers, maxStrangersPerPlace int

	mu        sync.Mutex
	open      int
	strangers int
	places    map[netip.Addr]int // of strangers
	owners    map[holdfast.PartyID]int
}

func newDoor() *door {
	return &door{maxOpen: 4_096, maxPerOwner: 512, maxStrangers: 1_024, maxStrangersPerPlace: 256,
		places: make(map[netip.Addr]int), owners: make(map[holdfast.PartyID]int)}
}

// guard has every connection of a server counted.
func (d *door) guard(s *http.Server, logger *slog.Logger) {
	var links sync.Map // net.Conn → *link
	warnings := rate.Sometimes{Interval: 10 * time.Second}
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		l := &link{door: d, place: placeOf(c.RemoteAddr().String()), conn: c}
		l.bound()
		if !d.enter(l.place) {
			warnings.Do(func() { logger.WarnContext(ctx, "too many connections to the API, new ones are closed") })
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn() // whose farewell could wait for the peer
			}
			c.Close()
			return ctx
		}
		links.Store(c, l)
		return context.WithValue(ctx, linkKey, l)
	}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		if state != http.StateClosed && state != http.StateHijacked {
			return
		}
		if l, ok := links.LoadAndDelete(c); ok {
			l.(*link).end()
		}
	}
}

// enter counts a new connection, or says no.
func (d *door) enter(place netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open >= d.maxOpen || d.strangers >= d.maxStrangers || d.places[place] >= d.maxStrangersPerPlace {
		return false
	}
	d.open++
	d.strangers++
	d.places[place]++
	return true
}

// link is one connection that has entered: a stranger's until owner is set.
type link struct {
	door  *door
	place netip.Addr
	owner holdfast.PartyID // guarded by door.mu
	conn  net.Conn
}

// sendBuffer is how much of what was written waits in the system for its reader. By
// itself Linux lets it grow to megabytes, which a slow reader takes minutes for.
const sendBuffer = 64 << 10

// socket finds what is under TLS and whatever else wraps it.
func (l *link) socket() net.Conn {
	c := l.conn
	for {
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = w.NetConn()
	}
}

func (l *link) bound() {
	if t, ok := l.socket().(*net.TCPConn); ok {
		t.SetWriteBuffer(sendBuffer) // one that can't be bounded is served all the same
	}
}

// drop ends the connection without sending what still waits. Of HTTP/2 that ends all
// that is on it: what waits there is of all streams, one behind the other.
func (l *link) drop() {
	t, ok := l.socket().(*net.TCPConn)
	if !ok {
		l.conn.Close()
		return
	}
	t.SetLinger(0)
	if under, ok := l.conn.(*tls.Conn); ok {
		under.NetConn().Close() // without a farewell, which would wait behind the rest
		return
	}
	l.conn.Close()
}

// meet says whose credential was shown on the connection, and reports whether he
// may have one more. The first one counts.
func (l *link) meet(p holdfast.PartyID) bool {
	d := l.door
	d.mu.Lock()
	defer d.mu.Unlock()
	if !l.owner.IsZero() {
		return true
	}
	if d.owners[p] >= d.maxPerOwner {
		return false
	}
	d.owners[p]++
	l.owner = p
	d.forgetStranger(l.place)
	return true
}

// end says that the connection has ended.
func (l *link) end() {
	d := l.door
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	if l.owner.IsZero() {
		d.forgetStranger(l.place)
	} else if d.owners[l.owner]--; d.owners[l.owner] == 0 {
		delete(d.owners, l.owner)
	}
}

func (d *door) forgetStranger(place netip.Addr) {
	d.strangers--
	if d.places[place]--; d.places[place] == 0 {
		delete(d.places, place)
	}
}

// meet tells the connection of a request, if it has one, who asks on it.
func meet(ctx context.Context, p holdfast.PartyID) bool {
	l, ok := ctx.Value(linkKey).(*link)
	return !ok || l.meet(p)
}
