package simtest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"
)

// story is a short life in which everything happens once: readings of each kind,
// a roll, an erasure in part and one of a whole party, readings after them.
func (w *world) story(cut int, fate Fate) func(context.Context) error {
	return func(ctx context.Context) error {
		steps := 0
		h, alive, err := start(ctx, w.disk, func(string, string) Fate {
			if steps++; steps == cut {
				return fate
			}
			return Fine
		}, w.latency, w.logger)
		if err != nil {
			return err
		}
		if alive {
			err = w.tell(ctx, h)
		}
		return w.end(h, err)
	}
}

func (w *world) tell(ctx context.Context, h *hub) error {
	p := h.people(w.img)
	wait := func(d time.Duration) { w.wait(h, d) }
	sendAll := func() { w.sendAll(ctx, h) }
	sendAll()
	w.post(ctx, p, 0)
	wait(45 * time.Second) // a roll
	sendAll()
	wait(5 * time.Millisecond)
	w.askErasure(ctx, p, &scope{devices: []int{0}, streams: []string{"n"}},
		map[string]string{"device": w.img.devices[0].id.String(), "stream": "n"})
	sendAll()
	w.askErasure(ctx, p, &scope{devices: []int{2}, whose: 1},
		map[string]string{"party": w.img.owners[w.img.devices[2].owner].party.String()})
	wait(45 * time.Second)
	sendAll()
	wait(time.Second)
	return w.read(ctx, p)
}

// sendAll sends a reading of each device by each QoS.
func (w *world) sendAll(ctx context.Context, h *hub) {
	for at := range w.things {
		for qos := range byte(3) {
			if !w.gone[at] && w.things[at].connect(ctx, h.network) == nil {
				w.things[at].publish(w.message(at, qos))
				w.wait(h, 3*time.Millisecond)
			}
		}
	}
}

// The power goes at each step of a story, before it, in the middle of it and after
// it.
func TestEveryStepOfAStory(t *testing.T) {
	img := newImage(t)
	every := *every
	if os.Getenv("HOLDFAST_LONG") != "" {
		every = 1
	}
	play := func(cut int, fate Fate) (steps int) {
		var err error
		t.Run(fmt.Sprintf("%d.%d", cut, fate), func(t *testing.T) {
			w := newWorld(img, 1, func(string, ...any) {})
			w.logger = slog.New(slog.DiscardHandler)
			w.lossSeed = uint64(cut)<<2 | uint64(fate)
			err = w.lives(t, 1, w.story(cut, fate), w.heal, w.once)
			steps = w.told
		})
		if err != nil {
			t.Errorf("the power goes at step %d (%d): %v", cut, fate, err)
		}
		return steps
	}
	total := play(0, Fine)
	t.Logf("%d steps", total)
	if total < 300 {
		t.Errorf("the story has only %d steps", total)
	}
	for cut := 1; cut <= total && !t.Failed(); cut += every {
		for _, fate := range []Fate{PowerCut, PowerTorn, PowerAfter} {
			play(cut, fate)
		}
	}
}

// A disk that says that it synced, and did not, must be found out.
func TestALyingDiskIsFoundOut(t *testing.T) {
	img := newImage(t)
	for seed := range uint64(20) {
		w := newWorld(img, seed+1, func(string, ...any) {})
		w.logger = slog.New(slog.DiscardHandler)
		w.disk.lies = true
		var err error
		t.Run(fmt.Sprint(seed+1), func(t *testing.T) { err = w.run(t, seed+1) })
		if err != nil {
			t.Logf("seed %d: %v", seed+1, err)
			return
		}
	}
	t.Error("20 seeds on a disk that never syncs break no promise")
}
