package mqtt

import "sync"

// writers write out the out-buffers of polled connections, which after each commit
// are many at once: a few goroutines, whose stacks have grown already, in place of
// one for each. A write may wait for a slow client; then more are started.
type writers struct {
	wg     *sync.WaitGroup
	wanted int
	work   chan<- struct{} // gets a token when there is something to look at

	mu     sync.Mutex
	some   sync.Cond // of mu: the queue is not empty, or closed
	queue  []*conn
	head   int // of queue
	all    int
	idle   int
	begun  uint64
	last   uint64 // begun at the last look
	closed bool
}

func newWriters(wg *sync.WaitGroup, wanted int, work chan<- struct{}) *writers {
	w := &writers{wg: wg, wanted: wanted, work: work}
	w.some.L = &w.mu
	return w
}

// give has c flushed.
func (w *writers) give(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed { // what is left after a shutdown that was not waited for
		go c.flush()
		return
	}
	w.queue = append(w.queue, c)
	switch {
	case w.idle > 0:
		if len(w.queue)-w.head <= w.idle {
			w.some.Signal()
		}
	case w.all < w.wanted:
		w.hireLocked()
	}
	select {
	case w.work <- struct{}{}:
	default:
	}
}

func (w *writers) hireLocked() {
	w.all++
	w.wg.Go(func() {
		for c := w.next(); c != nil; c = w.next() {
			c.flush()
		}
	})
}

// next is nil when there are writers enough.
func (w *writers) next() *conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.head == len(w.queue) {
		if w.closed || w.all > w.wanted {
			w.all--
			return nil
		}
		w.idle++
		w.some.Wait()
		w.idle--
	}
	c := w.queue[w.head]
	w.queue[w.head] = nil
	if w.head++; w.head == len(w.queue) {
		w.queue, w.head = w.queue[:0], 0
	}
	w.begun++
	return c
}

// look starts a writer if none has begun since the last look though connections
// wait. It reports whether any do.
func (w *writers) look(most int) (busy bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if busy = w.head < len(w.queue); busy && w.begun == w.last && w.all < most {
		w.hireLocked()
	}
	w.last = w.begun
	return busy
}

func (w *writers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.some.Broadcast()
}
