package mqtt

import (
	"slices"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// sessionKey names a session among those of all peers.
type sessionKey struct {
	peer     peerID
	clientID string
}

// registry says which connection a session has, and which wills wait.
type registry struct {
	wg     *sync.WaitGroup // of the server
	mu     sync.Mutex
	slots  map[sessionKey]*slot
	counts map[peerID]int // connections
	wills  map[peerID]int // that wait
	closed bool           // no will fires any more
}

type slot struct {
	conn *conn         // nil: only a will waits
	gone chan struct{} // closed when conn has given the slot back
	will *time.Timer
	fire func() // publishes the will
	of   holdfast.AssignmentID
}

// claim makes c the connection of its session. older is the one that has to go
// first; the caller ends it, waits for gone and comes again. due is a will that
// must be published because the session it belongs to ends now.
func (r *registry) claim(c *conn, clean bool, limit int) (older *conn, gone <-chan struct{}, due func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slots[c.key]
	if s != nil && s.conn != nil {
		return s.conn, s.gone, nil, nil
	}
	if r.counts[c.key.peer] >= limit {
		return nil, nil, nil, &fault{quotaExceeded, "the device has too many connections"}
	}
	if s != nil {
		r.dropLocked(c.key) // if it is too late to stop the timer, the new slot does
		if clean {
			due = s.fire
		}
	}
	r.slots[c.key] = &slot{conn: c, gone: make(chan struct{})}
	r.counts[c.key.peer]++
	return nil, nil, due, nil
}

// release gives c's session back; its will, if there is one to come, fires after
// delay unless the session is claimed before.
func (r *registry) release(c *conn, delay time.Duration, will func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slots[c.key]
	close(s.gone)
	if r.counts[c.key.peer]--; r.counts[c.key.peer] == 0 {
		delete(r.counts, c.key.peer)
	}
	delete(r.slots, c.key)
	if will == nil || r.closed {
		return
	}
	w := &slot{fire: will, of: c.peer.Assignment}
	key := c.key
	w.will = time.AfterFunc(delay, func() {
		r.mu.Lock()
		mine := r.slots[key] == w && !r.closed
		if mine {
			r.dropLocked(key)
			r.wg.Add(1)
		}
		r.mu.Unlock()
		if mine {
			defer r.wg.Done()
			will()
		}
	})
	r.slots[key] = w
	r.wills[key.peer]++
}

// dropLocked takes out a slot in which a will waits.
func (r *registry) dropLocked(key sessionKey) {
	r.slots[key].will.Stop()
	delete(r.slots, key)
	if r.wills[key.peer]--; r.wills[key.peer] == 0 {
		delete(r.wills, key.peer)
	}
}

// forget drops the wills that wait of devices under these assignments, and returns the
// connections that they have.
func (r *registry) forget(of []holdfast.AssignmentID) (open []*conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, s := range r.slots {
		switch {
		case s.conn == nil && slices.Contains(of, s.of):
			r.dropLocked(key)
		case s.conn != nil && !s.conn.peer.Device.IsZero() && slices.Contains(of, s.conn.peer.Assignment):
			open = append(open, s.conn)
		}
	}
	return open
}

// waiting counts the wills that wait.
func (r *registry) waiting() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range r.wills {
		n += of
	}
	return n
}

// mayWait reports whether another will of a device may wait.
func (r *registry) mayWait(d peerID, limit int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wills[d] < limit
}

// close forgets the wills that wait.
func (r *registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, s := range r.slots {
		if s.will != nil {
			s.will.Stop()
		}
	}
}
