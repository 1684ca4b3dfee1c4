package simtest

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// erase draws an erasure and asks for it, as somebody who has something of a device.
func (w *world) erase(ctx context.Context, p *people, at int) {
	s, what := w.drawScope(at)
	w.askErasure(ctx, p, s, what)
}

// drawScope draws what is to be erased, with how it is asked for.
func (w *world) drawScope(at int) (*scope, map[string]string) {
	d := w.img.devices[at]
	whose := d.users()[w.r.IntN(len(d.users()))]
	s, what := &scope{devices: []int{at}, whose: whose}, map[string]string{"device": d.id.String()}
	if len(d.users()) > 1 && w.r.IntN(2) == 0 {
		what["whose"] = w.img.owners[whose].party.String()
	}
	party := func() {
		what = map[string]string{"party": w.img.owners[whose].party.String()}
		s.devices = w.img.has(whose)
	}
	switch x := w.r.IntN(20); {
	case x < 5:
		w.narrow(s, what)
		w.span(s, what)
	case x < 8:
		w.narrow(s, what)
	case x < 9: // all that he has of it
	case x < 10:
		party()
	case x < 14:
		if w.r.IntN(2) == 0 {
			party()
		} else if w.r.IntN(3) == 0 {
			w.narrow(s, what)
		}
		w.monthOver(s, what)
	case x < 18:
		if w.r.IntN(2) == 0 {
			party()
		}
		w.categoryOf(s, what)
	default:
		w.categoryOf(s, what)
		w.span(s, what)
	}
	return s, what
}

func (w *world) narrow(s *scope, what map[string]string) {
	what["stream"] = streams[w.r.IntN(len(streams))]
	s.streams = []string{what["stream"]}
}

func (w *world) span(s *scope, what map[string]string) {
	s.to = time.Now().Add(-time.Duration(w.r.Int64N(int64(time.Hour)))).Truncate(time.Second)
	s.from = s.to.Add(-time.Duration(1+w.r.Int64N(3600)) * time.Second)
	what["from"], what["to"] = s.from.UTC().Format(time.RFC3339), s.to.UTC().Format(time.RFC3339)
}

// monthOver is the month before this one, or this one, which is refused.
func (w *world) monthOver(s *scope, what map[string]string) {
	month := time.Now().UTC()
	if w.r.IntN(4) > 0 {
		month = month.AddDate(0, 0, -month.Day())
	}
	s.month, what["month"] = monthOf(month), month.Format("2006-01")
}

// categories of the image's streams.
var categories = map[string][]string{"pd:GPSCoordinate": {"n", "n_n"}, "pd:Location": {"n", "n_n", "s"}}

func (w *world) categoryOf(s *scope, what map[string]string) {
	name := []string{"pd:GPSCoordinate", "pd:Location"}[w.r.IntN(2)]
	s.streams, what["category"] = categories[name], name
}

func (w *world) askErasure(ctx context.Context, p *people, s *scope, what map[string]string) {
	body, _ := json.Marshal(what)
	asked := time.Now()
	status, answer := ask(ctx, p.owners, "POST", fmt.Sprintf("%s/v1/erasures?wait=%d", apiURL, w.r.IntN(30)), w.img.owners[s.whose].token, "application/json", body)
	w.note("erase %v of owner %d, streams %v, span %v, month %d: %d", s.devices, s.whose, s.streams, s.span(), s.month, status)
	known := status/100 == 2
	if !known && status/100 == 4 {
		w.say("%s", answer)
		return // refused: nothing was erased
	}
	w.erased++
	w.kinds[s.kind(what)]++
	w.books.erase(s, known)
	if !s.whole() {
		return
	}
	for _, i := range s.devices {
		if w.img.devices[i].owner == s.whose {
			w.gone[i], w.things[i].closed = true, true
		} else {
			w.lapses(i, asked, known)
		}
	}
	if what["party"] != "" {
		w.party[s.whose] = true
	}
}

// kind names a scope, to count those that were tried.
func (s *scope) kind(what map[string]string) string {
	switch {
	case s.month != 0:
		return "month"
	case what["category"] != "":
		return "category"
	case s.span():
		return "span"
	case len(s.streams) > 0:
		return "stream"
	case what["party"] != "":
		return "party"
	}
	return "device"
}
