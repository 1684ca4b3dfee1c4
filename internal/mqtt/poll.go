package mqtt

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// poller reads many connections with few goroutines: a connection that says
// nothing has neither goroutine nor stack, and of a busy server each wake-up finds
// many that have something.
//
// A connection with input gets a turn: it is read until there is nothing more, by
// one of the workers, or by a goroutine of its own where it is woken otherwise.
// Turns of one connection never overlap. A turn may block, on the catalog or the
// journal or to slow the client down; then more workers are started.
type poller struct {
	s     *Server
	ctx   context.Context
	epoll *epoll
	wg    sync.WaitGroup
	work  chan struct{} // holds a token when workers have something to do
	ended chan struct{}

	writers *writers

	mu      sync.Mutex
	slots   []slotted
	taken   int // connections, ever
	free    []int32
	queue   []*conn // those whose turn it is
	head    int     // of queue
	workers int
	waiting int    // workers that wait for events
	begun   uint64 // turns of workers
	closed  bool
}

// slotted is a place for a connection. life tells the events of the one that is
// there from those of one that was.
type slotted struct {
	c    *conn
	life int32
}

// turnState is where a connection's turn is.
const (
	resting   int32 = iota
	queued          // it will have a turn
	turning         // it has it
	turnAgain       // something came meanwhile: it looks again
	turned          // it is not polled any more
)

const (
	// turnReads is how often a turn reads before it lets others have theirs.
	turnReads = 16
	// stall is how long no turn may begin while connections wait, before one more
	// worker is started.
	stall = 2 * time.Millisecond
	// sweepEvery is how often deadlines of silent connections are looked at.
	sweepEvery = time.Second
)

// startPoller returns nil where there is no epoll; of that, take says no.
func startPoller(ctx context.Context, s *Server) *poller {
	e, err := openEpoll()
	if err != nil {
		return nil
	}
	p := &poller{s: s, ctx: ctx, epoll: e, work: make(chan struct{}, 1), ended: make(chan struct{})}
	p.mu.Lock()
	for range p.wanted() {
		p.hireLocked()
	}
	p.mu.Unlock()
	p.writers = newWriters(&p.wg, p.wanted(), p.work)
	p.wg.Go(p.watch)
	p.wg.Go(p.sweep)
	return p
}

// wanted is how many workers there are while none blocks.
func (p *poller) wanted() int { return max(runtime.GOMAXPROCS(0), 2) }

// close ends the workers, wg says when they have.
func (p *poller) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	close(p.ended)
	p.writers.close()
	p.epoll.close()
}

// take polls c from now on, and gives it its first turn. It reports false if c
// must have a goroutine.
func (p *poller) take(c *conn, sock *socket) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	var at int32
	if n := len(p.free); n > 0 {
		at = p.free[n-1]
		p.free = p.free[:n-1]
	} else {
		at = int32(len(p.slots))
		p.slots = append(p.slots, slotted{})
	}
	p.slots[at].c = c
	p.taken++
	t := ticket{at, p.slots[at].life}
	p.mu.Unlock()
	c.sock, c.place = sock, at
	sock.polled = true
	c.turn.Store(queued)
	if p.epoll.add(sock, t) != nil {
		sock.polled = false
		p.drop(c)
		return false
	}
	c.mu.Lock()
	c.poller = p
	if c.over == nil { // else the deadline is what ends it
		c.nc.SetReadDeadline(time.Time{})
		c.wakeAt.Store(unixNano(c.armed))
	}
	c.mu.Unlock()
	p.alone(c) // what came with CONNECT, or with its TLS record, makes no event
	return true
}

// drop forgets c; its events are nobody's.
func (p *poller) drop(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots[c.place].c = nil
	p.slots[c.place].life++
	p.free = append(p.free, c.place)
}

// callTurn reports whether c is to be given a turn by the caller; else it rests no
// longer and will look itself.
func (c *conn) callTurn() bool {
	for {
		switch c.turn.Load() {
		case resting:
			if c.turn.CompareAndSwap(resting, queued) {
				return true
			}
		case turning:
			if c.turn.CompareAndSwap(turning, turnAgain) {
				return false
			}
		default:
			return false
		}
	}
}

// kick gives c a turn for another reason than input. The caller holds c.mu, or
// knows that c has not finished.
func (p *poller) kick(c *conn) {
	if !c.callTurn() {
		return
	}
	p.s.wg.Add(1)
	go func() {
		defer p.s.wg.Done()
		p.alone(c)
	}()
}

// alone is a turn outside the workers.
func (p *poller) alone(c *conn) {
	b := p.s.buffers.Get().(*buffer)
	defer p.s.buffers.Put(b)
	for p.serve(c, b[:]) {
		runtime.Gosched()
	}
}

