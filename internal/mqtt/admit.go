package mqtt

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// admit brings a socket from TLS to CONNACK within the time that connections have
// for it. cs is given where TLS has been done. If it says false the connection
// only wants to be finished.
func (c *conn) admit(ctx context.Context, cs *tls.ConnectionState) bool {
	ctx, cancel := context.WithTimeout(ctx, c.s.o.ConnectTimeout)
	defer cancel()
	c.nc.SetDeadline(time.Now().Add(c.s.o.ConnectTimeout))
	if !c.s.joined(c) {
		return false
	}
	if cs == nil {
		state, err := handshake(ctx, c.nc)
		if err != nil {
			c.s.m.refused[noHandshake].Add(1)
			c.s.log.Debug("mqtt: handshake failed", "error", err)
			return false
		}
		cs = &state
	}
	var authErr error
	c.peer, authErr = c.s.authenticate(ctx, *cs)
	if authErr == nil {
		if !c.s.door.meet(c.peer.id()) { // its others have yet to say anything
			c.s.m.refused[tooManySilent].Add(1)
			return false
		}
		defer c.s.door.settle(c.peer.id())
	}
	var hello connect
	err := c.readConnect(&hello)
	c.dialect = dialect{version: hello.version, problemInfo: hello.problemInfo, maxPacket: hello.maxPacket, receiveMax: hello.receiveMax}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.s.m.refused[noConnect].Add(1)
	case err != nil:
	case authErr != nil: // told now, in words that the client understands
		err = c.s.refusedPeer("authenticate", authErr)
	default:
		err = c.open(ctx, &hello)
	}
	if err != nil {
		c.turnAway(err)
		return false
	}
	return true
}

func handshake(ctx context.Context, nc net.Conn) (tls.ConnectionState, error) {
	t, ok := nc.(*tls.Conn)
	if !ok {
		return tls.ConnectionState{}, errors.New("the listener speaks no TLS")
	}
	if err := t.HandshakeContext(ctx); err != nil {
		return tls.ConnectionState{}, err
	}
	return t.ConnectionState(), nil
}

// refusedPeer is what CONNACK says when a device is not let in.
func (s *Server) refusedPeer(step string, err error) error {
	switch holdfast.KindOf(err) {
	case holdfast.Unavailable, holdfast.Internal:
		s.warnings.Do(func() { s.log.Warn("mqtt: devices can't connect", "step", step, "error", err) })
		return &fault{serverUnavailable, toldText(err)}
	}
	s.log.Debug("mqtt: device refused", "step", step, "error", err)
	return &fault{notAuthorized, toldText(err)}
}

// readConnect reads the first packet, which must be CONNECT.
func (c *conn) readConnect(hello *connect) error {
	n, err := io.ReadAtLeast(c.nc, c.head[:], 1) // no buffer for who says nothing
	if err != nil {
		return err
	}
	if c.head[0]>>4 != typeConnect {
		return &fault{protocolError, "the first packet is not CONNECT"}
	}
	buf := c.s.buffers.Get().(*buffer)
	defer c.s.buffers.Put(buf)
	b := buf[:]
	copy(b, c.head[:n])
	for {
		header, total, err := frame(b[:n], maxConnect, 0)
		if err != nil {
			return err
		}
		if total > len(b) {
			b = append(make([]byte, 0, total), b[:n]...)[:total]
		}
		if total > 0 && n >= total {
			c.last = time.Now()
			c.s.m.received[typeConnect].Add(1)
			c.s.m.bytesIn.Add(uint64(n))
			if n > total {
				c.early = append([]byte(nil), b[total:n]...)
			}
			err = parseConnect(b[0], b[header:total], hello)
			if err == nil { // what a length may look like depends on the version
				_, _, err = frame(b[:n], maxConnect, hello.version)
			}
			return err
		}
		m, err := c.nc.Read(b[n:])
		if n += m; err != nil && m == 0 {
			return err
		}
	}
}

