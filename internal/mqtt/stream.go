package mqtt

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// stream is an open Subscription of the Source and whom it goes to: one connection,
// or the members of a shared subscription, each message to one of them.
//
// One goroutine takes messages and puts them into the out-buffers of connections, and
// waits while there is no room; what a slow client makes wait is this stream alone. A
// stream keeps what is not acknowledged, in the order in which it came: its mark
// moves over what is done from the front, so that a session which goes on elsewhere
// gets all behind it.
type stream struct {
	s      *Server
	filter string
	src    Subscription
	group  *group // of a shared one
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{} // holds a token when there may be room, or something was handed back
	once   sync.Once     // begin
	fed    chan *parcel  // of a shared one, from its feeder

	mu      sync.Mutex
	members []*subscriber
	turn    int       // of members, whose is next
	unsure  []*parcel // given by src and not done, in order; those done behind others, too
	again   []*parcel // handed back by members that left
	mark    string    // of what is done with all before it
	noted   time.Time // when mark was last noted
	closed  bool
	failed  error
}

func (s *Server) newStream(src Subscription, filter string, g *group, first *subscriber) *stream {
	st := &stream{s: s, filter: filter, src: src, group: g, wake: make(chan struct{}, 1), members: []*subscriber{first}, mark: src.Mark()}
	st.ctx, st.cancel = context.WithCancel(context.Background())
	if g != nil {
		st.fed = make(chan *parcel)
	}
	return st
}

// begin starts to deliver.
func (st *stream) begin() {
	defer st.stir() // one more member can be sent to
	st.once.Do(func() {
		st.s.wg.Add(1)
		go func() {
			defer st.s.wg.Done()
			st.run()
		}()
		if st.fed != nil {
			st.s.wg.Add(1)
			go func() {
				defer st.s.wg.Done()
				st.feed()
			}()
		}
	})
}

func (st *stream) stir() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

func (st *stream) run() {
	for {
		p, err := st.next()
		if err != nil {
			st.fail(err)
			return
		}
		if p != nil && !st.place(p) {
			return
		}
	}
}

// next is what is to be sent next: what was handed back, then what src gives. It is
// nil where only the mark moves.
func (st *stream) next() (*parcel, error) {
	if st.fed == nil {
		return st.take()
	}
	for {
		st.mu.Lock()
		if len(st.again) > 0 {
			p := st.again[0]
			st.again = slices.Delete(st.again, 0, 1)
			st.mu.Unlock()
			return p, nil
		}
		err := st.failed
		st.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case p := <-st.fed:
			if p != nil {
				return p, nil
			}
		case <-st.wake:
		case <-st.ctx.Done():
			return nil, st.ctx.Err()
		}
	}
}

// feed takes from the source of a shared stream, which hands back what members leave
// while it waits.
func (st *stream) feed() {
	for {
		p, err := st.take()
		if err != nil {
			st.mu.Lock()
			st.failed = err
			st.mu.Unlock()
			st.stir()
			return
		}
		select {
		case st.fed <- p:
		case <-st.ctx.Done():
			return
		}
	}
}

// take takes one message from the source.
func (st *stream) take() (*parcel, error) {
	m, err := st.src.Next(st.ctx)
	if err != nil {
		return nil, err
	}
	p := &parcel{Message: m, st: st, came: time.Now(), fresh: true}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.unsure = append(st.unsure, p)
	if m.Topic == "" {
		p.done = true
		st.moveLocked()
		return nil, nil
	}
	return p, nil
}

// place gives p to a member, and waits until one takes it. It reports false when the
// stream has ended.
func (st *stream) place(p *parcel) bool {
	for {
		if p.Expiry > 0 && time.Since(p.came) >= p.Expiry {
			st.s.m.expired.Add(1)
			st.passed(p)
			return true
		}
		members := st.order()
		for _, sub := range members {
			if st.compare(sub, p) {
				st.passed(p)
				return true
			}
			switch sub.c.offer(sub, p) {
			case taken:
				if p.qos > 0 {
					return true
				}
				if err := st.delivered(sub.c, p); err != nil {
					sub.c.cut(ending{code: serverBusy, text: toldText(err)})
				}
				return true
			case unfit: // as if it had been sent (MQTT-3.1.2-25)
				st.s.m.unfit.Add(1)
				st.passed(p)
				return true
			}
		}
		if !st.wait(members) {
			return false
		}
	}
}

