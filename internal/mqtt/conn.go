package mqtt

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/sparkplug"
)

// maxOut is how much may wait to be written before the reader pauses. What the
// committer appends beside it is bounded by the publishes in flight.
const maxOut = 16 << 10

// linger bounds how long an ended connection is read and thrown away, so that the
// kernel does not tear up the last packet together with unread input.
const (
	linger      = 300 * time.Millisecond
	lingerBytes = 4 << 20
)

// conn is one connection. Fields above mu belong to its reader.
type conn struct {
	s  *Server
	nc net.Conn
	dialect
	peer      Peer
	key       sessionKey
	session   string
	will      *will
	keepAlive time.Duration // after how much silence it ends: 0 never
	expiry    time.Duration // of the session
	claimed   bool          // it holds its session's slot
	opened    bool          // the session store knows that the session is open
	forget    func()        // of Track
	purpose   string        // of its subscriptions

	head    [8]byte // what the connection blocks on: no publish to a topic of ours fits
	early   []byte  // what came along with CONNECT
	last    time.Time
	partial time.Time // since when a packet is incomplete, zero if none is
	armed   time.Time // the read deadline, zero if none

	routes   []route // topics used lately
	nextSlot int     // of routes, to be used anew
	aliases  []route // by topic alias - 1
	born     *sparkplug.Tables
	one      [1]holdfast.Sample
	qos2     map[uint16]bool // ids received and not released; true: taken from Receive Maximum here
	taken    int64           // of Receive Maximum, ever
	batch    Batch
	cur      *flight // acks of what is being read
	spending spending

	returned atomic.Int64 // to Receive Maximum, ever
	stopped  atomic.Bool  // nothing that has been read counts any more
	ended    atomic.Bool  // the session ends with it

	// Of connections that are polled.
	sock   *socket
	place  int32        // the poller's
	turn   atomic.Int32 // a turnState
	wakeAt atomic.Int64 // armed, for the sweep
	hungUp atomic.Bool  // nothing comes behind what has arrived

	mu        sync.Mutex
	cond      sync.Cond // out drained, a flight landed, over set, shut
	out       []byte    // to be written
	way       *outlet   // nil: it subscribes to nothing; set by the reader
	greeting  int       // bytes of CONNACK at the front of out
	writing   bool      // flush runs
	writeBy   time.Time // the write deadline
	connected bool      // CONNACK has been queued
	over      *ending   // why it ends, nil while it lives
	poller    *poller   // nil: it has a goroutine
	closing   bool      // nothing is appended any more; flush closes the socket
	broken    bool      // the socket can't be written
	shut      bool      // the socket is closed
	first     *flight   // oldest flight
	tail      *flight
	waiting   int // bytes in flights
}

// ending is why a connection ends.
type ending struct {
	code   reason
	text   string
	noWill bool // the client said goodbye, or has no say any more
	abrupt bool // the socket is of no use: nothing is said
	cut    bool // there is no time for a slow client
}

func (s *Server) newConn(nc net.Conn) *conn {
	c := &conn{s: s, nc: nc}
	c.cond.L = &c.mu
	c.problemInfo = true
	return c
}

// quit ends the connection after the acknowledgements on their way, which the
// reader waits for. The first reason counts.
func (c *conn) quit(e ending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quitLocked(e)
}

func (c *conn) quitLocked(e ending) {
	if c.over == nil {
		c.over = &e
		c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
		if c.poller != nil {
			c.poller.kick(c)
		}
	}
	c.cond.Broadcast()
}

// cut ends the connection at once; acknowledgements on their way are dropped.
func (c *conn) cut(e ending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.cut = true
	c.stopped.Store(true)
	c.quitLocked(e)
	c.over.cut = true
	c.closeLocked()
}

// closeLocked says goodbye and lets flush close the socket.
func (c *conn) closeLocked() {
	if c.closing {
		return
	}
	c.closing = true
	if c.connected && !c.over.abrupt {
		c.out = appendDisconnect(c.out, c.over.code, c.over.text, c.dialect)
	}
	if c.writing {
		c.nc.SetWriteDeadline(time.Now().Add(c.writeTimeLocked()))
	}
	c.kickLocked()
	c.cond.Broadcast()
}

