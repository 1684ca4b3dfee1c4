package api

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/timeline"
)

// values counts the readings that a caller gets of a device.
func (h *house) values(token string, device holdfast.DeviceID) int {
	h.t.Helper()
	a := h.ask(token, "GET", "/v1/readings?from=2000-01-01&to=%2B5m&format=ndjson&device="+device.String(), "")
	if a.status == 403 {
		return 0
	}
	return strings.Count(a.is(200).body, `"stream":`)
}

// past sends ten readings of the watch that lie behind us, and returns when the first
// and what is behind the last.
func (h *house) past() (from, to time.Time) {
	h.t.Helper()
	from = h.watch.Added.Add(time.Millisecond)
	for i := range 10 {
		h.Send(h.watch, querytest.At("pulse", from.Add(time.Duration(i)*time.Microsecond), holdfast.NumberValue(float64(i))))
	}
	to = from.Add(10 * time.Microsecond)
	for time.Now().Before(to) {
	}
	return from, to
}

func period(device, owner string, more ...string) string {
	return fmt.Sprintf(`{"device":%q,"owner":%q,"basis":"guest"%s}`, device, owner, strings.Join(more, ""))
}

func exact(name string, at time.Time) string {
	return fmt.Sprintf(`,%q:%q`, name, at.UTC().Format(time.RFC3339Nano))
}

// Whoever may not know of a period learns nothing of it, who may sees it and can end
// it, and what he reads of the device is his slice.
func TestAssignments(t *testing.T) {
	h := build(t, Limits{})
	before := h.values(h.anna, h.watch.ID)
	var a ChangedAssignment
	h.ask(h.anna, "POST", "/v1/assignments", period("watch", h.benID.String(), `,"erase_after_days":30`)).is(201).into(&a)
	if a.Owner.ID != h.benID.String() || !a.Period || a.From == nil || a.To != nil {
		t.Fatalf("added: %+v", a)
	}
	h.Send(h.watch, querytest.At("pulse", time.Now(), holdfast.NumberValue(1)), querytest.At("oxygen", time.Now(), holdfast.NumberValue(99)))
	if n := h.values(h.anna, h.watch.ID); n != before {
		t.Errorf("the owner reads %d, had %d", n, before)
	}
	if n := h.values(h.ben, h.watch.ID); n != 2 {
		t.Errorf("the guest reads %d", n)
	}
	device := "/v1/devices/" + h.watch.ID.String()
	h.ask(h.ben, "GET", device, "").is(200).shows("oxygen", `"readings":1`, h.benID.String()).hides(h.annaID.String(), annaName, "certificates")
	h.ask(h.anna, "GET", device, "").is(200).shows("pulse").hides("oxygen")
	h.ask(h.ben, "GET", "/v1/me/data", "").is(200).shows("oxygen").hides(h.annaID.String())
	h.ask(h.anna, "GET", "/v1/me/data", "").is(200).hides("oxygen")
	h.ask(h.ben, "GET", "/v1/devices", "").is(200).shows(h.watch.ID.String())

	list := "/v1/assignments?device=" + h.watch.ID.String()
	h.ask(h.anna, "GET", list, "").is(200).shows(a.ID, h.watch.Assignment.String())
	h.ask(h.ben, "GET", list, "").is(200).shows(a.ID).hides(h.watch.Assignment.String(), h.annaID.String())
	h.ask(h.anna, "GET", list+"&known="+url.QueryEscape(a.Recorded.Add(-time.Millisecond).Format(time.RFC3339Nano)), "").is(200).hides(a.ID)
	h.ask(h.institute, "GET", list, "").is(403)
	for _, path := range []string{"", "/history"} {
		h.ask(h.ben, "GET", "/v1/assignments/"+a.ID+path, "").is(200).shows(a.ID)
	}
	h.ask(h.ben, "GET", "/v1/assignments/"+h.watch.Assignment.String(), "").is(404)
	h.ask(h.ben, "POST", "/v1/assignments/"+a.ID+"/terms", `{"erase_after_days":1}`).is(403)
	h.ask(h.anna, "POST", "/v1/assignments/"+a.ID+"/terms", `{"erase_after_days":60}`).is(200).shows(`"erase_after_days":60`)
	h.ask(h.ben, "POST", "/v1/assignments/"+a.ID+"/end", "").is(200).shows(`"to":`)
	h.ask(h.ben, "GET", "/v1/ledger/entries", "").is(200).shows("period added", "period changed", "period ended")
	h.ask(h.anna, "GET", "/v1/assignments/"+a.ID+"/history", "").is(200).shows("superseded")
	h.Send(h.watch, querytest.At("pulse", time.Now(), holdfast.NumberValue(1)))
	if n := h.values(h.anna, h.watch.ID); n != before+1 {
		t.Errorf("after the end the owner reads %d, had %d", n, before)
	}
	// He erases his slice, and the rest stays.
	h.ask(h.ben, "POST", "/v1/erasures", `{"device":"`+h.watch.ID.String()+`"}`).is(200).shows(a.ID).hides(h.watch.Assignment.String())
	if n, m := h.values(h.anna, h.watch.ID), h.values(h.ben, h.watch.ID); n != before+1 || m != 0 {
		t.Errorf("after the erasure of the slice: %d and %d", n, m)
	}
	h.ask(h.anna, "GET", list, "").is(200).hides(a.ID)
}

