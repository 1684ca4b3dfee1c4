package simtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

// collected is a life without faults in which readings come in that are kept for two
// days, and the days after it in which the hub is off.
func (w *world) collected(ctx context.Context) error {
	h, alive, err := start(ctx, w.disk, nil, w.latency, w.logger)
	if err != nil {
		return err
	}
	if !alive {
		return w.end(h, fmt.Errorf("start: %w", h.err))
	}
	p := h.people(w.img)
	status, body := ask(ctx, p.admin, "PUT", apiURL+"/v1/retention/rules", "", "application/json", []byte(`{"purpose":"operation","days":2}`))
	if status/100 != 2 {
		return w.end(h, fmt.Errorf("set a rule: %d %s", status, body))
	}
	for at := range w.things {
		w.post(ctx, p, at)
	}
	w.sendAll(ctx, h)
	w.wait(h, 45*time.Second) // a roll
	w.sendAll(ctx, h)
	w.wait(h, time.Second)
	if err := w.read(ctx, p); err != nil {
		return w.end(h, err)
	}
	h.stop() // in order
	err = w.end(h, nil)
	time.Sleep(4 * 24 * time.Hour)
	for who := range w.img.owners {
		w.books.erase(&scope{devices: []int{0, 1, 2}, whose: who}, true)
	}
	clear(w.books.ended) // the devices go on
	return err
}

// expires is the life in which the run is due, under a fate at one step. It says at
// which step the run was over.
func (w *world) expires(cut int, fate Fate, over *int) func(context.Context) error {
	return func(ctx context.Context) error {
		steps := 0
		h, alive, err := start(ctx, w.disk, func(_, path string) Fate {
			if steps++; strings.HasPrefix(path, DataFolder+"/segments/") || strings.HasPrefix(path, "/key/") {
				*over = steps + 30 // the catalog is purged then, and the end written down
			}
			if steps == cut {
				return fate
			}
			return Fine
		}, w.latency, w.logger)
		if err != nil {
			return err
		}
		if alive {
			w.wait(h, 200*time.Millisecond)
			w.sendAll(ctx, h)
			w.wait(h, 2*time.Minute) // what failed is tried again
			err = w.read(ctx, h.people(w.img))
		}
		return w.end(h, err)
	}
}

// expired is a life on a sound disk after which nothing is due, and each device's
// end stands on its owner's record once.
func (w *world) expired(ctx context.Context) error {
	h, alive, err := start(ctx, w.disk, nil, w.latency, w.logger)
	if err != nil {
		return err
	}
	if !alive {
		return w.end(h, fmt.Errorf("start on a sound disk: %w", h.err))
	}
	w.wait(h, 2*time.Minute)
	return w.end(h, w.allExpired(ctx, h.people(w.img)))
}

func (w *world) allExpired(ctx context.Context, p *people) error {
	var x struct {
		Last time.Time
		Due  []any
	}
	status, body := ask(ctx, p.admin, "GET", apiURL+"/v1/retention/due", "", "", nil)
	if err := json.Unmarshal(body, &x); status != 200 || err != nil {
		return fmt.Errorf("what is due: %d %s %w", status, body, err)
	}
	if time.Since(x.Last) > time.Hour || len(x.Due) > 0 {
		return fmt.Errorf("the run was not finished: %s", body)
	}
	for i, devices := range []int{2, 1} {
		status, body := ask(ctx, p.owners, "GET", apiURL+"/v1/ledger/entries", w.img.owners[i].token, "", nil)
		if n := bytes.Count(body, []byte("readings expired")); status != 200 || n != devices {
			return fmt.Errorf("owner %d has %d entries of what has expired, not %d: %d %s", i, n, devices, status, body)
		}
	}
	return nil
}

// The power goes, or the disk fails, at each step of a life in which readings expire.
// Whatever it is, they show nowhere from the start on, the run is finished, once, and
// what came in meanwhile is there.
func TestEveryStepOfExpiry(t *testing.T) {
	img := newImage(t)
	fates := []Fate{PowerCut, NotDone, PowerTorn, ButDone, PowerAfter, Torn}
	play := func(cut int, fate Fate) (over int) {
		var err error
		t.Run(fmt.Sprintf("%d.%d", cut, fate), func(t *testing.T) {
			w := newWorld(img, 1, func(string, ...any) {})
			w.logger, w.steady = slog.New(slog.DiscardHandler), true
			w.lossSeed = uint64(cut)<<3 | uint64(fate)
			err = w.lives(t, 1, w.collected, w.expires(cut, fate, &over), w.expired, w.heal)
		})
		if err != nil {
			t.Errorf("at step %d (%d): %v", cut, fate, err)
		}
		return over
	}
	total := play(0, Fine)
	t.Logf("%d steps", total)
	if total < 100 {
		t.Errorf("the run is over after %d steps", total)
	}
	for cut := 1; cut <= total && !t.Failed(); cut++ {
		switch {
		case *every == 1, os.Getenv("HOLDFAST_LONG") != "":
			for _, fate := range fates {
				play(cut, fate)
			}
		case cut%4 == 1:
			play(cut, fates[cut/4%len(fates)])
		}
	}
}
