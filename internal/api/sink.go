package api

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"sync"
	"time"
)

// sink is a long answer: buffered, flushed at least every second while bytes
// come, and broken off when its reader takes none for too long. It hands on whole
// writes, but for those that no buffer holds: what is dropped begins with a row.
type sink struct {
	w       *bufio.Writer
	to      deadlined
	control *http.ResponseController
	stall   time.Duration
	flushed time.Time
	drop    func() // ends the connection at once, with all that was not sent yet; nil in tests

	mu    sync.Mutex
	begun bool // something is on its way
	over  bool // cut was called
	stuck bool // a write took as long as it may, and failed
}

func newSink(w http.ResponseWriter, r *http.Request, stall time.Duration) *sink {
	s := &sink{control: http.NewResponseController(w), stall: stall, flushed: time.Now()}
	if l, ok := r.Context().Value(linkKey).(*link); ok {
		s.drop = l.drop
	}
	s.to = deadlined{w, s}
	s.take()
	return s
}

func (s *sink) take() {
	s.w = buffers.Get().(*bufio.Writer)
	s.w.Reset(s.to)
}

// rest gives the buffer back until the next Write: an answer that waits for what it is
// to say needs none.
func (s *sink) rest() {
	if s.w != nil && s.w.Buffered() == 0 {
		s.w.Reset(nil)
		buffers.Put(s.w)
		s.w = nil
	}
}

// buffers are those of answers that have ended; an answer that breaks off keeps its
// own.
var buffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 32<<10) }}

// deadlined gives each write that reaches the network a time of its own.
type deadlined struct {
	http.ResponseWriter
	s *sink
}

func (d deadlined) Write(p []byte) (int, error) {
	if !d.s.may() {
		return 0, os.ErrDeadlineExceeded
	}
	began := time.Now()
	n, err := d.ResponseWriter.Write(p)
	d.s.tried(began, err)
	return n, err
}

// tried remembers of a write whether it failed for want of a reader.
func (s *sink) tried(began time.Time, err error) {
	if err != nil && time.Since(began) >= s.stall {
		s.mu.Lock()
		s.stuck = !s.over
		s.mu.Unlock()
	}
}

// isStuck reports whether the reader took nothing for as long as is waited for one.
func (s *sink) isStuck() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stuck
}

// may moves the deadline of the next write, unless there is to be none.
func (s *sink) may() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.begun = true
	s.control.SetWriteDeadline(time.Now().Add(s.stall)) // an error is a writer without deadlines, as in tests
	return true
}

func (s *sink) Write(p []byte) (int, error) {
	if s.w == nil {
		s.take()
	}
	if s.w.Available() < len(p) {
		if err := s.w.Flush(); err != nil {
			return 0, err
		}
	}
	n, err := s.w.Write(p)
	if err == nil && time.Since(s.flushed) > time.Second {
		err = s.flush()
	}
	return n, err
}

func (s *sink) flush() error {
	s.flushed = time.Now()
	if s.w != nil {
		if err := s.w.Flush(); err != nil {
			return err
		}
	}
	if s.may() {
		began := time.Now()
		s.tried(began, s.control.Flush()) // not being able to is no fault: the answer is sent at its end
	}
	if s.isStuck() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// end sends what is left.
func (s *sink) end() error {
	err := s.w.Flush()
	s.w.Reset(nil)
	buffers.Put(s.w)
	s.w = nil
	return err
}

func (s *sink) isBegun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// forget drops what was not handed on yet.
func (s *sink) forget() {
	if s.w != nil {
		s.w.Reset(s.to)
	}
}

// cut ends an answer that has begun, and a write that is under way, at once: what
// the system holds back for a slow reader is not sent any more.
func (s *sink) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun || s.over {
		return
	}
	s.over = true
	s.control.SetWriteDeadline(time.Now())
	if s.drop != nil {
		s.drop()
	}
}

// A look at the right takes at most a tenth of the time, or comes this late.
const (
	watchEvery = time.Second
	watchLate  = 2 * time.Second
)

// watch cuts the answer off when still fails: whoever writes it may be waiting for
// its reader. It looks on until the function that it returns was called.
func (s *sink) watch(ctx context.Context, still func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var looking sync.WaitGroup
	looking.Go(func() {
		timer := time.NewTimer(watchEvery)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			began := time.Now()
			if err := still(ctx); err != nil && ctx.Err() == nil {
				s.cut()
			}
			timer.Reset(min(max(watchEvery, 10*time.Since(began)), watchLate))
		}
	})
	return func() { cancel(); looking.Wait() }
}