func TestAssignmentsThatAreRefused(t *testing.T) {
	h := build(t, Limits{})
	from, to := h.past()
	ben := h.benID.String()
	for _, k := range []struct {
		who, body string
		status    int
		words     string
	}{
		{h.anna, period("watch", ben, exact("from", from), exact("to", from)), 422, "ends before it begins"},
		{h.anna, period("watch", ben, exact("from", from.Add(-time.Hour))), 422, "before the device was its owner's"},
		{h.anna, period("watch", "Nobody"), 404, "no such party"},
		{h.anna, period("watch", ben, `,"hours":"Mo-Fr 08:00-17:00","zone":"Mars/North"`), 422, "zone of the IANA database"},
		{h.anna, period("watch", ben, `,"hours":"every day","zone":"UTC"`), 422, "hours look like"},
		{h.anna, period("watch", ben, exact("from", from), exact("to", to)), 409, "10 readings of that time are there already"},
		{h.anna, period("watch", ben, exact("from", from), `,"already":"perhaps"`), 422, "keep, erase or move"},
		{h.ben, period(h.watch.ID.String(), ben), 404, "no such device"},
		{h.admin, period(h.watch.ID.String(), ben), 403, "the device's owner gives its time to others"},
		{h.reader, period("pump-1", ben), 403, ""},
	} {
		a := h.ask(k.who, "POST", "/v1/assignments", k.body)
		if a.status != k.status && !(k.status == 422 && a.status == 400) || !strings.Contains(a.problem().Detail, k.words) {
			t.Errorf("%s answers %d %s, want %d %q", k.body, a.status, a.body, k.status, k.words)
		}
	}
	h.ask(h.anna, "GET", "/v1/assignments?device=watch", "").is(200).hides(ben)
	h.ask(h.admin, "POST", "/v1/assignments", period("pump-1", benName)).is(201)
	h.ask(h.admin, "POST", "/v1/assignments", period("pump-1", benName)).is(409).shows("another period")
}

// What becomes of readings that are there already is said, and done.
func TestPeriodsThatBeginInThePast(t *testing.T) {
	for _, k := range []struct {
		already    string
		anna, ben  int // of the ten
		takes      func(ChangedAssignment) bool
		thenToAnna string // what becomes of them when the period is taken back
		back       int
	}{
		{"keep", 10, 0, func(c ChangedAssignment) bool { return c.Moved == 0 && len(c.Erasures) == 0 }, "keep", 10},
		{"erase", 0, 0, func(c ChangedAssignment) bool { return c.Moved == 0 && len(c.Erasures) == 1 }, "keep", 0},
		{"move", 0, 10, func(c ChangedAssignment) bool { return c.Moved == 10 && len(c.Erasures) == 1 }, "move", 10},
	} {
		t.Run(k.already, func(t *testing.T) {
			h := build(t, Limits{})
			base := h.values(h.anna, h.watch.ID)
			from, to := h.past()
			var c ChangedAssignment
			h.ask(h.anna, "POST", "/v1/assignments", period("watch", h.benID.String(), exact("from", from), exact("to", to), `,"already":"`+k.already+`"`)).is(201).into(&c)
			if !k.takes(c) || c.Pending {
				t.Errorf("%+v", c)
			}
			for range 2 {
				h.settled(c.Erasures)
				if anna, ben := h.values(h.anna, h.watch.ID), h.values(h.ben, h.watch.ID); anna != base+k.anna || ben != k.ben {
					t.Errorf("Anna has %d of %d, Ben %d of %d", anna-base, k.anna, ben, k.ben)
				}
				h.Roll()
			}
			// What a device sends again late is that of the time's owner.
			h.Send(h.watch, querytest.At("pulse", from, holdfast.NumberValue(77)))
			if ben := h.values(h.ben, h.watch.ID); ben != k.ben+1 {
				t.Errorf("Ben has %d", ben)
			}
			// Anna can't take it back with what is Ben's.
			end := "/v1/assignments/" + c.ID + "/end"
			h.ask(h.anna, "POST", end, "{"+exact("at", from)[1:]+`}`).is(409).shows("was another's").hides("readings of that time are there")
			h.ask(h.anna, "POST", end, "{"+exact("at", from)[1:]+`,"already":"move"}`).is(403)
			if k.thenToAnna == "move" { // he can let her have it
				h.ask(h.ben, "POST", end, "{"+exact("at", from)[1:]+`}`).is(409).shows("11 readings")
				h.ask(h.ben, "POST", end, "{"+exact("at", from)[1:]+`,"already":"move"}`).is(200).into(&c)
				if c.Moved != 11 {
					t.Errorf("moved back: %+v", c)
				}
				h.settled(c.Erasures)
				if anna, ben := h.values(h.anna, h.watch.ID), h.values(h.ben, h.watch.ID); anna != base+11 || ben != 0 {
					t.Errorf("moved back: Anna has %d, Ben %d", anna-base, ben)
				}
			}
		})
	}
}