// send appends to the out-buffer and waits while a client that doesn't read has
// filled it. Only the reader may call it.
func (c *conn) send(write func([]byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > maxOut && c.over == nil {
		c.cond.Wait()
	}
	if !c.closing {
		c.out = write(c.out)
		c.kickLocked()
	}
}

// kickLocked starts the writer if there is work and none runs. The caller holds
// c.mu and the connection has not finished, so the Server waits for it.
func (c *conn) kickLocked() {
	if !c.writing && !c.shut && (len(c.out) > 0 || c.closing) {
		c.writing = true
		if c.poller != nil {
			c.poller.writers.give(c)
		} else {
			go c.flush()
		}
	}
}

func (c *conn) writeTimeLocked() time.Duration {
	switch {
	case c.over != nil && c.over.cut:
		return 300 * time.Millisecond
	case c.closing:
		return time.Second
	}
	return c.s.o.WriteTimeout
}

// writeInTimeLocked sets the deadline of a write. One set lately will do: that
// saves a timer for each acknowledgement.
func (c *conn) writeInTimeLocked() {
	now, patience := time.Now(), c.writeTimeLocked()
	if !c.closing && c.writeBy.Sub(now) > patience/2 {
		return
	}
	c.writeBy = now.Add(patience)
	c.nc.SetWriteDeadline(c.writeBy)
}

// flush writes until the out-buffer is empty, and closes the socket if that is
// what is left to do.
func (c *conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 && !c.broken {
		b := c.out
		c.out = c.s.takeOut()
		c.greeting = 0
		c.writeInTimeLocked()
		c.mu.Unlock()
		n, err := c.nc.Write(b)
		c.s.m.bytesOut.Add(uint64(n))
		c.s.giveOut(b)
		c.mu.Lock()
		if err != nil {
			c.broken = true
			c.quitLocked(ending{abrupt: true})
			c.closing = true
		}
		if c.way != nil {
			c.way.stir()
		}
		c.cond.Broadcast()
	}
	if len(c.out) == 0 || c.broken {
		c.s.giveOut(c.out)
		c.out = nil
	}
	if c.closing && !c.shut {
		patience := linger
		switch {
		case c.broken || c.over.abrupt:
			patience = 0
		case c.over.cut:
			patience = linger / 3
		}
		c.mu.Unlock()
		c.hangUp(patience)
		c.mu.Lock()
		c.shut = true
	}
	c.writing = false
	c.cond.Broadcast()
}

// hangUp closes the socket, after the client has had a moment to read the last
// packet if there is patience for that.
func (c *conn) hangUp(patience time.Duration) {
	raw := c.nc
	if t, ok := c.nc.(*tls.Conn); ok {
		raw = t.NetConn()
		if patience > 0 {
			t.SetWriteDeadline(time.Now().Add(patience))
			t.CloseWrite()
		}
	}
	if w, ok := raw.(interface{ CloseWrite() error }); ok && patience > 0 {
		w.CloseWrite()
		var rest io.Reader = raw
		if s := socketOf(c.nc); s != nil {
			rest = s.TCPConn // which waits, polled or not
		}
		raw.SetReadDeadline(time.Now().Add(patience))
		io.Copy(io.Discard, io.LimitReader(rest, lingerBytes))
	}
	raw.Close()
}

// finish ends the connection for good: what is in flight lands, the goodbye is
// said, and the session is given back. It is called once, by the reader's
// goroutine, after which nothing of the connection runs.
func (c *conn) finish() {
	c.mu.Lock()
	if c.over == nil {
		c.over = &ending{abrupt: true}
	}
	if c.first != nil && !c.closing && !c.over.abrupt {
		t := time.AfterFunc(c.s.o.CommitGrace, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.closeLocked()
		})
		for c.first != nil && !c.closing {
			c.cond.Wait()
		}
		t.Stop()
	}
	c.closeLocked()
	for c.first != nil || c.writing || !c.shut {
		c.cond.Wait()
	}
	c.mu.Unlock()
	c.s.left(c)
}

// flight is the answers to the publishes of one read, on their way while the Gate
// makes them durable.
type flight struct {
	c        *conn
	acks     []byte
	units    int  // given back to Receive Maximum when the acks leave
	size     int  // bytes
	added    bool // the batch holds something
	held     bool // the batch begins the life of a packet id
	released bool // the batch ends one
	landed   bool
	err      error
	next     *flight
	land     func(error) // the method, bound once
}

// flight returns where the answers of the current read are collected.
func (c *conn) flight() *flight {
	if c.cur == nil {
		c.cur = c.s.takeFlight(c)
	}
	return c.cur
}

// commit sends what was read on its way.
func (c *conn) commit() {
	f, b := c.cur, c.batch
	c.cur, c.batch = nil, nil
	if f == nil {
		return
	}
	c.mu.Lock()
	if c.tail != nil && c.first != nil {
		c.tail.next = f
	} else {
		c.first = f
	}
	c.tail = f
	c.waiting += f.size
	added := f.added // f may be another's as soon as it has landed
	c.mu.Unlock()
	if added {
		b.Commit(f.land)
	} else {
		f.finish(nil)
	}
}

// finish is what the Gate calls when f is durable, or has failed. It never blocks.
func (f *flight) finish(err error) {
	c := f.c
	c.mu.Lock()
	defer c.mu.Unlock()
	f.landed, f.err = true, err
	for c.first != nil && c.first.landed { // acks leave in the order of the publishes
		g := c.first
		c.first = g.next
		c.waiting -= g.size
		switch {
		case c.closing:
		case g.err != nil:
			// What came later is not acknowledged either: a client resends in order.
			code, text := endOf(g.err)
			c.quitLocked(ending{code: code, text: text})
			c.closeLocked()
			c.s.failed(g.err)
		default:
			c.out = append(c.out, g.acks...)
			c.returned.Add(int64(g.units))
			c.kickLocked()
		}
		c.s.giveFlight(g)
	}
	c.cond.Broadcast()
}

// endOf is what a DISCONNECT says of err.
func endOf(err error) (reason, string) {
	_, code := reasonsOf(err)
	return code, toldText(err)
}
