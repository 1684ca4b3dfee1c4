package journal

import (
	"sync"
	"time"
)

// pending is a record on its way to the disk, or a wish to end the segment.
type pending struct {
	data []byte
	done func(Pos, error)
	pos  Pos
	err  error // it was refused on arrival; told in its turn
	cut  bool  // no record: end the segment here
}

// deepQueue is how many waiting records are company enough not to linger.
const deepQueue = 64

// queue holds the records that wait for the committer, which alone takes.
type queue struct {
	mu     sync.Mutex
	room   sync.Cond // signalled when bytes fell below limit, and at close
	items  []pending
	spent  []pending // the last slice taken, to be used again
	bytes  int       // of records not yet answered, those taken included
	limit  int
	closed bool
	wake   chan struct{} // holds a token when the committer has a reason to look
}

func newQueue(limit int) *queue {
	q := &queue{limit: limit, wake: make(chan struct{}, 1)}
	q.room.L = &q.mu
	return q
}

// push adds p, waiting while the queue is full. It reports false if the queue is
// closed. Waiters are let in one by one, so that a thousand of them don't
// wake for each commit; each passes the signal on while there is room.
func (q *queue) push(p pending) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.bytes >= q.limit && !q.closed {
		q.room.Wait()
	}
	if q.closed {
		return false
	}
	q.items = append(q.items, p)
	q.bytes += len(p.data)
	if n := len(q.items); n == 1 || n == deepQueue+1 || p.cut || q.bytes >= groupLimit {
		q.rouse()
	}
	if q.bytes < q.limit {
		q.room.Signal()
	}
	return true
}

func (q *queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// ready reports whether what waits should be committed without lingering.
func (q *queue) ready() bool {
	return q.closed || len(q.items) > deepQueue || q.bytes >= groupLimit || len(q.items) > 0 && q.items[len(q.items)-1].cut
}

// take waits for records, lingers for more if there are few, and returns all that
// wait. It reports false when the queue is closed: what it returns is the last.
func (q *queue) take(linger time.Duration) ([]pending, bool) {
	q.mu.Lock()
	for len(q.items) == 0 && !q.closed {
		q.mu.Unlock()
		<-q.wake
		q.mu.Lock()
	}
	if linger > 0 && !q.ready() {
		timer := time.NewTimer(linger)
		for late := false; !late && !q.ready(); {
			q.mu.Unlock()
			select {
			case <-q.wake:
			case <-timer.C:
				late = true
			}
			q.mu.Lock()
		}
		timer.Stop()
	}
	defer q.mu.Unlock()
	items := q.items
	q.items, q.spent = q.spent[:0], nil
	return items, !q.closed
}

// recycle gives back a slice that take returned.
func (q *queue) recycle(items []pending) {
	clear(items)
	q.mu.Lock()
	q.spent = items[:0]
	q.mu.Unlock()
}

// answered makes room for the bytes of records whose done was called.
func (q *queue) answered(bytes int) {
	q.mu.Lock()
	q.bytes -= bytes
	if q.bytes < q.limit {
		q.room.Signal()
	}
	q.mu.Unlock()
}

// close refuses what comes from now on, waiters included.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.room.Broadcast()
	q.rouse()
	q.mu.Unlock()
}

// depth returns what waits to become durable.
func (q *queue) depth() (records, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items), q.bytes
}