// serve gives c its turn. It reports true if c has more than one turn's worth.
func (p *poller) serve(c *conn, buf []byte) (more bool) {
	for {
		c.turn.Store(turning)
		c.sock.drained, c.sock.last = false, c.hungUp.Load()
		what, err := c.hear(buf)
		switch {
		case err != nil:
			p.release(c)
			p.leave(c, err)
			return false
		case what == tooLarge:
			p.release(c)
			if err := c.due(time.Now()); err != nil { // a goroutine is woken by its deadline
				p.leave(c, err)
				return false
			}
			go func() {
				defer p.s.wg.Done()
				c.run(p.ctx)
			}()
			return false
		case what == hasMore:
			c.turn.Store(queued)
			return true
		}
		if c.turn.CompareAndSwap(turning, resting) {
			return false
		}
	}
}

// leave ends c for err. What is in flight may take its time to land.
func (p *poller) leave(c *conn, err error) {
	c.end(err)
	go func() {
		defer p.s.wg.Done()
		c.finish()
	}()
}

// release ends the polling of c, whose turn it is.
func (p *poller) release(c *conn) {
	c.turn.Store(turned)
	c.mu.Lock()
	c.poller = nil
	c.mu.Unlock()
	p.epoll.remove(c.sock) // fails for one that is closed, which is as good
	p.drop(c)
	c.sock.polled = false
}

// hireLocked starts a worker.
func (p *poller) hireLocked() {
	p.workers++
	p.wg.Go(func() {
		catch := p.epoll.catch()
		buf := make([]byte, bufferSize)
		for c := p.next(catch); c != nil; c = p.next(catch) {
			if p.serve(c, buf) {
				p.mu.Lock()
				p.queue = append(p.queue, c)
				p.mu.Unlock()
			}
		}
	})
}

// next is the connection whose turn it is. A worker finds nil when there are
// workers enough.
func (p *poller) next(catch *catch) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if p.head < len(p.queue) {
			c := p.queue[p.head]
			p.queue[p.head] = nil
			if p.head++; p.head == len(p.queue) {
				p.queue, p.head = p.queue[:0], 0
			}
			p.begun++
			return c
		}
		if p.closed || p.waiting > 0 && p.workers > p.wanted() {
			p.workers--
			return nil
		}
		p.waiting++
		p.mu.Unlock()
		ok := catch.wait(p.arrived)
		p.mu.Lock()
		p.waiting--
		if !ok {
			p.workers--
			return nil
		}
	}
}

// arrived queues the connection of an event; last says that it is its last.
func (p *poller) arrived(t ticket, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.slots[t.slot]
	if s.c == nil || s.life != t.life {
		return
	}
	if last { // before the turn is called, which may be one that is to come in any case
		s.c.hungUp.Store(true)
	}
	if s.c.callTurn() {
		p.queue = append(p.queue, s.c)
		select {
		case p.work <- struct{}{}:
		default:
		}
	}
}

// watch starts workers where all that there are block.
func (p *poller) watch() {
	tick := time.NewTimer(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-p.work:
		case <-p.ended:
			return
		}
		for last, busy := uint64(0), true; busy; {
			tick.Reset(stall)
			select {
			case <-tick.C:
			case <-p.ended:
				return
			}
			p.mu.Lock()
			left := len(p.queue) - p.head
			busy = left > 0 || p.waiting == 0
			if busy && p.begun == last && p.workers < p.s.o.MaxConnections {
				p.hireLocked()
			}
			last = p.begun
			p.mu.Unlock()
			busy = p.writers.look(p.s.o.MaxConnections) || busy
		}
	}
}

// lull notices that a storm of connections is over.
type lull struct{ last, freed int }

const (
	// stormy is how many connections are worth to clean up after.
	stormy = 500
	// calm is how many in the time between two looks are none to wait for.
	calm = 5
)

// after is told at regular times how many connections there have been. It reports
// true once after a storm.
func (l *lull) after(taken int) bool {
	over := taken-l.last <= calm && taken-l.freed >= stormy
	if l.last = taken; over {
		l.freed = taken
	}
	return over
}

// sweep wakes silent connections whose time has come: a timer for each would be
// most of what an idle one costs.
func (p *poller) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	due := make([]*conn, 0, 256)
	var lull lull
	for {
		select {
		case <-tick.C:
		case <-p.ended:
			return
		}
		p.mu.Lock()
		taken := p.taken
		p.mu.Unlock()
		if lull.after(taken) {
			// A storm of handshakes leaves several times the memory behind that its
			// connections keep, and a quiet hub would give it back in its own good time.
			debug.FreeOSMemory()
		}
		now := time.Now().UnixNano()
		for at, all := 0, 1; at < all; {
			due = due[:0]
			p.mu.Lock()
			all = len(p.slots)
			for end := min(at+256, all); at < end; at++ {
				if c := p.slots[at].c; c != nil {
					if t := c.wakeAt.Load(); t != 0 && t <= now {
						due = append(due, c)
					}
				}
			}
			for _, c := range due { // under mu, so that none is dropped and finishes meanwhile
				p.kick(c)
			}
			p.mu.Unlock()
		}
	}
}
