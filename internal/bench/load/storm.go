package load

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Storm makes new connections for d, width at once: TCP, a full TLS handshake,
// CONNECT, CONNACK, DISCONNECT. Devices take turns. mark is called at begin and end.
func Storm(ctx context.Context, t Target, width int, d time.Duration, mark func()) (Done, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pin := &pin{}
	var next, made atomic.Int64
	var stop atomic.Bool
	errs := make([]error, width)
	var wg sync.WaitGroup
	mark()
	began := time.Now()
	for w := range width {
		wg.Go(func() {
			for !stop.Load() && ctx.Err() == nil {
				c, err := t.connect(ctx, int(next.Add(1))-1, pin)
				if err != nil {
					errs[w] = err
					cancel()
					return
				}
				made.Add(1)
				c.close()
			}
		})
	}
	sleep(ctx, d)
	out := Done{made.Load(), time.Since(began)}
	mark()
	stop.Store(true)
	wg.Wait()
	return out, errors.Join(firstOf(errs), context.Cause(ctx))
}
