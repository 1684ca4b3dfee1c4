package lobby

import (
	"net/netip"
	"runtime"
	"sync"
)

// Turns are how many handshakes are computed at once; all ports of a process share
// them. One is held only while there is something to compute, never while the
// other end is waited for.
type Turns struct {
	mu   sync.Mutex
	free int
	// Who has begun is served first: what was computed for him would be lost.
	begun, fresh line
}

// NewTurns returns n turns, one for each processor if n is 0.
func NewTurns(n int) *Turns {
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	return &Turns{free: n, begun: newLine(), fresh: newLine()}
}

// take waits for a turn. granted is the caller's own, empty, with room for one.
func (t *Turns) take(from netip.Addr, begun bool, granted chan struct{}) {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return
	}
	if begun {
		t.begun.push(from, granted)
	} else {
		t.fresh.push(from, granted)
	}
	t.mu.Unlock()
	<-granted
}

// give hands a turn on.
func (t *Turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.begun.pop()
	if next == nil {
		next = t.fresh.pop()
	}
	if next == nil {
		t.free++
		return
	}
	next <- struct{}{}
}

// line is a queue in which addresses take turns. It holds no more than connections
// that are in a lobby.
type line struct {
	of    map[netip.Addr]*queue
	order []*queue // not empty, each once
}

type queue struct {
	from    netip.Addr
	waiting []chan struct{}
}

func newLine() line { return line{of: make(map[netip.Addr]*queue)} }

func (l *line) push(from netip.Addr, w chan struct{}) {
	q := l.of[from]
	if q == nil {
		q = &queue{from: from}
		l.of[from] = q
		l.order = append(l.order, q)
	}
	q.waiting = append(q.waiting, w)
}

func (l *line) pop() chan struct{} {
	if len(l.order) == 0 {
		return nil
	}
	q := l.order[0]
	l.order[0] = nil
	l.order = l.order[1:]
	w := q.waiting[0]
	q.waiting[0] = nil
	if q.waiting = q.waiting[1:]; len(q.waiting) > 0 {
		l.order = append(l.order, q)
	} else {
		delete(l.of, q.from)
	}
	return w
}
