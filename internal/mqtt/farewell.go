package mqtt

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// closeTimeout bounds the catalog's part in the end of a connection.
const closeTimeout = 5 * time.Second

// left gives back what c held. Its socket is closed and nothing of it is in flight.
func (s *Server) left(c *conn) {
	if c.forget != nil {
		c.forget()
	}
	c.mu.Lock()
	e := *c.over
	c.mu.Unlock()
	c.leaveAll()
	if c.opened {
		s.m.count(&s.m.ended, e.code)
		s.closeSession(c)
		s.log.Debug("mqtt: ended", "device", c.peer.Device, "code", byte(e.code), "reason", e.text)
	}
	if c.claimed {
		var will func()
		if c.connected && c.will != nil && !e.noWill {
			peer, session, w := c.peer, c.session, c.will
			will = func() { s.publishWill(peer, session, w) }
			// A device that comes with ever new client ids has no more wills waiting than
			// connections: the next ones are published at once, unless the connection that
			// keeps the will back is here already.
			if w.delay == 0 || e.code != takenOver && !s.registry.mayWait(c.key.peer, s.o.MaxPerDevice) {
				will()
				will = nil
			}
		}
		delay := time.Duration(0)
		if will != nil {
			delay = c.will.delay
		}
		s.registry.release(c, delay, will)
	}
	if c.connected {
		s.m.disconnected.Add(1)
	}
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.door.leave()
}

func (s *Server) closeSession(c *conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	expiry := c.expiry
	if c.ended.Load() {
		expiry = 0
	}
	if err := s.sessions.Close(ctx, c.peer, c.key.clientID, expiry); err != nil {
		s.warnings.Do(func() { s.log.Warn("mqtt: close session failed", "error", err) })
	}
}

// publishWill takes the will in like any publish of its device and waits until it
// is durable or has failed; there is nobody left to tell.
func (s *Server) publishWill(p Peer, session string, w *will) {
	r := routeOf(w.topic)
	m := message{payload: w.payload, content: []byte(w.content), utf8: w.utf8}
	var one [1]holdfast.Sample
	var samples []holdfast.Sample
	var err error
	if r.kind.ofTwin() {
		err = s.tell(p, &r, m)
	} else if samples, err = r.samples(m, &one); err == nil {
		b := s.gate.Batch(p, session)
		if err = b.Add(r.child, samples, Delivery{}); err == nil {
			done := make(chan error, 1)
			b.Commit(func(err error) { done <- err })
			err = <-done
		}
	}
	if err == nil {
		s.m.wills.Add(1)
		return
	}
	code, _ := reasonsOf(err)
	if f, ok := err.(*fault); ok {
		code = f.code
	}
	if code == 0 {
		s.failed(err)
		return
	}
	s.refused(p, code, refusalText(err))
}