// order returns the members, the one whose turn it is first.
func (st *stream) order() []*subscriber {
	st.mu.Lock()
	defer st.mu.Unlock()
	n := len(st.members)
	if n <= 1 {
		return st.members[:n:n]
	}
	st.turn++
	out := make([]*subscriber, 0, n)
	for i := range n {
		out = append(out, st.members[(st.turn+i)%n])
	}
	return out
}

// wait waits for room, and cuts members that have kept the stream waiting for too long
// without acknowledging anything.
func (st *stream) wait(members []*subscriber) bool {
	patience := time.NewTimer(st.s.o.SlowTimeout/4 + time.Millisecond)
	defer patience.Stop()
	select {
	case <-st.ctx.Done():
		return false
	case <-st.wake:
		return true
	case <-patience.C:
	}
	for _, sub := range members {
		sub.c.mu.Lock()
		since := sub.c.way.full
		sub.c.mu.Unlock()
		if !since.IsZero() && time.Since(since) >= st.s.o.SlowTimeout {
			st.s.m.slow.Add(1)
			sub.c.cut(ending{code: quotaExceeded, text: "messages were not acknowledged for too long"})
		}
	}
	return true
}

// delivered says that a client has p. An error is to end the client's connection.
func (st *stream) delivered(c *conn, p *parcel) error {
	ctx, cancel := context.WithTimeout(context.Background(), st.s.o.ConnectTimeout)
	defer cancel()
	if err := st.src.Done(ctx, p.Message); err != nil {
		if holdfast.KindOf(err) == holdfast.Internal || holdfast.KindOf(err) == holdfast.Unavailable {
			st.s.failed(err)
		}
		_, code := reasonsOf(err)
		return &fault{code, toldText(err)}
	}
	st.passed(p)
	return nil
}

// passed says that nothing is to be done about p any more.
func (st *stream) passed(p *parcel) {
	st.mu.Lock()
	defer st.mu.Unlock()
	p.done = true
	p.Payload = nil
	st.moveLocked()
}

// moveLocked moves the mark over what is done, and notes it now and then.
func (st *stream) moveLocked() {
	n := 0
	for n < len(st.unsure) && st.unsure[n].done {
		st.mark = st.unsure[n].Mark
		st.unsure[n] = nil
		n++
	}
	if n == 0 {
		return
	}
	st.unsure = st.unsure[n:]
	if len(st.unsure) == 0 {
		st.unsure = nil
	}
	if now := time.Now(); now.Sub(st.noted) >= noteEvery {
		st.noted = now
		for _, sub := range st.members {
			st.noteLocked(sub)
		}
	}
}

// handBack has p go to another member, if there is one.
func (st *stream) handBack(p *parcel) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if p.done || len(st.members) == 0 {
		return
	}
	p.id.Store(0) // it is another session's message now
	p.dup = false
	st.again = append(st.again, p)
	st.stir()
}

// leave takes a member out. The last one ends the stream.
func (st *stream) leave(sub *subscriber) {
	st.group.lock()
	defer st.group.unlock()
	st.mu.Lock()
	i := slices.Index(st.members, sub)
	if i < 0 {
		st.mu.Unlock()
		return
	}
	st.members = slices.Delete(slices.Clone(st.members), i, i+1)
	st.noteLocked(sub)
	last := len(st.members) == 0 && !st.closed
	st.closed = st.closed || last
	st.mu.Unlock()
	if !last {
		st.stir()
		return
	}
	st.group.end(st)
	st.cancel()
	if err := st.src.Close(); err != nil {
		st.s.log.Debug("mqtt: close subscription", "error", err)
	}
}

// fail ends the connections of a stream that has ended.
func (st *stream) fail(err error) {
	if st.ctx.Err() != nil {
		return
	}
	code := endOfStream(err)
	if code == quotaExceeded {
		st.s.m.slow.Add(1)
	}
	st.mu.Lock()
	st.failed = err // nobody joins it any more
	members := slices.Clone(st.members)
	st.mu.Unlock()
	if code == serverBusy {
		st.s.warnings.Do(func() { st.s.log.Warn("mqtt: a subscription broke off, its connections end", "error", err) })
	}
	for _, sub := range members {
		if code == notAuthorized {
			sub.c.withdraw(err)
		} else {
			sub.c.cut(ending{code: code, text: toldText(err)})
		}
	}
}
