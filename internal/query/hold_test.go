package query_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

func holdBy(h *querytest.House, p access.Principal) grant.HoldBy {
	return grant.HoldBy{Caller: h.Caller(p), Administrator: p.Role == access.Administrator}
}

func hold(t *testing.T, h *querytest.House, by access.Principal, s grant.HoldSpec) grant.Hold {
	t.Helper()
	got, err := h.Register.AddHold(t.Context(), holdBy(h, by), s)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A restriction ends reads that are under way, of staff as of recipients, and
// leaves the owner's own and the collection alone.
func TestRestrictionEndsReadsUnderWay(t *testing.T) {
	h := querytest.Build(t)
	h.Purpose("research")
	anna, lab := h.Party("Anna"), h.Party("Lab")
	program := h.Program(lab.Party, "research")
	watch := h.Device(custody.DeviceSpec{Label: "watch", Owner: anna.Party})
	press := h.Device(custody.DeviceSpec{Label: "press"})
	for i := range 200 {
		h.Send(watch, number("heart", time.Duration(i)*time.Second, float64(i)))
		h.Send(press, number("load", time.Duration(i)*time.Second, float64(i)))
	}
	h.Grant(anna, grant.Spec{Recipient: lab.Party, Purpose: "research", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: h.Now().Add(time.Hour)})
	for name, c := range map[string]struct {
		reader, owner access.Principal
		device        custody.Device
		purpose       holdfast.Purpose
	}{
		"recipient": {program, anna, watch, "research"},
		"staff":     {h.Admin, access.Principal{Party: h.Acme, Role: access.Owner}, press, holdfast.Operation},
	} {
		t.Run(name, func(t *testing.T) {
			request := with(ask(c.reader, query.Selection{Device: c.device.ID}), c.purpose)
			res, err := h.Query.Read(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			var set grant.Hold
			given := 0
			var failed error
			for _, err := range res.Rows {
				if failed = err; err != nil {
					break
				}
				if given++; given == 10 {
					set = hold(t, h, c.owner, grant.HoldSpec{Kind: grant.Restriction, Whose: c.owner.Party})
				}
			}
			if holdfast.KindOf(failed) != holdfast.Denied || given > 50 {
				t.Errorf("%d rows of 200, then %v", given, failed)
			}
			refused(t, h.Query, holdfast.Denied, request)
			h.Send(c.device, number("more", 0, 1))
			if c.owner.Credential == anna.Credential {
				if rows, _ := collect(t, h.Query, ask(anna, query.Selection{Device: watch.ID})); len(rows) != 201 {
					t.Errorf("the owner himself reads %d rows", len(rows))
				}
			}
			if _, err := h.Register.EndHold(t.Context(), holdBy(h, c.owner), set.ID); err != nil {
				t.Fatal(err)
			}
			if rows, _ := collect(t, h.Query, request); len(rows) != 201 {
				t.Errorf("read again: %d rows", len(rows))
			}
		})
	}
}

// What is stopped is not taken from the next message on, and does not take along
// what comes with it.
func TestStopOfCollection(t *testing.T) {
	h := querytest.Build(t)
	anna := h.Party("Anna")
	watch := h.Device(custody.DeviceSpec{Label: "watch", Owner: anna.Party})
	send := func(samples ...holdfast.Sample) error {
		t.Helper()
		b := h.Gate.Batch(t.Context(), identity.Peer{Device: watch.ID, Assignment: watch.Assignment}, "")
		if err := b.Add("", samples, ingest.Delivery{}); err != nil {
			return err
		}
		acked := make(chan error, 1)
		b.Commit(func(err error) { acked <- err })
		return <-acked
	}
	stored := func() map[string][]float64 {
		t.Helper()
		rows, _ := collect(t, h.Query, ask(anna, query.Selection{Device: watch.ID}))
		return values(rows)
	}
	if err := send(number("heart", 0, 60), number("steps", 0, 1)); err != nil {
		t.Fatal(err)
	}
	stop := hold(t, h, anna, grant.HoldSpec{Kind: grant.CollectionStop, Whose: anna.Party, Assignments: []holdfast.AssignmentID{watch.Assignment}, Streams: []string{"heart", "sleep"}})
	if err := send(number("heart", time.Second, 61)); holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), "collection was stopped") {
		t.Errorf("stopped: %v", err)
	}
	if err := send(number("sleep", time.Second, 1)); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("a stream that was never there: %v", err)
	}
	if err := send(number("heart", 2*time.Second, 62), number("steps", 2*time.Second, 2), number("heart", 3*time.Second, 63)); err != nil {
		t.Errorf("steps come with what is stopped: %v", err)
	}
	if diff := cmp.Diff(map[string][]float64{"watch/heart": {60}, "watch/steps": {1, 2}}, stored()); diff != "" {
		t.Error(diff)
	}
	if all, err := h.Custody.Streams(t.Context(), watch.ID); err != nil || len(all) != 2 {
		t.Errorf("streams of what is stopped: %d, %v", len(all), err)
	}
	if _, err := h.Register.EndHold(t.Context(), holdBy(h, anna), stop.ID); err != nil {
		t.Fatal(err)
	}
	if err := send(number("heart", 4*time.Second, 64)); err != nil {
		t.Errorf("started again: %v", err)
	}
	if diff := cmp.Diff(map[string][]float64{"watch/heart": {60, 64}, "watch/steps": {1, 2}}, stored()); diff != "" {
		t.Error(diff)
	}
}
