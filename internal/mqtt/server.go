package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

// Authenticate says who is at the other end of a TLS connection. An error of kind
// Unavailable or Internal asks the device to come again, any other refuses it.
type Authenticate func(ctx context.Context, cs tls.ConnectionState) (Peer, error)

// Server serves MQTT on the listeners given to Run and the connections given to
// ServeConn.
type Server struct {
	o            Options
	log          *slog.Logger
	authenticate Authenticate
	gate         Gate
	sessions     SessionStore
	door         door
	registry     registry
	m            metrics
	large        *semaphore.Weighted
	buffers      sync.Pool // *buffer
	outs         sync.Pool // *[]byte
	flights      sync.Pool // *flight
	poller       *poller   // from the first connection on that can be polled; nil where there is none

	groupsMu sync.Mutex
	groups   map[groupKey]*group // shared subscriptions

	mu       sync.Mutex
	conns    map[*conn]struct{}
	stopping bool
	wg       sync.WaitGroup // connections, their admission, delayed wills
	refusals refusals
	warnings rate.Sometimes // of failures that all connections meet at once
}

// New makes a server; it does nothing before Run or ServeConn.
func New(authenticate Authenticate, gate Gate, sessions SessionStore, o Options) *Server {
	s := &Server{
		o:            o.withDefaults(),
		authenticate: authenticate,
		gate:         gate,
		sessions:     sessions,
		conns:        make(map[*conn]struct{}),
		groups:       make(map[groupKey]*group),
	}
	s.log = s.o.Logger
	s.warnings.Interval = time.Second
	s.door = door{o: &s.o, pending: make(map[peerID]int)}
	s.registry = registry{
		wg:     &s.wg,
		slots:  make(map[sessionKey]*slot),
		counts: make(map[peerID]int),
		wills:  make(map[peerID]int),
	}
	s.large = semaphore.NewWeighted(int64(s.o.MaxLargeBytes))
	s.buffers.New = func() any { return new(buffer) }
	return s
}

// Run accepts connections from ln, whose connections are *tls.Conn, with their
// handshake done if strangers are to be kept out by a lobby, until ctx ends. Then it closes ln, stops reading, waits for what is in flight, tells
// clients that the server is shutting down and returns when all its goroutines
// have ended. A server runs once.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	err := s.accept(ctx, ln)
	ln.Close()
	late := s.shutdown()
	if s.poller != nil {
		s.poller.close()
		if late == nil { // else a worker may wait for a commit, too
			s.poller.wg.Wait()
		}
	}
	return errors.Join(err, late)
}

func (s *Server) accept(ctx context.Context, ln net.Listener) error {
	var pause time.Duration
	for {
		nc, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept mqtt connections: %w", err)
		}
		if err != nil { // out of file descriptors, mostly: others will end
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("mqtt: accept failed", "error", err, "again_in", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		if !s.door.enter() {
			s.m.refused[tooMany].Add(1)
			abandon(nc)
			continue
		}
		sock := socketOf(nc)
		if sock != nil && s.poller == nil {
			s.poller = startPoller(ctx, s)
		}
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			c := s.newConn(nc)
			if !c.admit(ctx, nil) {
				c.finish()
				return
			}
			s.wg.Add(1)
			if sock != nil && s.poller.take(c, sock) {
				return
			}
			// The handshake has grown this goroutine's stack; the reader, which may
			// live for years, gets a fresh one.
			go func() {
				defer s.wg.Done()
				c.run(ctx)
			}()
		}()
	}
}

// socketOf is the socket that can be polled under a TLS connection, nil if that
// has another.
func socketOf(nc net.Conn) *socket {
	t, ok := nc.(*tls.Conn)
	if !ok {
		return nil
	}
	raw := t.NetConn()
	if u, ok := raw.(interface{ NetConn() net.Conn }); ok { // a lobby's
		raw = u.NetConn()
	}
	s, _ := raw.(*socket)
	return s
}

// abandon closes a socket without a TLS goodbye, which could block.
func abandon(nc net.Conn) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	nc.Close()
}

// ServeConn serves one connection whose TLS has been done elsewhere, as under an
// HTTP upgrade, and returns when it has ended. A read of nc that has reached its
// deadline must be repeatable. The end of ctx ends the connection like a shutdown.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn, cs tls.ConnectionState) {
	if !s.door.enter() {
		s.m.refused[tooMany].Add(1)
		nc.Close()
		return
	}
	c := s.newConn(nc)
	stop := context.AfterFunc(ctx, func() { c.quit(ending{code: shuttingDown, noWill: true}) })
	defer stop()
	if c.admit(ctx, &cs) {
		c.run(ctx)
	} else {
		c.finish()
	}
}

// shutdown ends all connections.
func (s *Server) shutdown() error {
	s.registry.close()
	s.mu.Lock()
	s.stopping = true
	for c := range s.conns {
		c.quit(ending{code: shuttingDown, noWill: true})
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(ended)
	}()
	grace := time.NewTimer(s.o.ShutdownGrace)
	defer grace.Stop()
	select {
	case <-ended:
		return nil
	case <-grace.C:
	}
	s.mu.Lock()
	for c := range s.conns {
		c.cut(ending{code: shuttingDown, noWill: true})
	}
	s.mu.Unlock()
	grace.Reset(s.o.ShutdownGrace)
	select {
	case <-ended:
		return nil
	case <-grace.C:
		return holdfast.Errorf(holdfast.Internal, "shut down mqtt: connections still wait for their commits after %s", 2*s.o.ShutdownGrace)
	}
}

// joined notes c among the connections, unless the server is shutting down.
func (s *Server) joined(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

// Pools. An idle connection holds nothing of them.

func (s *Server) takeOut() []byte {
	if b, ok := s.outs.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return nil
}

func (s *Server) giveOut(b []byte) {
	if cap(b) > 0 && cap(b) <= 2*maxOut {
		s.outs.Put(&b)
	}
}

func (s *Server) takeFlight(c *conn) *flight {
	f, ok := s.flights.Get().(*flight)
	if !ok {
		f = &flight{}
		f.land = f.finish
	}
	f.c = c
	return f
}

func (s *Server) giveFlight(f *flight) {
	*f = flight{acks: f.acks[:0], land: f.land}
	s.flights.Put(f)
}
