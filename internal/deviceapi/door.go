package deviceapi

import (
	"net"
	"net/netip"
	"sync"

	"github.com/holdfast-iot/holdfast"
)

// door counts connections, so that those which say nothing can't take all files
// and memory. A connection is a stranger until a device was met on it: strangers
// are few, in all and from one place; devices may be many behind one address, but
// one of them has only so many.
type door struct {
	maxOpen, maxPerDevice, maxStrangers, maxStrangersPerPlace int

	mu        sync.Mutex
	open      int
	strangers int
	places    map[netip.Addr]int // of strangers
	devices   map[holdfast.DeviceID]int
}

func newDoor() *door {
	return &door{maxOpen: 10_000, maxPerDevice: 64, maxStrangers: 2_048, maxStrangersPerPlace: 512,
		places: make(map[netip.Addr]int), devices: make(map[holdfast.DeviceID]int)}
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

// isDevice says which device a stranger is, and reports whether that may have one
// connection more; if not he stays a stranger.
func (d *door) isDevice(id holdfast.DeviceID, place netip.Addr) bool {
	d.mu.Lock()
	if d.devices[id] >= d.maxPerDevice {
		d.mu.Unlock()
		return false
	}
	d.devices[id]++
	d.mu.Unlock()
	d.met(place)
	return true
}

// was ends a connection's part in those of a device.
func (d *door) was(id holdfast.DeviceID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.devices[id]--; d.devices[id] == 0 {
		delete(d.devices, id)
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
