package intake

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast/internal/sparkplug"
)

// Look subscribes for a while and says what a map would make of what comes. It
// uses a session of its own that ends with it, acknowledges nothing that an intake
// would have, and sends nothing to a hub. ready is called when it has subscribed.
func Look(ctx context.Context, b Broker, m *Map, during time.Duration, ready func()) (*Report, error) {
	r := newReport()
	filters, err := m.Filters()
	if err != nil {
		return r, err
	}
	b.Clean = true
	if b.Window <= 0 {
		b.Window = DefaultWindow
	}
	l, err := b.dial(ctx, filters)
	if err != nil {
		return r, err
	}
	defer l.close()
	ready()
	tables := &sparkplug.Tables{}
	timer := time.NewTimer(during)
	defer timer.Stop()
	for {
		select {
		case msg, ok := <-l.messages:
			if !ok {
				return r, l.why
			}
			t := m.Take(msg, tables)
			r.count(msg, &t, nil)
		case <-timer.C:
			return r, nil
		case <-ctx.Done():
			return r, nil
		}
	}
}
