package simtest

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Network is a network in memory. What is sent arrives at once and in order, until
// the network is cut.
type Network struct {
	mu        sync.Mutex
	listeners map[int]*listener
	conns     map[*conn]bool
	port      int
	dead      bool
}

// NewNetwork makes one without anybody on it.
func NewNetwork() *Network {
	return &Network{listeners: map[int]*listener{}, conns: map[*conn]bool{}, port: 40000}
}

// Listen takes a port.
func (n *Network) Listen(network, address string) (net.Listener, error) {
	a, err := net.ResolveTCPAddr(network, address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dead || n.listeners[a.Port] != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: a, Err: syscall.EADDRINUSE}
	}
	l := &listener{network: n, addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: a.Port}, accepts: make(chan net.Conn, 64), closed: make(chan struct{})}
	n.listeners[a.Port] = l
	return l, nil
}

// Dial connects to a port.
func (n *Network) Dial(_ context.Context, port int) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[port]
	if l == nil || n.dead {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	n.port++
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: n.port}
	there, back := newStream(), newStream()
	client := &conn{network: n, in: back, out: there, local: from, remote: l.addr}
	server := &conn{network: n, in: there, out: back, local: l.addr, remote: from}
	n.conns[client], n.conns[server] = true, true
	l.accepts <- server
	return client, nil
}

// Cut ends every connection and listener for good.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead = true
	for c := range n.conns {
		c.in.end(syscall.ECONNRESET)
		c.out.end(syscall.ECONNRESET)
	}
}

type listener struct {
	network *Network
	addr    *net.TCPAddr
	accepts chan net.Conn
	closed  chan struct{}
	close   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepts:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) Close() error {
	l.close.Do(func() {
		l.network.mu.Lock()
		delete(l.network.listeners, l.addr.Port)
		l.network.mu.Unlock()
		close(l.closed)
		for { // nobody takes them any more
			select {
			case c := <-l.accepts:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// stream is one direction of a connection.
type stream struct {
	mu       sync.Mutex
	changed  *sync.Cond
	data     []byte
	ended    error // what follows the data; nil: more may come
	deadline time.Time
	timer    *time.Timer
}

func newStream() *stream {
	s := &stream{}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case !s.deadline.IsZero() && !time.Now().Before(s.deadline):
			return 0, os.ErrDeadlineExceeded
		case len(s.data) > 0:
			n := copy(p, s.data)
			s.data = s.data[n:]
			return n, nil
		case s.ended != nil:
			return 0, s.ended
		case len(p) == 0:
			return 0, nil
		}
		s.changed.Wait()
	}
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return 0, syscall.EPIPE
	}
	s.data = append(s.data, p...)
	s.changed.Broadcast()
	return len(p), nil
}

func (s *stream) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = why
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	s.changed.Broadcast()
}

func (s *stream) setDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.deadline = t
	if wait := time.Until(t); !t.IsZero() && wait > 0 && s.ended == nil {
		s.timer = time.AfterFunc(wait, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.changed.Broadcast()
		})
	}
	s.changed.Broadcast()
}

// conn is one end of a connection.
type conn struct {
	network       *Network
	in, out       *stream
	local, remote net.Addr
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

// CloseWrite ends one direction.
func (c *conn) CloseWrite() error {
	c.out.end(io.EOF)
	return nil
}

func (c *conn) Close() error {
	c.out.end(io.EOF)
	c.in.end(net.ErrClosed)
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	delete(c.network.conns, c)
	return nil
}

func (c *conn) SetDeadline(t time.Time) error      { c.in.setDeadline(t); return nil }
func (c *conn) SetReadDeadline(t time.Time) error  { c.in.setDeadline(t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { return nil }
