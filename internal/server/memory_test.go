package server

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// Ten thousand devices come at once, as when a network is back: all get in, none
// waits much longer than the hub needs for all, and once they are idle the hub has
// less than 400 MiB, which GOMEMLIMIT sees to. Each of 640 has its own certificate and sixteen connections;
// with HOLDFAST_LONG each of 10,000 has its own.
func TestTenThousandComeAtOnce(t *testing.T) {
	n, own := 10_000, 640
	if long() {
		own = n
	}
	if most := files(t, n+500) - 500; most < n {
		t.Logf("the limit of open files is %d: %d connections instead of %d", most+500, most, n)
		n = most
	}
	h := newHouse(t)
	began := time.Now()
	devices := h.enrols(own)
	t.Logf("%d devices have certificates after %s", own, time.Since(began).Round(time.Millisecond))
	h.halt()
	hub := h.serving([]string{"GOMEMLIMIT=384MiB"})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	neighbour, err := devices[0].joins(ctx, make(chan struct{}, 1), devices[0].tls(), hub.at.MQTT[len("mqtts://"):], "neighbour")
	if err != nil {
		t.Fatal(err)
	}
	stop, slowest := make(chan struct{}), make(chan time.Duration)
	go func() {
		var worst time.Duration
		defer func() { slowest <- worst }()
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			began := time.Now()
			if err := neighbour.publish(1, "n", "1"); err != nil {
				t.Errorf("the neighbour: %v", err)
				return
			}
			worst = max(worst, time.Since(began))
		}
	}()
	before := hub.rss()
	c, err := gathers(ctx, devices[1:], hub.at, n-1)
	defer c.leaves()
	if err != nil {
		t.Fatalf("some don't get in: %.500s", err)
	}
	close(stop)
	worst := <-slowest
	peak := hub.peak()
	slices.Sort(c.took)
	t.Logf("%d are in: half after %s, 99 %% after %s, the last after %s; %d tries; a neighbour waited %s at most; RSS %d -> %d MiB",
		n, c.took[n/2].Round(time.Millisecond), c.took[n*99/100].Round(time.Millisecond), c.took[n-2].Round(time.Millisecond), c.tries, worst.Round(time.Millisecond), before>>10, peak>>10)
	for _, why := range []string{"full", "rate", "displaced", "timeout", "handshake"} {
		if k := h.count(hub, "holdfast_port_refused_total", `reason="`+why+`"`); k > 0 {
			t.Logf("refused: %s %.0f", why, k)
		}
	}
	if worst > 5*time.Second {
		t.Errorf("one that was inside waited %s", worst)
	}
	least := hub.rss()
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline) && least > 380<<10; time.Sleep(time.Second) {
		least = min(least, hub.rss())
	}
	t.Logf("idle: RSS %d MiB; heap %.0f MiB of which %.0f are in use, stacks %.0f MiB", least>>10,
		h.count(hub, "go_memstats_heap_sys_bytes", "")/(1<<20)-h.count(hub, "go_memstats_heap_released_bytes", "")/(1<<20),
		h.count(hub, "go_memstats_heap_inuse_bytes", "")/(1<<20), h.count(hub, "go_memstats_stack_inuse_bytes", "")/(1<<20))
	if least > 400<<10 {
		t.Errorf("%d idle connections take %d MiB", n, least>>10)
	}
	for i := 0; i < len(c.wires); i += 100 {
		if err := c.wires[i].publish(1, "n", "1"); err != nil {
			t.Fatalf("connection %d, afterwards: %v", i, err)
		}
	}
	c.leaves()
	hub.end()
}

// A thousand devices that send as fast as they are acknowledged, twenty publishes in
// flight: less than 256 MiB, GOMEMLIMIT or not, and also while the hub rolls what they
// sent before it was restarted, which is the worst it can meet: millions of readings
// of one time each, in rows.
func TestMemoryOfBusyDevices(t *testing.T) {
	h := newHouse(t)
	devices := h.enrols(100)
	h.halt()
	for _, hub := range []struct {
		name string
		env  []string
	}{
		{"new", nil},
		{"with a backlog", nil},
		{"GOMEMLIMIT", []string{"GOMEMLIMIT=200MiB"}},
	} {
		t.Run(hub.name, func(t *testing.T) {
			h.t = t
			hub := h.serving(hub.env)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			c, err := gathers(ctx, devices, hub.at, 1000)
			defer c.leaves()
			if err != nil {
				t.Fatal(err)
			}
			busy, stop := context.WithTimeout(t.Context(), 6*time.Second)
			defer stop()
			var sum struct {
				sync.Mutex
				n int
			}
			var all sync.WaitGroup
			for _, w := range c.wires {
				all.Go(func() {
					n := 0
					for busy.Err() == nil {
						if err := w.publish(20, "n", `{"t":1735689600.25,"v":21.53,"seq":1234567}`); err != nil {
							t.Error(err)
							return
						}
						n += 20
					}
					sum.Lock()
					sum.n += n
					sum.Unlock()
				})
			}
			all.Wait()
			t.Logf("%d publishes acknowledged in 6 s; RSS %d MiB at most", sum.n, hub.peak()>>10)
			if hub.peak() > 256<<10 {
				t.Errorf("1,000 busy devices take %d MiB", hub.peak()>>10)
			}
			c.leaves()
			hub.end()
		})
	}
}
