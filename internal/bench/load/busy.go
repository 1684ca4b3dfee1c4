package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Done is what a closed loop did.
type Done struct {
	Acked   int64
	Elapsed time.Duration
}

// Busy keeps window messages of payload bytes in flight on every connection. After
// warm it counts for d. mark is called when counting begins and when it ends, to
// read clocks of processes.
func (c *Conns) Busy(ctx context.Context, window, payload int, warm, d time.Duration, mark func()) (Done, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	now := time.Now()
	for _, x := range c.all {
		if err := x.frame.build(payload, now); err != nil {
			return Done{}, err
		}
	}
	var stop atomic.Bool
	counts := make([]counter, len(c.all))
	errs := make([]error, len(c.all))
	var wg sync.WaitGroup
	for i, x := range c.all {
		wg.Go(func() {
			if errs[i] = x.busy(window, &counts[i].n, &stop); errs[i] != nil {
				cancel()
			}
		})
	}
	total := func() (n int64) {
		for i := range counts {
			n += counts[i].n.Load()
		}
		return n
	}
	var out Done
	if sleep(ctx, warm) {
		mark()
		began, before := time.Now(), total()
		sleep(ctx, d)
		out = Done{total() - before, time.Since(began)}
		mark()
	}
	stop.Store(true)
	if ctx.Err() != nil { // nobody waits for what a broken server still owes
		c.wake()
	}
	wg.Wait()
	return out, errors.Join(firstOf(errs), context.Cause(ctx))
}

// Prime sends one message on every connection and waits for its acknowledgement: a
// device's first reading may cost a server what no later one does.
func (c *Conns) Prime(ctx context.Context, payload int) error {
	stop := context.AfterFunc(ctx, c.wake)
	defer stop()
	now := time.Now()
	errs := make([]error, len(c.all))
	var done atomic.Bool
	done.Store(true)
	var wg sync.WaitGroup
	for i, x := range c.all {
		if err := x.frame.build(payload, now); err != nil {
			return err
		}
		wg.Go(func() {
			var n atomic.Int64
			errs[i] = x.busy(1, &n, &done)
		})
	}
	wg.Wait()
	return errors.Join(firstOf(errs), context.Cause(ctx))
}

// counter has a cache line of its own.
type counter struct {
	n atomic.Int64
	_ [56]byte
}

// busy sends a window, then a message for every acknowledgement. When stop is set
// it waits for what is still in flight.
func (c *conn) busy(window int, count *atomic.Int64, stop *atomic.Bool) error {
	out := make([]byte, 0, window*(len(c.frame.b)+1))
	fill := func(n int) error {
		out = out[:0]
		for range n {
			out, _ = c.frame.append(out)
		}
		_, err := c.tls.Write(out)
		return err
	}
	if err := fill(window); err != nil {
		return err
	}
	in := make([]byte, max(4*window, 64))
	var a acks
	for flying := window; flying > 0; {
		n, err := c.tls.Read(in)
		if err != nil {
			return fmt.Errorf("the server ended a connection: %w", err)
		}
		got := 0
		if err := a.read(in[:n], func(uint16) { got++ }); err != nil {
			return err
		}
		count.Add(int64(got))
		if flying -= got; stop.Load() || got == 0 {
			continue
		}
		if err := fill(got); err != nil {
			return err
		}
		flying += got
	}
	return nil
}

// wake ends what readers and writers of the connections wait for.
func (c *Conns) wake() {
	for _, x := range c.all {
		x.tls.NetConn().SetDeadline(time.Unix(1, 0))
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
