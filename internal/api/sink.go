package api

import (
	"bufio"
	"net/http"
	"sync"
	"time"
)

// sink is a long answer: buffered, flushed at least every second while bytes
// come, and broken off when its reader takes none for too long.
type sink struct {
	w       *bufio.Writer
	control *http.ResponseController
	stall   time.Duration
	flushed time.Time
}

func newSink(w http.ResponseWriter, stall time.Duration) *sink {
	s := &sink{control: http.NewResponseController(w), stall: stall, flushed: time.Now()}
	s.w = buffers.Get().(*bufio.Writer)
	s.w.Reset(deadlined{w, s})
	return s
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
	d.s.control.SetWriteDeadline(time.Now().Add(d.s.stall)) // an error is a writer without deadlines, as in tests
	return d.ResponseWriter.Write(p)
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err == nil && time.Since(s.flushed) > time.Second {
		err = s.flush()
	}
	return n, err
}

func (s *sink) flush() error {
	s.flushed = time.Now()
	if err := s.w.Flush(); err != nil {
		return err
	}
	s.control.SetWriteDeadline(time.Now().Add(s.stall))
	s.control.Flush() // not being able to is no fault: the answer is sent at its end
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
