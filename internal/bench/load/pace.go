package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Paced is what an open loop saw.
type Paced struct {
	Latencies []time.Duration // sorted; from when a message was to be sent to its acknowledgement
	Late      []time.Duration // sorted; how late messages left this program
	Elapsed   time.Duration
}

// ring is how many messages of one connection may wait for their acknowledgement.
const ring = 1024

// waiter is a connection's messages on their way.
type waiter struct {
	sent      [ring]atomic.Int64 // when the id was to be sent, in ns since the start; 0: it is free
	latencies []time.Duration
}

// Pace sends rate messages a second in all for warm and then d, every device
// equally often and at a phase of its own, drawn from seed. Only those that were to
// be sent in d count. mark is called at its begin and end.
func (c *Conns) Pace(ctx context.Context, rate float64, payload int, warm, d time.Duration, seed uint64, mark func()) (Paced, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	now := time.Now()
	waiters := make([]*waiter, len(c.all))
	for i, x := range c.all {
		x.frame.ids = ring - 1
		if err := x.frame.build(payload, now); err != nil {
			return Paced{}, err
		}
		waiters[i] = &waiter{latencies: make([]time.Duration, 0, int(rate*d.Seconds())/len(c.all)+16)}
	}
	var flying atomic.Int64
	var finished atomic.Bool
	begin := time.Now()
	errs := make([]error, len(c.all)+1)
	var wg sync.WaitGroup
	for i, x := range c.all {
		wg.Go(func() {
			err := x.hear(begin, warm, waiters[i], &flying)
			if !finished.Load() {
				errs[i] = err
				cancel()
			}
		})
	}
	var late []time.Duration
	var elapsed time.Duration
	late, elapsed, errs[len(c.all)] = c.send(ctx, schedule(len(c.all), rate, seed), begin, warm, d, waiters, &flying, mark)
	for deadline := time.Now().Add(5 * time.Second); flying.Load() > 0 && ctx.Err() == nil; {
		if time.Now().After(deadline) {
			errs[len(c.all)] = errors.Join(errs[len(c.all)], fmt.Errorf("%d messages were never acknowledged", flying.Load()))
			break
		}
		sleep(ctx, time.Millisecond)
	}
	finished.Store(true)
	c.wake()
	wg.Wait()
	out := Paced{Late: late, Elapsed: elapsed}
	for _, w := range waiters {
		out.Latencies = append(out.Latencies, w.latencies...)
	}
	slices.Sort(out.Latencies)
	slices.Sort(out.Late)
	return out, errors.Join(firstOf(errs), context.Cause(ctx))
}

// turn is when in each period which connection sends.
type turn struct {
	at   time.Duration
	conn int
}

// plan repeats its turns every period.
type plan struct {
	period time.Duration
	turns  []turn
}

func schedule(n int, rate float64, seed uint64) plan {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := plan{period: time.Duration(float64(n) / rate * float64(time.Second)), turns: make([]turn, n)}
	for i := range p.turns {
		p.turns[i] = turn{time.Duration(rng.Float64() * float64(p.period)), i}
	}
	slices.SortFunc(p.turns, func(a, b turn) int { return int(a.at - b.at) })
	return p
}

// send is the one sender of all connections, on a thread of its own so that it
// wakes within microseconds.
func (c *Conns) send(ctx context.Context, p plan, begin time.Time, warm, d time.Duration, waiters []*waiter, flying *atomic.Int64, mark func()) (late []time.Duration, elapsed time.Duration, err error) {
	wake := preciseSleep()
	defer wake.done()
	var out []byte
	var counting time.Time
	for round := 0; ; round++ {
		for _, t := range p.turns {
			due := time.Duration(round)*p.period + t.at
			for {
				wait := due - time.Since(begin)
				if wait <= 0 {
					break
				}
				wake.sleep(wait)
			}
			if ctx.Err() != nil {
				return late, elapsed, nil
			}
			if due >= warm && counting.IsZero() {
				counting = time.Now()
				mark()
			}
			if due >= warm+d {
				elapsed = time.Since(counting)
				mark()
				return late, elapsed, nil
			}
			var id uint16
			out, id = c.all[t.conn].frame.append(out[:0])
			if !waiters[t.conn].sent[id].CompareAndSwap(0, int64(due)+1) {
				return late, elapsed, fmt.Errorf("a connection has %d messages unanswered: the server does not keep up", ring-1)
			}
			flying.Add(1)
			if due >= warm {
				late = append(late, time.Since(begin)-due)
			}
			if _, err := c.all[t.conn].tls.Write(out); err != nil {
				return late, elapsed, fmt.Errorf("send: %w", err)
			}
		}
	}
}

// hear takes acknowledgements until the connection ends, and says why it did.
func (c *conn) hear(begin time.Time, warm time.Duration, w *waiter, flying *atomic.Int64) error {
	in := make([]byte, 256)
	var a acks
	for {
		n, err := c.tls.Read(in)
		if err != nil {
			return err
		}
		now := time.Since(begin)
		unknown := false
		err = a.read(in[:n], func(id uint16) {
			if int(id) >= ring {
				unknown = true
				return
			}
			due := time.Duration(w.sent[id].Swap(0) - 1)
			if due < 0 {
				unknown = true
				return
			}
			flying.Add(-1)
			if due >= warm {
				w.latencies = append(w.latencies, now-due)
			}
		})
		if unknown {
			err = errors.Join(err, errors.New("the server acknowledged what was not sent"))
		}
		if err != nil {
			return err
		}
	}
}
