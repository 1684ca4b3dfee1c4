package simtest

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"
)

// slowly is a life on a disk that takes its time for each sync of the journal.
func (w *world) slowly(sync time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		h, alive, err := start(ctx, w.disk, nil, func() time.Duration { return sync }, w.logger)
		if err != nil {
			return err
		}
		if !alive {
			return w.end(h, fmt.Errorf("start: %w", h.err))
		}
		for range 3 {
			w.sendAll(ctx, h)
			for range 40 {
				w.wait(h, 5*time.Second)
				for _, d := range w.things { // whose connection was ended comes again
					if err := d.connect(ctx, h.network); err != nil {
						w.note("can't connect: %v", err)
					}
				}
			}
		}
		for i, d := range w.things {
			if d.open() > 0 || d.answered != 6 {
				return w.end(h, fmt.Errorf("device %d has %d answers and waits for %d, when each sync takes %s", i, d.answered, d.open(), sync))
			}
		}
		return w.end(h, w.all(ctx, h.people(w.img)))
	}
}

// A sync that takes long is one: what it made durable is acknowledged, and stands once.
func TestASlowDiskIsNoFault(t *testing.T) {
	img := newImage(t)
	for _, sync := range []time.Duration{4 * time.Second, 14 * time.Second} {
		w := newWorld(img, 1, func(string, ...any) {})
		w.logger, w.steady = slog.New(slog.DiscardHandler), true
		var err error
		t.Run(sync.String(), func(t *testing.T) { err = w.lives(t, 1, w.slowly(sync), w.heal) })
		if err != nil {
			t.Errorf("a sync takes %s: %v", sync, err)
		}
	}
}
