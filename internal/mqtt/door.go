package mqtt

import "sync"

// door counts who comes in. Whose TLS handshake fails never gets here: that is the
// listener's business.
type door struct {
	o       *Options
	mu      sync.Mutex
	open    int            // connections
	pending map[peerID]int // without CONNECT
}

// enter admits a new connection, if there is a place.
func (d *door) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open >= d.o.MaxConnections {
		return false
	}
	d.open++
	return true
}

// meet says whose connection it is that has not sent CONNECT, and reports whether
// that device may have one more such.
func (d *door) meet(id peerID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending[id] >= d.o.MaxPerDevice {
		return false
	}
	d.pending[id]++
	return true
}

// settle says that a connection of a device is no longer without CONNECT.
func (d *door) settle(id peerID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending[id]--; d.pending[id] == 0 {
		delete(d.pending, id)
	}
}

// leave says that a connection has ended.
func (d *door) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
}
