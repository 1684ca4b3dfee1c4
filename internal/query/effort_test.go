package query_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// TestRefusalTellsNothingByItsEffort: how long a refusal takes must not tell how
// much there is. Allocations stand for time here.
func TestRefusalTellsNothingByItsEffort(t *testing.T) {
	h := querytest.Build(t)
	anna, ben, lab := h.Party("Anna"), h.Party("Ben"), h.Party("Lab")
	h.Purpose("research")
	h.Purpose("marketing")
	program := h.Program(lab.Party, "research", "marketing")
	var watch custody.Device
	for i := range 5 {
		watch = h.Device(custody.DeviceSpec{Label: fmt.Sprint("watch-", i), Owner: anna.Party})
		var all []holdfast.Sample
		for k := range 40 {
			all = append(all, number(fmt.Sprint("s", k), 0, 1))
		}
		h.Send(watch, all...)
	}
	spec := grant.Spec{Recipient: lab.Party, Purpose: "research", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: h.Now().Add(time.Hour)}
	h.Grant(ben, spec) // another's
	over := h.Grant(anna, spec)
	if err := h.Register.End(t.Context(), h.Caller(anna), over.ID); err != nil {
		t.Fatal(err)
	}
	for name, who := range map[string]access.Principal{"another owner": ben, "who had a grant": program} {
		ask := func(s query.Selection) query.Request {
			if r := ask(who, s); who.Role == access.Owner {
				return r
			} else {
				return with(r, "research")
			}
		}
		effort := func(s query.Selection) float64 {
			// The least of single questions: what else runs, and pools that are emptied
			// in between, add to some of them, and what a question itself does to all.
			least := math.Inf(1)
			for range 40 {
				least = min(least, testing.AllocsPerRun(1, func() { refused(t, h.Query, holdfast.Denied, ask(s)) }))
			}
			return least
		}
		nobody, nothing := query.Selection{Party: holdfast.NewID[holdfast.PartyID]()}, query.Selection{Device: holdfast.NewID[holdfast.DeviceID]()}
		if there, not := effort(query.Selection{Party: anna.Party}), effort(nobody); there > not+10 || not > there+20 {
			t.Errorf("%s: a party takes %v, nobody %v", name, there, not)
		}
		// One row more is opened for a device that is there; how many streams it has
		// must not matter.
		if there, not := effort(query.Selection{Device: watch.ID}), effort(nothing); there > not+120 {
			t.Errorf("%s: a device takes %v, none %v", name, there, not)
		}
	}
}

// TestSubjectIsFoundAtTheOwner: who asks for all of an owner gets what is about
// himself, and what somebody else whom it is about has granted.
func TestSubjectIsFoundAtTheOwner(t *testing.T) {
	h := querytest.Build(t)
	bob, carl, lab := h.Party("Bob"), h.Party("Carl"), h.Party("Lab")
	h.Purpose("research")
	for label, subject := range map[string]holdfast.PartyID{"van": bob.Party, "car": carl.Party} {
		h.Send(h.Device(custody.DeviceSpec{Label: label, Subject: subject}), number("speed", 0, 50))
	}
	h.Send(h.Device(custody.DeviceSpec{Label: "press"}), number("load", 0, 1))
	h.Grant(carl, grant.Spec{Recipient: lab.Party, Purpose: "research", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: h.Now().Add(time.Hour)})
	acme := query.Selection{Party: h.Acme}
	for want, r := range map[string]query.Request{"van/speed": ask(bob, acme), "/speed": with(ask(h.Program(lab.Party, "research"), acme), "research")} {
		rows, res := collect(t, h.Query, r)
		if diff := cmp.Diff(map[string][]float64{want: {50}}, values(rows)); diff != "" || res.Withheld != 0 {
			t.Error(res.Withheld, diff)
		}
	}
}
