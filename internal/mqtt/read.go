package mqtt

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// bufferSize is what a connection borrows while it reads: it holds dozens of
// publishes, and larger packets are rare.
const bufferSize = 8 << 10

type buffer [bufferSize]byte

// errOver: the connection has been ended from elsewhere, over says why.
var errOver = errors.New("the connection is over")

// run reads until the connection ends, and ends it.
func (c *conn) run(ctx context.Context) {
	c.end(c.loop(ctx))
	c.finish()
}

// end notes why the reader stopped.
func (c *conn) end(err error) {
	var f *fault
	switch {
	case errors.As(err, &f):
		c.quit(ending{code: f.code, text: f.text})
	case errors.Is(err, io.EOF): // it may still be reading
		c.quit(ending{})
	default:
		c.quit(ending{abrupt: true})
	}
}

// loop alternates between silence, in which no buffer is held, and reading.
func (c *conn) loop(ctx context.Context) error {
	if early := c.early; early != nil {
		c.early = nil
		rest, need, err := c.consume(early)
		if err == nil && len(rest) > 0 {
			err = c.more(ctx, rest, need)
		}
		if err != nil {
			return err
		}
	}
	for {
		n, err := c.read(c.head[:])
		if err != nil {
			return err
		}
		rest, need, err := c.consume(c.head[:n])
		if err == nil && len(rest) > 0 {
			err = c.more(ctx, rest, need)
		}
		if err != nil {
			return err
		}
	}
}

// more reads until a packet ends where a read ends. rest is the beginning of a
// packet of need bytes, 0 if that isn't known yet.
func (c *conn) more(ctx context.Context, rest []byte, need int) error {
	buf := c.s.buffers.Get().(*buffer)
	defer c.s.buffers.Put(buf)
	c.begin()
	n := 0
	for {
		if need > len(buf) && len(rest) == len(buf) {
			if err := c.large(ctx, rest, need); err != nil {
				return err
			}
			break
		}
		n = copy(buf[:], rest)
		m, err := c.read(buf[n:])
		if err != nil {
			return err
		}
		before := n + m
		if rest, need, err = c.consume(buf[:before]); err != nil {
			return err
		}
		if len(rest) == 0 {
			break
		}
		if len(rest) < before {
			c.begin() // another packet's time
		}
	}
	c.partial = time.Time{}
	return nil
}

// begin notes that a packet is incomplete, and sees to being woken in time.
func (c *conn) begin() {
	c.partial = c.last
	if due := c.partial.Add(c.s.o.PacketTimeout); c.armed.IsZero() || c.armed.After(due) {
		c.arm(due)
	}
}

// large reads one packet that doesn't fit the borrowed buffer and has filled it,
// when the server has room for it. The room is taken whole, so that no two packets
// wait for each other.
func (c *conn) large(ctx context.Context, rest []byte, need int) error {
	wait, cancel := context.WithTimeout(ctx, c.s.o.PacketTimeout)
	defer cancel()
	if c.s.large.Acquire(wait, int64(need)) != nil {
		if ctx.Err() != nil {
			return errOver
		}
		return &fault{serverBusy, "too many large packets at once"}
	}
	defer c.s.large.Release(int64(need))
	p := make([]byte, need)
	c.last = time.Now()
	c.begin()
	for n := copy(p, rest); n < need; {
		m, err := c.read(p[n:])
		if err != nil {
			return err
		}
		n += m
	}
	_, _, err := c.consume(p)
	return err
}

// read is one read of the socket. Deadlines are set rarely: one that has passed
// only makes it look whether anything is due.
func (c *conn) read(p []byte) (int, error) {
	for {
		n, err := c.nc.Read(p)
		if n > 0 {
			c.last = time.Now()
			c.s.m.bytesIn.Add(uint64(n))
			if !c.peer.NotAfter.IsZero() && c.last.After(c.peer.NotAfter) {
				return 0, c.expired()
			}
			return n, nil
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		if err := c.due(time.Now()); err != nil {
			return 0, err
		}
	}
}

// due looks what the passing of time has brought, and sets the next deadline.
func (c *conn) due(now time.Time) error {
	var next time.Time
	passed := func(t time.Time) bool {
		if !now.Before(t) {
			return true
		}
		if next.IsZero() || t.Before(next) {
			next = t
		}
		return false
	}
	switch {
	case !c.peer.NotAfter.IsZero() && passed(c.peer.NotAfter):
		return c.expired()
	case c.keepAlive > 0 && passed(c.last.Add(c.keepAlive)):
		return &fault{keepAliveTimeout, "nothing was heard for one and a half times the keep-alive"}
	case !c.partial.IsZero() && passed(c.partial.Add(c.s.o.PacketTimeout)):
		return &fault{protocolError, "a packet took too long to arrive"}
	}
	if !c.arm(next) {
		return errOver
	}
	return nil
}

func (c *conn) expired() error {
	c.quit(ending{code: notAuthorized, text: "the certificate has expired", noWill: true})
	return errOver
}

// arm sets the read deadline unless the connection is over.
func (c *conn) arm(t time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over != nil {
		return false
	}
	c.armed = t
	if c.poller != nil {
		c.wakeAt.Store(unixNano(t))
		return true
	}
	c.nc.SetReadDeadline(t)
	return true
}

// consume handles the complete packets at the start of b and commits them as one
// batch. It returns the beginning of the next packet and how long that will be.
func (c *conn) consume(b []byte) (rest []byte, need int, err error) {
	all := len(b)
	publishes := 0
	c.spending.begin(c.last, c.s.o.MaxPause)
	for len(b) > 0 {
		var header, total int
		if header, total, err = frame(b, c.s.o.MaxPacket, c.version); err != nil {
			break
		}
		if total == 0 || total > len(b) {
			need = total
			break
		}
		if c.stopped.Load() {
			err = errOver
			break
		}
		if b[0]>>4 == typePublish {
			publishes++
			err = c.onPublish(b[0], b[header:total])
		} else {
			err = c.onRare(b[0], b[header:total])
		}
		if err != nil {
			break
		}
		b = b[total:]
	}
	c.s.m.received[typePublish].Add(uint64(publishes))
	c.commit()
	if err != nil {
		return nil, 0, err
	}
	c.pace(all - len(b))
	return b, need, nil
}

// wait waits until ready, the time t (zero: for ever) or the connection's end.
// ready is called with c.mu held.
func (c *conn) wait(t time.Time, ready func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	passed := false
	if !t.IsZero() {
		defer time.AfterFunc(time.Until(t), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			passed = true
			c.cond.Broadcast()
		}).Stop()
	}
	for !passed && c.over == nil && !ready() {
		c.cond.Wait()
	}
}

// unixNano is t for the sweep: 0 is never.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