// turnAway says why a client is not let in, where it can be told.
func (c *conn) turnAway(err error) {
	e := ending{abrupt: true, noWill: true}
	var f *fault
	if errors.As(err, &f) {
		e = ending{code: f.code, text: f.text, noWill: true}
		c.s.m.count(&c.s.m.refusedConnects, f.code)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quitLocked(e)
	if !c.closing && f != nil {
		c.out = appendRefusal(c.out, f.code, f.text, c.dialect)
	}
}

// open claims the session and sends CONNACK.
func (c *conn) open(ctx context.Context, hello *connect) error {
	o := &c.s.o
	now := time.Now()
	if !c.peer.NotAfter.IsZero() && !now.Before(c.peer.NotAfter) {
		return &fault{notAuthorized, "the certificate has expired"}
	}
	if hello.will != nil && c.peer.Device.IsZero() {
		return &fault{notAuthorized, "devices publish; a person or a program has no will"}
	}
	if w := hello.will; w != nil && c.version == v5 {
		if r := routeOf(w.topic); r.kind == toNowhere {
			return &fault{topicInvalid, r.why}
		}
	}
	answer := welcome{
		expiry: -1, keepAlive: -1,
		receiveMax: o.ReceiveMaximum, aliasMax: o.TopicAliasMaximum, maxPacket: uint32(o.MaxPacket),
	}
	c.chooseTimes(hello, &answer)
	c.will, c.purpose = hello.will, hello.purpose
	c.key = sessionKey{c.peer.id(), hello.clientID}
	if hello.clientID == "" {
		c.key.clientID = "auto-" + rand.Text()
		answer.assignedID = c.key.clientID
	}
	if err := c.claim(ctx, hello.clean); err != nil {
		return err
	}
	session, present, err := c.s.sessions.Open(ctx, c.peer, c.key.clientID, hello.clean, c.expiry)
	if err != nil {
		return c.s.refusedPeer("open session", err)
	}
	c.opened = true
	c.session = session.Name
	if session, present, err = c.goOn(ctx, session, present); err != nil {
		return c.s.refusedPeer("open subscriptions", err)
	}
	c.session, answer.present = session.Name, present
	if len(session.Received) > 0 {
		c.qos2 = make(map[uint16]bool, len(session.Received))
		for _, id := range session.Received {
			c.qos2[id] = false
		}
	}
	c.spending.own = o.Quota(ctx, c.peer, "")
	return c.greet(answer)
}

// greet sends CONNACK and lifts the deadline. A connection that has been ended
// meanwhile stays silent.
func (c *conn) greet(w welcome) error {
	ack := appendConnack(nil, w, c.dialect)
	if !c.fits(len(ack)) {
		return errors.New("the client takes no packet as large as CONNACK")
	}
	c.mu.Lock()
	if c.over != nil {
		c.mu.Unlock()
		return errOver
	}
	c.nc.SetDeadline(time.Time{})
	c.connected = true
	c.s.m.connected.Add(1)
	c.out = append(c.out, ack...)
	c.greeting = len(c.out)
	c.kickLocked()
	c.mu.Unlock()
	if track := c.s.o.Track; track != nil {
		c.forget = track(c.peer, func(why error) {
			c.cut(ending{code: administrative, text: toldText(why), noWill: true})
		})
	}
	c.last = time.Now()
	if err := c.due(c.last); err != nil {
		return err
	}
	c.s.log.Debug("mqtt: connected", "device", c.peer.Device, "version", c.version, "session_present", w.present)
	if c.way != nil {
		for _, sub := range c.way.subs {
			sub.st.begin()
		}
	}
	return nil
}

// chooseTimes settles keep-alive and session expiry between client and server.
func (c *conn) chooseTimes(hello *connect, answer *welcome) {
	o := &c.s.o
	keep := hello.keepAlive
	if c.version == v5 && keep == 0 || keep > o.MaxKeepAlive {
		keep = o.MaxKeepAlive
		answer.keepAlive = int(keep / time.Second)
	}
	c.keepAlive = keep + keep/2
	switch {
	case c.version == v5:
		c.expiry = min(hello.expiry, o.MaxSessionExpiry)
		if c.expiry != hello.expiry {
			answer.expiry = int64(min(c.expiry/time.Second, math.MaxUint32))
		}
	case !hello.clean:
		c.expiry = o.MaxSessionExpiry
	}
	if hello.will != nil {
		// The will is due when the session ends, if that is sooner.
		hello.will.delay = min(hello.will.delay, c.expiry, o.MaxWillDelay)
	}
}

// claim takes the session, from an older connection if need be: which must have
// ended first, commits included, or a packet id of it could be taken in twice.
func (c *conn) claim(ctx context.Context, clean bool) error {
	for {
		older, gone, due, err := c.s.registry.claim(c, clean, c.s.o.MaxPerDevice)
		if err != nil {
			return err
		}
		if older == nil {
			c.claimed = true
			if due != nil {
				due()
			}
			return nil
		}
		older.cut(ending{code: takenOver, text: "the client id connected again"})
		select {
		case <-gone:
		case <-ctx.Done():
			return &fault{serverBusy, "the older connection of this session has not ended yet"}
		}
	}
}
