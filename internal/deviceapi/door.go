package deviceapi

import (
	"net"
	"net/netip"
	"sync"
)

// door counts connections, so that those which say nothing can't take all files
// and memory. A connection is a stranger until a device was met on it: strangers
// are few, in all and from one place; devices may be many behind one address.
type door struct {
	maxOpen, maxStrangers, maxStrangersPerPlace int

	mu        sync.Mutex
	open      int
	strangers int
	places    map[netip.Addr]int // of strangers
}

func newDoor() *door {
	return &door{maxOpen: 10_000, maxStrangers: 2_048, maxStrangersPerPlace: 512, places: make(map[netip.Addr]int)}
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

// met says that the stranger is a device.
func (d *door) met(place netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.strangers--
	if d.places[place]--; d.places[place] == 0 {
		delete(d.places, place)
	}
}

// leave ends a connection that has entered and, if it was a stranger, was met.
func (d *door) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
}

// placeOf is where a connection comes from: an IPv4 address or an IPv6 /64, for
// that is what one subscriber has.
func placeOf(c net.Conn) netip.Addr {
	a, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	ip := a.Addr().Unmap()
	if ip.Is4() {
		return ip
	}
	p, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return ip
	}
	return p.Addr()
}
