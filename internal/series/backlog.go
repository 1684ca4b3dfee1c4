package series

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast/internal/journal"
)

// Backlog is how rolls keep up with the journal.
type Backlog struct {
	Bytes   int64     // of journal that are not rolled
	Failing time.Time // since when every roll has failed; zero: the last one did not
	Err     error     // why the last one failed
}

// rolling remembers how rolls end.
type rolling struct {
	mu      sync.Mutex
	failing time.Time
	err     error
}

// ended notes how a roll ended. One that was called off says nothing.
func (r *rolling) ended(ctx context.Context, err error) {
	if err != nil && ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err = err; err == nil {
		r.failing = time.Time{}
	} else if r.failing.IsZero() {
		r.failing = time.Now()
	}
}

// Backlog says how far rolls are behind. It costs next to nothing.
func (s *Series) Backlog() Backlog {
	s.rolling.mu.Lock()
	defer s.rolling.mu.Unlock()
	return Backlog{Bytes: s.tail.size(), Failing: s.rolling.failing, Err: s.rolling.err}
}

// Oldest returns when the oldest record that is not rolled arrived, zero if there is
// none. It reads that record.
func (s *Series) Oldest() (time.Time, error) {
	s.tail.mu.Lock()
	from := s.tail.floor
	s.tail.mu.Unlock()
	if from >= s.log.End() {
		return time.Time{}, nil
	}
	for e, err := range s.log.Read(max(from, s.log.Start())) {
		if err != nil {
			return time.Time{}, err
		}
		return arrivalOf(e)
	}
	return time.Time{}, nil
}

func arrivalOf(e journal.Entry) (time.Time, error) {
	h, _, err := ParseHeader(e.Data)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(0, h.Arrival), nil
}