// settled waits for erasures.
func (h *house) settled(ids []string) {
	h.t.Helper()
	for _, id := range ids {
		h.ask("", "GET", "/v1/erasures/"+id+"?wait=30", "").is(200).shows(`"state":"done"`)
	}
}

// A period that is over erases itself when its days are past and not before, unless a
// hold keeps it; what a crash left pending is gone on with, and nothing moves twice.
func TestPeriodsThatEraseThemselves(t *testing.T) {
	h := build(t, Limits{})
	now, held := time.Now(), true
	l := timeline.New(timeline.Deps{Custody: h.House.Custody, Query: h.House.Query, Series: h.Series, Ingest: h.Gate, Erasure: h.API.Erasure,
		Now: func() time.Time { return now }, Held: func(custody.Assignment) bool { return held }})
	var a ChangedAssignment
	h.ask(h.anna, "POST", "/v1/assignments", period("watch", h.benID.String(), `,"erase_after_days":2`)).is(201).into(&a)
	h.Send(h.watch, querytest.At("pulse", time.Now(), holdfast.NumberValue(1)))
	h.ask(h.anna, "POST", "/v1/assignments/"+a.ID+"/end", "").is(200)
	for _, k := range []struct {
		after time.Duration
		held  bool
		left  int
	}{{47 * time.Hour, false, 1}, {49 * time.Hour, true, 1}, {49 * time.Hour, false, 0}} {
		now, held = time.Now().Add(k.after), k.held
		h.must(l.Once(t.Context()))
		if n := h.values(h.ben, h.watch.ID); n != k.left {
			t.Errorf("after %v, held %v: %d readings", k.after, k.held, n)
		}
	}
	h.ask(h.ben, "GET", "/v1/assignments/"+a.ID, "").is(404)
}

// What a crash left pending is gone on with. Readings that were moved before it don't
// move twice, though they have no time of their own to tell a repeat by.
func TestMovingGoesOnAfterACrash(t *testing.T) {
	h := build(t, Limits{})
	base := h.values(h.anna, h.watch.ID)
	from := h.watch.Added.Add(time.Millisecond)
	for range 3 { // without a time: they have that of their arrival
		h.Send(h.watch, holdfast.Sample{Stream: "steps", Value: holdfast.NumberValue(1), Literal: true})
	}
	to := time.Now()
	spans, _, err := custody.Shifted(custody.Assignment{}, custody.Assignment{From: from, To: to}, to, 10)
	h.must(err)
	period, err := h.House.Custody.AddPeriod(t.Context(), h.Admin.Credential, custody.PeriodSpec{Device: h.watch.ID, Owner: h.benID,
		Terms:   custody.Terms{Basis: custody.Loan, From: from, To: to},
		Pending: &custody.Pending{Move: true, Gained: spans, Party: h.annaID}})
	h.must(err)
	// One of them had moved when the power went.
	route, err := h.House.Custody.RouteInto(t.Context(), period)
	h.must(err)
	steps, err := h.House.Custody.StreamByName(t.Context(), h.watch.ID, "steps")
	h.must(err)
	moved := 0
	for b, err := range h.Series.Read(t.Context(), []series.Want{{Assignment: h.watch.Assignment, Stream: steps.ID, Span: holdfast.Always}}) {
		h.must(err)
		r := b.Columns.Reading(b.From)
		if moved++; moved == 1 {
			_, err := h.Gate.Move(t.Context(), route, steps, func(yield func(holdfast.Reading, error) bool) { yield(r, nil) })
			h.must(err)
		}
	}
	h.ask(h.anna, "POST", "/v1/assignments/"+period.ID.String()+"/end", "").is(409)
	h.must(h.API.Timeline.Once(t.Context()))
	var all Page[Erasure]
	h.ask(h.anna, "GET", "/v1/erasures", "").is(200).into(&all)
	for _, e := range all.Items {
		h.settled([]string{e.ID})
	}
	if anna, ben := h.values(h.anna, h.watch.ID), h.values(h.ben, h.watch.ID); anna != base || ben != 3 || len(all.Items) != 1 {
		t.Errorf("Anna has %d of %d, Ben %d of 3, by %d erasures", anna, base, ben, len(all.Items))
	}
	h.ask(h.ben, "GET", "/v1/assignments/"+period.ID.String(), "").is(200).hides("pending")
}
