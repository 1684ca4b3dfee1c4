package lobby

import (
	"cmp"
	"crypto/tls"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Options bound a port. The zero value of each field means the default that stands
// beside it.
type Options struct {
	Logger *slog.Logger // nothing is logged

	MaxOpen    int // 20,000 connections, those in the lobby included
	MaxPending int // 4,096 in the lobby, or half of MaxOpen if that is less

	PerSecond float64 // 1,000 new connections of one address; negative: no limit
	Burst     int     // ten times as many at once

	// Timeout is how long the other end may keep the hub waiting until the
	// handshake is done, all in all; 10 s.
	Timeout time.Duration
	// Patience is how long somebody who has said nothing is waited for when others
	// want his place; 1 s. One who has begun has three times as much, one from a
	// known address four times, one from an address with more than its share a
	// quarter if he is silent.
	Patience time.Duration

	Turns *Turns // of its own
	// Known says that the other end has shown who it is; nil: nobody does.
	Known func(tls.ConnectionState) bool
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.MaxOpen = cmp.Or(o.MaxOpen, 20_000)
	o.MaxPending = cmp.Or(o.MaxPending, min(4096, max(1, o.MaxOpen/2)))
	o.PerSecond = cmp.Or(o.PerSecond, 1000)
	if o.PerSecond < 0 {
		o.PerSecond = math.Inf(1)
	}
	o.Burst = cmp.Or(o.Burst, int(max(1, min(10*o.PerSecond, math.MaxInt32))))
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.Patience = cmp.Or(o.Patience, time.Second)
	if o.Turns == nil {
		o.Turns = NewTurns(0)
	}
	return o
}

// Lobby is a net.Listener whose connections are *tls.Conn with their handshake
// behind them.
type Lobby struct {
	o       Options
	inner   net.Listener
	config  *tls.Config
	buffers sync.Pool     // *[readAhead]byte
	ready   chan net.Conn // handshakes done
	changed chan struct{} // holds a token when a place became free
	closed  chan struct{}
	close   sync.Once
	wg      sync.WaitGroup
	failure error // of Accept, set before closed is closed
	refused [reasons]atomic.Uint64
	admits  atomic.Uint64

	mu     sync.Mutex
	open   int
	guests map[*guest]struct{} // in the lobby
	places map[netip.Addr]*place
	swept  time.Time

	warnings rate.Sometimes
}

// Listen opens a lobby in front of ln. Close ends it, ln included, and waits until
// nobody is in it; connections inside go on.
func Listen(ln net.Listener, config *tls.Config, o Options) *Lobby {
	l := &Lobby{
		o: o.withDefaults(), inner: ln, config: config,
		ready: make(chan net.Conn), changed: make(chan struct{}, 1), closed: make(chan struct{}),
		guests: make(map[*guest]struct{}), places: make(map[netip.Addr]*place),
	}
	l.warnings.Interval = 10 * time.Second
	l.wg.Go(l.run)
	return l
}

// Addr is the address of the port.
func (l *Lobby) Addr() net.Addr { return l.inner.Addr() }

// Accept returns the next connection that is inside.
func (l *Lobby) Accept() (net.Conn, error) {
	select {
	case nc := <-l.ready:
		return nc, nil
	case <-l.closed:
		return nil, l.failure
	}
}

// Close ends the lobby.
func (l *Lobby) Close() error {
	err := l.end(net.ErrClosed)
	l.wg.Wait()
	return err
}

func (l *Lobby) end(why error) (err error) {
	l.close.Do(func() {
		l.failure = why
		close(l.closed)
		err = l.inner.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		for g := range l.guests {
			g.Conn.Close()
		}
	})
	return err
}

func (l *Lobby) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// run takes sockets from the kernel.
func (l *Lobby) run() {
	var pause time.Duration
	for {
		nc, err := l.inner.Accept()
		switch {
		case err == nil:
			pause = 0
			if g := l.enter(nc); g != nil {
				l.wg.Go(func() { l.receive(g) })
			}
		case l.isClosed() || errors.Is(err, net.ErrClosed):
			l.end(err)
			return
		default: // out of files, mostly: others will end
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.o.Logger.Warn("lobby: accept failed", "error", err, "again_in", pause)
			if !l.pause(pause) {
				return
			}
		}
	}
}

// pause waits, or until a place becomes free; false: the lobby closes.
func (l *Lobby) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.changed:
	case <-l.closed:
		return false
	}
	return true
}

// receive brings a guest in, or sees him off.
func (l *Lobby) receive(g *guest) {
	t, err := g.shake(l.config)
	if err != nil {
		if why := g.reasonOf(err); why != 0 {
			l.refused[why].Add(1)
			l.o.Logger.Debug("lobby: handshake failed", "reason", reasonNames[why], "error", err)
		}
		g.Close()
		return
	}
	state := t.ConnectionState()
	if !l.admitted(g, l.o.Known != nil && l.o.Known(state)) {
		g.Close()
		return
	}
	g.settle()
	select {
	case l.ready <- t:
		l.admits.Add(1)
	case <-l.closed:
		g.Close()
	}
}
