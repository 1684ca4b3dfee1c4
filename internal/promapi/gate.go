package promapi

import (
	"context"
	"sync"

	"github.com/holdfast-iot/holdfast"
)

// gate lets so many in at a time, and of one credential half of them; others wait.
type gate struct {
	places chan struct{}
	own    int

	mu sync.Mutex
	of map[holdfast.CredentialID]*queue
}

// queue is those of one credential.
type queue struct {
	places chan struct{}
	users  int // inside or waiting
}

// mostWaiting is how many of one credential may wait: a page with many panels.
const mostWaiting = 100

func newGate(n int) *gate {
	return &gate{places: make(chan struct{}, n), own: max(1, n/2), of: map[holdfast.CredentialID]*queue{}}
}

// enter waits for a place, which is held until leave is called.
func (g *gate) enter(ctx context.Context, c holdfast.CredentialID) (leave func(), err error) {
	q, err := g.queue(c)
	if err != nil {
		return nil, err
	}
	select {
	case q.places <- struct{}{}:
	case <-ctx.Done():
		g.done(c, q)
		return nil, busy(ctx)
	}
	select {
	case g.places <- struct{}{}:
	case <-ctx.Done():
		<-q.places
		g.done(c, q)
		return nil, busy(ctx)
	}
	return func() {
		<-g.places
		<-q.places
		g.done(c, q)
	}, nil
}

func busy(ctx context.Context) error {
	if context.Cause(ctx) == context.Canceled {
		return &fault{kind: canceled, text: "the question was given up"}
	}
	return holdfast.Errorf(holdfast.Unavailable, "too many expressions are worked out already: ask again")
}

func (g *gate) queue(c holdfast.CredentialID) (*queue, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	q := g.of[c]
	if q == nil {
		q = &queue{places: make(chan struct{}, g.own)}
		g.of[c] = q
	}
	if q.users >= mostWaiting {
		return nil, holdfast.Errorf(holdfast.Unavailable, "this credential has too many expressions waiting: ask again")
	}
	q.users++
	return q, nil
}

func (g *gate) done(c holdfast.CredentialID, q *queue) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if q.users--; q.users == 0 {
		delete(g.of, c)
	}
}
