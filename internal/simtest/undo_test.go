package simtest

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// wait is an erasure that was asked for with a window in which it can be undone.
type wait struct {
	id     string
	owner  int
	scope  scope
	hidden []*reading // that were there to be covered, as the sender knows
	asked  bool       // somebody asked to undo it, and may have been heard
	undone bool
}

// eraseLater asks for an erasure in part that can be undone for an hour. Every other
// time it is, a while after.
func (w *world) eraseLater(ctx context.Context, h *hub, p *people, at int) error {
	s, what := w.drawScope(at)
	for s.whole() || s.span() && w.r.IntN(4) > 0 { // a span mostly matches nothing
		s, what = w.drawScope(at)
	}
	what["undo"] = "1h"
	body, _ := json.Marshal(what)
	status, answer := ask(ctx, p.owners, "POST", apiURL+"/v1/erasures?wait=0", w.img.owners[s.whose].token, "application/json", body)
	w.note("erase %v of owner %d, streams %v, month %d in an hour: %d", s.devices, s.whose, s.streams, s.month, status)
	if status/100 == 4 {
		w.say("%s", answer)
		return nil
	}
	var e struct{ ID, State string }
	if status/100 != 2 || json.Unmarshal(answer, &e) != nil {
		w.books.erase(s, false) // it may come about, and may be undone by nobody
		return nil
	}
	w.erased++
	w.kinds["later "+s.kind(what)]++
	w.waits = append(w.waits, &wait{id: e.ID, owner: s.whose, scope: *s, hidden: w.books.hide(s)})
	if w.r.IntN(2) == 0 {
		return nil
	}
	w.pause(h, 10*time.Minute)
	return w.undo(ctx, p)
}

// late reports that a reading has a time that an erasure which can be undone may cover:
// it is taken in, shown to nobody, and goes or comes back with the rest.
func (w *world) late(r *reading) bool {
	for _, x := range w.waits {
		if !x.undone && r.timed && x.scope.covers(r) != no {
			return true
		}
	}
	return false
}

// undo takes back one of those that wait, and looks whether what it hid is back.
func (w *world) undo(ctx context.Context, p *people) error {
	for _, x := range w.waits {
		if x.asked || w.party[x.owner] {
			continue
		}
		status, answer := ask(ctx, p.owners, "DELETE", apiURL+"/v1/erasures/"+x.id, w.img.owners[x.owner].token, "", nil)
		w.note("undo an erasure: %d", status)
		w.say("%s", answer)
		switch {
		case status/100 == 2:
			x.asked, x.undone = true, true
			w.books.show(x.hidden, false)
			w.kinds["undone"]++
			return w.read(ctx, p)
		case status/100 != 4: // it may be undone, and it may not
			x.asked = true
			w.books.show(x.hidden, true)
		}
		return nil
	}
	return nil
}

// waitedOut lets the windows end: what was not undone by then is carried out.
func (w *world) waitedOut(ctx context.Context, p *people) error {
	status, body := ask(ctx, p.admin, "GET", apiURL+"/v1/erasures?limit=1000", "", "", nil)
	var page struct{ Items []struct{ ID, State string } }
	if err := json.Unmarshal(body, &page); status != 200 || err != nil {
		return fmt.Errorf("list erasures: %d %s %v", status, body, err)
	}
	for _, e := range page.Items {
		if e.State == "waiting" {
			time.Sleep(62 * time.Minute)
			break
		}
	}
	return nil
}

// hide enters that a scope is shown to nobody, but may come back.
func (b *books) hide(s *scope) (hidden []*reading) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.all {
		switch {
		case s.covers(r) == no || r.gone:
		case r.state == acked && r.sent == 1 && s.covers(r) == yes:
			r.hidden++
			hidden = append(hidden, r)
		case r.state != refused:
			r.maybe = true // before or after, who knows
		}
	}
	return hidden
}

// show enters that readings are back, or may be.
func (b *books) show(hidden []*reading, maybe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range hidden {
		r.hidden--
		r.maybe = r.maybe || maybe
	}
}

// rekey has a party, or all, get fresh keys. Nothing changes for anybody.
func (w *world) rekey(ctx context.Context, p *people, at int) {
	what := map[string]any{"party": w.img.owners[w.img.devices[at].owner].party.String()}
	if w.r.IntN(3) == 0 {
		what = map[string]any{"all": true}
	}
	body, _ := json.Marshal(what)
	status, answer := ask(ctx, p.admin, "POST", apiURL+"/v1/rekeys", "", "application/json", body)
	w.note("rekey the owner of device %d, or all %v: %d", at, what["all"], status)
	w.say("%s", answer)
}

// rekeyed demands that all who were to get fresh keys have them.
func (w *world) rekeyed(ctx context.Context, p *people) error {
	status, body := ask(ctx, p.admin, "GET", apiURL+"/v1/rekeys?limit=1000", "", "", nil)
	var page struct{ Items []struct{ Left int } }
	if err := json.Unmarshal(body, &page); status != 200 || err != nil {
		return fmt.Errorf("list replacements of keys: %d %s %v", status, body, err)
	}
	for _, r := range page.Items {
		if r.Left > 0 {
			return fmt.Errorf("%d owners still wait for fresh keys a minute after the start of a sound hub", r.Left)
		}
	}
	return nil
}
