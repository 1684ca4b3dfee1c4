package deviceapi

import (
	"container/list"
	"net"
	"net/netip"
	"sync"

	"github.com/holdfast-iot/holdfast"
)

// door counts connections, so that those of nobody can't take all files and
// memory. A connection is a stranger until a device was met on it: strangers are
// few, in all and from one place, and the one that has been longest gives way to
// the next. Devices may be many behind one address, but one of them has only so
// many.
type door struct {
	maxPerDevice, maxStrangers, maxStrangersPerPlace int

	mu        sync.Mutex
	open      int
	strangers int
	places    map[netip.Addr]*list.List // of strangers (*link), the oldest first
	devices   map[holdfast.DeviceID]int
}

func newDoor() *door {
	return &door{maxPerDevice: 64, maxStrangers: 2_048, maxStrangersPerPlace: 512,
		places: make(map[netip.Addr]*list.List), devices: make(map[holdfast.DeviceID]int)}
}

// enter counts a new connection and returns who has to go for it, or nil.
func (d *door) enter(l *link) (goes *link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open++
	if p := d.places[l.place]; p != nil && p.Len() >= d.maxStrangersPerPlace {
		goes = d.sendOffLocked(p)
	} else if d.strangers >= d.maxStrangers {
		most := p
		for _, p := range d.places {
			if most == nil || p.Len() > most.Len() {
				most = p
			}
		}
		goes = d.sendOffLocked(most)
	}
	p := d.places[l.place]
	if p == nil {
		p = list.New()
		d.places[l.place] = p
	}
	l.among = p.PushBack(l)
	d.strangers++
	return goes
}

func (d *door) sendOffLocked(p *list.List) *link {
	l := p.Front().Value.(*link)
	d.metLocked(l)
	return l
}

// metLocked says that the stranger is one no more.
func (d *door) metLocked(l *link) {
	if l.among == nil {
		return
	}
	p := d.places[l.place]
	p.Remove(l.among)
	l.among = nil
	d.strangers--
	if p.Len() == 0 {
		delete(d.places, l.place)
	}
}

// isDevice says which device a stranger is, and reports whether that may have one
// connection more; if not he stays a stranger.
func (d *door) isDevice(id holdfast.DeviceID, l *link) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.devices[id] >= d.maxPerDevice {
		return false
	}
	d.devices[id]++
	d.metLocked(l)
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

// leave ends a connection that has entered.
func (d *door) leave(l *link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.metLocked(l)
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
