package twin

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/holdfast-iot/holdfast"
)

// watching tells who waits for a device that something of it has changed.
type watching struct {
	mu   sync.Mutex
	of   map[holdfast.DeviceID]map[*watch]struct{}
	most int             // of one device
	over <-chan struct{} // closed when nobody is to wait any more
}

// errOver ends a wait that the hub ends: what there is is the answer.
var errOver = errors.New("the wait is over")

// watch is one that waits, for a device or for those of a gateway.
type watch struct {
	in     *watching
	device holdfast.DeviceID
	signal chan struct{} // holds one

	mu    sync.Mutex
	dirty []holdfast.DeviceID // what has changed since it looked
}

// enter begins a watch. A device that waits too often at once is refused: each costs
// memory.
func (w *watching) enter(d holdfast.DeviceID) (*watch, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.of[d]) >= w.most {
		return nil, holdfast.Errorf(holdfast.Unavailable, "%d requests and subscriptions wait for this device already: end some", w.most)
	}
	x := &watch{in: w, device: d, signal: make(chan struct{}, 1)}
	if w.of[d] == nil {
		w.of[d] = make(map[*watch]struct{})
	}
	w.of[d][x] = struct{}{}
	return x, nil
}

func (x *watch) leave() {
	w := x.in
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.of[x.device], x)
	if len(w.of[x.device]) == 0 {
		delete(w.of, x.device)
	}
}

// changed tells those who wait for a device or for its gateway.
func (w *watching) changed(st Standing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range []holdfast.DeviceID{st.Device, st.Gateway} {
		if d.IsZero() {
			continue
		}
		for x := range w.of[d] {
			x.mark(st.Device)
		}
	}
}

// again has the one that waits, when he looks the next time, look at these, too.
func (x *watch) again(ids ...holdfast.DeviceID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, d := range ids {
		if !slices.Contains(x.dirty, d) {
			x.dirty = append(x.dirty, d)
		}
	}
}

// mark is again, and ends a wait.
func (x *watch) mark(ids ...holdfast.DeviceID) {
	x.again(ids...)
	select {
	case x.signal <- struct{}{}:
	default:
	}
}

// next returns a device that has changed, and whether there is one.
func (x *watch) next() (d holdfast.DeviceID, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.dirty) == 0 {
		return d, false
	}
	d, x.dirty = x.dirty[0], x.dirty[1:]
	return d, true
}

// wait blocks until something has changed or a time is over; a zero time is none.
func (x *watch) wait(ctx context.Context, most time.Duration) error {
	var over <-chan time.Time
	if most > 0 {
		t := time.NewTimer(most)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-x.signal:
	case <-over:
	case <-x.in.over:
		return errOver
	}
	return nil
}

// paces bound how often a device reports: each report is a write of the catalog,
// which everybody shares.
type paces struct {
	mu sync.Mutex
	of map[holdfast.DeviceID]*pace
}

type pace struct{ *rate.Limiter }

// How often a device may report: so many a second, and so many at once.
const (
	reportsPerSecond = 2
	reportsAtOnce    = 60
	maxPaces         = 1 << 14
)

func (p *paces) allow(d holdfast.DeviceID, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.of[d]
	if x == nil {
		if len(p.of) >= maxPaces {
			for other, o := range p.of {
				if o.TokensAt(now) >= reportsAtOnce {
					delete(p.of, other)
				}
			}
		}
		x = &pace{rate.NewLimiter(reportsPerSecond, reportsAtOnce)}
		p.of[d] = x
	}
	if !x.AllowN(now, 1) {
		return holdfast.Errorf(holdfast.Unavailable, "the device reports its state too often: what changes all the time is a reading")
	}
	return nil
}
