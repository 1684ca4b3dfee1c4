package mqtt

import (
	"errors"
	"os"
	"time"
)

// heard is why a turn ends without an error.
type heard int

const (
	hasAll   heard = iota // there is nothing more to read
	hasMore               // others should have their turn first
	tooLarge              // a packet does not fit the turn's buffer
)

// hear is the counterpart of loop for polled connections: it handles what has
// arrived, with buf, and keeps the beginning of a packet that has not.
func (c *conn) hear(buf []byte) (heard, error) {
	now := time.Now()
	if c.isOver() {
		return hasAll, errOver
	}
	if !c.armed.IsZero() && !now.Before(c.armed) {
		if err := c.due(now); err != nil {
			return hasAll, err
		}
	}
	n := copy(buf, c.early)
	began := n > 0 && !c.partial.IsZero() // buf begins with what an earlier turn left
	if fresh := n > 0 && !began; fresh {  // it came along with CONNECT
		rest, need, err := c.consume(buf[:n])
		if err != nil {
			return hasAll, err
		}
		if need > len(buf) {
			return c.keep(rest, false, tooLarge)
		}
		n = copy(buf, rest)
	}
	c.early = nil
	for range turnReads {
		m, err := c.nc.Read(buf[n:])
		switch {
		case m > 0:
		case err == nil:
			continue
		case errors.Is(err, again{}):
			return c.keep(buf[:n], began, hasAll)
		case errors.Is(err, os.ErrDeadlineExceeded): // quit was called
			return hasAll, errOver
		default:
			return hasAll, err
		}
		c.last = now
		c.s.m.bytesIn.Add(uint64(m))
		if !c.peer.NotAfter.IsZero() && now.After(c.peer.NotAfter) {
			return hasAll, c.expired()
		}
		rest, need, err := c.consume(buf[:n+m])
		if err != nil {
			return hasAll, err
		}
		began = began && len(rest) == n+m
		if need > len(buf) {
			return c.keep(rest, began, tooLarge)
		}
		n = copy(buf, rest)
	}
	return c.keep(buf[:n], began, hasMore)
}

// keep keeps the beginning of a packet for the next turn. began says that an
// earlier turn has begun to count its time.
func (c *conn) keep(rest []byte, began bool, h heard) (heard, error) {
	switch {
	case len(rest) == 0:
		c.partial = time.Time{}
		return h, nil
	case !began:
		c.begin()
	}
	c.early = append([]byte(nil), rest...)
	return h, nil
}

func (c *conn) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over != nil
}
