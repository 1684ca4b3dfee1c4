package simtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// heal is a life without faults: whoever waits gets an answer, what was asked is
// done, and the books are right, before and after the readings were rolled and
// merged.
func (w *world) heal(ctx context.Context) error {
	h, alive, err := start(ctx, w.disk, nil, w.latency, w.logger)
	if err != nil {
		return err
	}
	if !alive {
		return w.end(h, fmt.Errorf("the hub does not start on a sound disk: %w", h.err))
	}
	return w.end(h, w.healed(ctx, h))
}

func (w *world) healed(ctx context.Context, h *hub) error {
	p := h.people(w.img)
	if err := w.all(ctx, p); err != nil {
		return fmt.Errorf("after the start: %w", err)
	}
	for range 20 {
		open := 0
		for i, d := range w.things {
			if w.gone[i] {
				continue
			}
			if err := d.connect(ctx, h.network); err != nil {
				w.note("device %d can't connect to a sound hub: %v", i, err)
			}
			open++
		}
		time.Sleep(3 * time.Second)
		for i, d := range w.things {
			if !w.gone[i] && d.open() == 0 {
				open--
			}
		}
		if open == 0 {
			break
		}
	}
	for i, d := range w.things {
		if n := d.open(); n > 0 && !w.gone[i] {
			return fmt.Errorf("device %d waits for %d answers of a sound hub", i, n)
		}
		if d.lost > 0 {
			return fmt.Errorf("device %d: the hub forgot its session %d times", i, d.lost)
		}
	}
	time.Sleep(90 * time.Second)
	if err := w.waitedOut(ctx, p); err != nil {
		return err
	}
	if err := w.erasuresDone(ctx, p); err != nil {
		return err
	}
	if err := w.all(ctx, p); err != nil {
		return fmt.Errorf("when all is answered: %w", err)
	}
	time.Sleep(6 * time.Minute) // rolls and merges
	if err := w.all(ctx, p); err != nil {
		return fmt.Errorf("when all is merged: %w", err)
	}
	if err := w.erasuresDone(ctx, p); err != nil { // issued anew where a holder was pending
		return err
	}
	if err := w.certificates(w.texts); err != nil {
		return err
	}
	h.stop()
	<-h.ended
	if h.err != nil {
		return fmt.Errorf("an orderly end: %w", h.err)
	}
	return nil
}

// all is read, with an answer demanded.
func (w *world) all(ctx context.Context, p *people) error {
	if status, body := ask(ctx, p.admin, "GET", apiURL+"/readyz", "", "", nil); status != 200 {
		return fmt.Errorf("not ready: %d %s", status, body)
	}
	for at, d := range w.img.devices {
		for _, who := range d.users() {
			for _, stream := range everyStream {
				if _, err := p.read(ctx, part{at, who}, stream); err != nil && !errors.Is(err, errNotFound) {
					return fmt.Errorf("read device %s: %w", d.id, err)
				}
			}
		}
	}
	return w.read(ctx, p)
}

// erasuresDone demands that whatever was asked has its certificate.
func (w *world) erasuresDone(ctx context.Context, p *people) error {
	status, body := ask(ctx, p.admin, "GET", apiURL+"/v1/erasures?limit=1000", "", "", nil)
	var page struct {
		Items []struct{ ID, State, Certificate string }
	}
	if err := json.Unmarshal(body, &page); status != 200 || err != nil {
		return fmt.Errorf("list erasures: %d %s %v", status, body, err)
	}
	var texts []string
	for _, e := range page.Items {
		switch {
		case e.State == "undone":
		case e.State != "done" || e.Certificate == "":
			return fmt.Errorf("erasure %s is %s a minute after the start of a sound hub", e.ID, e.State)
		default:
			texts = append(texts, e.Certificate)
		}
	}
	w.note("%d erasures are done", len(texts))
	w.texts = texts
	return w.rekeyed(ctx, p)
}

// once starts the hub on what an orderly end left, and ends it.
func (w *world) once(ctx context.Context) error {
	h, alive, err := start(ctx, w.disk, nil, nil, w.logger)
	if err != nil {
		return err
	}
	if !alive {
		return w.end(h, fmt.Errorf("the hub does not start after an orderly end: %w", h.err))
	}
	return w.end(h, w.all(ctx, h.people(w.img)))
}

// rootKeys are all that ever were in the file of the root key.
type rootKeys struct {
	mu   sync.Mutex
	ever []string
}

func (k *rootKeys) see(b []byte) {
	var doc struct {
		Keys map[string]string `json:"keys"`
	}
	if json.Unmarshal(b, &doc) != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range doc.Keys {
		if !slices.Contains(k.ever, key) {
			k.ever = append(k.ever, key)
		}
	}
}

// dissect takes the disk apart: no root key that was destroyed is on the platters,
// none older than the one in force is held, and the keyring has no key of who was
// erased.
func (w *world) dissect(ctx context.Context) error {
	now, err := w.disk.ReadFile(RootKey)
	if err != nil {
		return err
	}
	dead := w.roots.dead(now)
	if w.img.guarded {
		now, err := w.disk.ReadFile(SecondKey)
		if err != nil {
			return err
		}
		dead = append(dead, w.others.dead(now)...)
	}
	for name, content := range w.disk.Platters {
		for _, key := range dead {
			if bytes.Contains(content, []byte(key)) {
				return fmt.Errorf("a root key that was destroyed is still on the platters, in %s", name)
			}
		}
		if bytes.Contains(content, []byte(canary)) {
			return fmt.Errorf("a reading's value or a name is on the platters in clear, in %s", name)
		}
	}
	w.note("%d root keys", len(w.roots.ever))
	if err := w.copiesWhole(); err != nil {
		return err
	}
	return w.keyring(ctx)
}

// dead are those that a file has no more.
func (k *rootKeys) dead(file []byte) (out []string) {
	for _, key := range k.ever {
		if !bytes.Contains(file, []byte(key)) {
			out = append(out, key)
		}
	}
	return out
}

func (w *world) keyring(ctx context.Context) error {
	return openVault(ctx, w.disk, func(_ *catalog.DB, keys *vault.Vault) error {
		for _, h := range keys.Holders() {
			held, err := h.Generations(ctx)
			if err != nil || held[0] != keys.Generation() {
				return fmt.Errorf("holder %s holds generations %v, in force is %d: %w", h.Name(), held, keys.Generation(), err)
			}
		}
		for i, d := range w.img.devices {
			if w.books.ended[part{i, d.owner}] && keys.HasOwner(vault.OfAssignment(d.assignment)) {
				return fmt.Errorf("device %d was erased, and its key is in the keyring", i)
			}
			if d.shared && w.books.ended[part{i, d.borrower}] && keys.HasOwner(vault.OfAssignment(d.period)) {
				return fmt.Errorf("what owner %d had of device %d was erased, and its key is in the keyring", d.borrower, i)
			}
		}
		return nil
	})
}
