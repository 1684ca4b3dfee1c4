package custody

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func (h *hub) period(s PeriodSpec) Assignment {
	h.t.Helper()
	a, err := h.AddPeriod(h.t.Context(), h.admin, s)
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

// at returns whose assignment a reading of a time that arrives now belongs to.
func (h *hub) at(d holdfast.DeviceID, t time.Time) *Route {
	h.t.Helper()
	r, _ := h.route(d).At(t.UnixNano(), h.clock.UnixNano())
	return r
}

func schedule(t testing.TB, hours, zone string) *Schedule {
	t.Helper()
	s, err := ParseSchedule(hours, zone)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A loan to a guest and back: what lies in it is his, what lies around it is not, and
// each has streams and a key of his own.
func TestLoan(t *testing.T) {
	h := newHub(t)
	ada, bob := h.party("Ada"), h.party("Bob")
	d := h.device(DeviceSpec{Label: "bike", Owner: ada})
	mine := h.send(d.ID, number("speed", 1))
	h.clock = h.clock.Add(time.Hour)
	loan := h.period(PeriodSpec{Device: d.ID, Owner: bob, Terms: Terms{Basis: Guest, EraseAfter: 30}})
	his := h.at(d.ID, h.clock)
	if his.Assignment != loan.ID || his.Owner != bob || h.at(d.ID, h.clock.Add(-time.Second)).Assignment != d.Assignment {
		t.Error("readings are not told apart by their time")
	}
	x := number("speed", 2)
	s, _, err := h.Accept(t.Context(), his, &x)
	if err != nil || s.ID == mine.ID || s.Assignment != loan.ID {
		t.Fatalf("the guest's stream: %+v, %v", s, err)
	}
	if again, err := h.StreamNamed(t.Context(), loan.ID, "speed"); err != nil || again.ID != s.ID {
		t.Errorf("found again: %+v, %v", again, err)
	}
	h.clock = h.clock.Add(time.Hour)
	ended, err := h.EndPeriod(t.Context(), h.admin, loan.ID, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if !ended.To.Equal(h.clock) || !ended.Ends().Equal(h.clock.AddDate(0, 0, 30)) {
		t.Errorf("ended: %+v", ended)
	}
	if h.at(d.ID, h.clock).Assignment != d.Assignment || h.at(d.ID, h.clock.Add(-time.Second)).Assignment != loan.ID {
		t.Error("after the end")
	}
	for _, who := range []holdfast.PartyID{ada, bob} {
		kinds := h.diary.kinds(vault.OfParty(who))
		if !slices.Contains(kinds, "period added") || !slices.Contains(kinds, "period ended") {
			t.Errorf("on his record: %v", kinds)
		}
	}
	due, _, err := h.Due(t.Context(), h.clock.AddDate(0, 0, 31))
	if err != nil || len(due) != 1 || due[0].ID != loan.ID {
		t.Errorf("due: %v, %v", due, err)
	}
	h.restart()
	if h.at(d.ID, h.clock.Add(-time.Second)).Assignment != loan.ID {
		t.Error("after a restart")
	}
	if h.onDisk("speed") || h.onDisk(`"from"`) {
		t.Error("something stands in clear")
	}
}

// What was known stays known: each change has the time from which and until which it
// was.
func TestVersionsOfAPeriod(t *testing.T) {
	h := newHub(t)
	bob := h.party("Bob")
	d := h.device(DeviceSpec{Label: "car"})
	start := h.clock
	h.clock = h.clock.Add(time.Hour)
	a := h.period(PeriodSpec{Device: d.ID, Owner: bob, Terms: Terms{Basis: Lease, From: start.Add(2 * time.Hour), To: start.Add(10 * time.Hour)}})
	h.clock = h.clock.Add(time.Hour)
	longer := a.Terms()
	longer.To = start.Add(20 * time.Hour)
	if _, err := h.ChangePeriod(t.Context(), h.admin, a.ID, longer); err != nil {
		t.Fatal(err)
	}
	h.clock = h.clock.Add(time.Hour)
	if _, err := h.EndPeriod(t.Context(), h.admin, a.ID, start.Add(5*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		at   time.Duration // after the start
		ends time.Duration
	}{{time.Hour, 10 * time.Hour}, {2*time.Hour - 1, 10 * time.Hour}, {2 * time.Hour, 20 * time.Hour}, {3 * time.Hour, 5 * time.Hour}} {
		all, err := h.AssignmentsKnown(t.Context(), d.ID, start.Add(k.at))
		if err != nil || len(all) != 2 || all[1].ID != a.ID || !all[1].To.Equal(start.Add(k.ends)) {
			t.Errorf("as known after %v: %+v, %v", k.at, all, err)
		}
	}
	if all, err := h.AssignmentsKnown(t.Context(), d.ID, start.Add(time.Hour-1)); err != nil || len(all) != 1 || all[0].Period {
		t.Errorf("before it was known: %+v, %v", all, err)
	}
	now, err := h.AssignmentsOf(t.Context(), d.ID)
	if err != nil {
		t.Fatal(err)
	}
	past, err := h.History(t.Context(), now[1])
	if err != nil || len(past) != 3 || !past[2].Superseded.IsZero() || !past[0].Superseded.Equal(past[1].Recorded) {
		t.Errorf("history: %+v, %v", past, err)
	}
}

func TestPeriodsThatAreRefused(t *testing.T) {
	h := newHub(t)
	bob := h.party("Bob")
	d := h.device(DeviceSpec{Label: "car"})
	nobodys := h.device(DeviceSpec{Label: "box", Unclaimed: true})
	start := h.clock
	h.clock = h.clock.Add(time.Hour)
	taken := h.period(PeriodSpec{Device: d.ID, Owner: bob, Terms: Terms{Basis: Lease, From: start.Add(2 * time.Hour), To: start.Add(4 * time.Hour)}})
	before, err := h.AssignmentsOf(t.Context(), d.ID)
	if err != nil {
		t.Fatal(err)
	}
	good := Terms{Basis: Loan, From: start.Add(5 * time.Hour), To: start.Add(6 * time.Hour)}
	with := func(change func(*Terms)) Terms {
		terms := good
		change(&terms)
		return terms
	}
	for name, k := range map[string]struct {
		spec  PeriodSpec
		kind  holdfast.Kind
		words string
	}{
		"overlap":        {PeriodSpec{Device: d.ID, Owner: bob, Terms: with(func(t *Terms) { t.From = start.Add(4*time.Hour - 1) })}, holdfast.Conflict, "another period"},
		"open overlap":   {PeriodSpec{Device: d.ID, Owner: bob, Terms: Terms{Basis: Loan}}, holdfast.Conflict, "another period"},
		"end first":      {PeriodSpec{Device: d.ID, Owner: bob, Terms: with(func(t *Terms) { t.To = t.From })}, holdfast.Invalid, "ends before it begins"},
		"no such party":  {PeriodSpec{Device: d.ID, Owner: holdfast.NewID[holdfast.PartyID](), Terms: good}, holdfast.NotFound, "no such party"},
		"no such device": {PeriodSpec{Device: holdfast.NewID[holdfast.DeviceID](), Owner: bob, Terms: good}, holdfast.NotFound, "no such device"},
		"unclaimed":      {PeriodSpec{Device: nobodys.ID, Owner: bob, Terms: good}, holdfast.Conflict, "unclaimed"},
		"before life":    {PeriodSpec{Device: d.ID, Owner: bob, Terms: with(func(t *Terms) { t.From = start.Add(-1); t.To = start.Add(time.Hour) })}, holdfast.Invalid, "before the device was its owner's"},
		"basis":          {PeriodSpec{Device: d.ID, Owner: bob, Terms: with(func(t *Terms) { t.Basis = "theft" })}, holdfast.Invalid, "basis"},
		"zone":           {PeriodSpec{Device: d.ID, Owner: bob, Terms: with(func(t *Terms) { t.Schedule = &Schedule{Zone: "Mars/North", Shifts: []Shift{{time.Monday, 0, 60}}} })}, holdfast.Invalid, "zone"},
		"erase after":    {PeriodSpec{Device: d.ID, Owner: bob, Terms: with(func(t *Terms) { t.EraseAfter = -1 })}, holdfast.Invalid, "erases itself"},
	} {
		_, err := h.AddPeriod(t.Context(), h.admin, k.spec)
		t.Log(name)
		wants(t, err, k.kind, k.words)
	}
	_, err = h.EndPeriod(t.Context(), h.admin, taken.ID, start.Add(time.Hour))
	wants(t, err, holdfast.Invalid, "can't end before")
	_, err = h.EndPeriod(t.Context(), h.admin, taken.ID, start.Add(4*time.Hour))
	wants(t, err, holdfast.Conflict, "already")
	_, err = h.EndPeriod(t.Context(), h.admin, d.Assignment, time.Time{})
	wants(t, err, holdfast.Conflict, "own assignment")
	_, err = h.ChangePeriod(t.Context(), h.admin, taken.ID, Terms{Basis: Lease, From: start.Add(4 * time.Hour), To: start.Add(3 * time.Hour)})
	wants(t, err, holdfast.Invalid, "ends before it begins")
	h.diary.broken = holdfast.Errorf(holdfast.Unavailable, "no ledger")
	_, err = h.AddPeriod(t.Context(), h.admin, PeriodSpec{Device: d.ID, Owner: bob, Terms: good})
	wants(t, err, holdfast.Unavailable, "no ledger")
	h.diary.broken = nil
	after, err := h.AssignmentsOf(t.Context(), d.ID)
	if diff := cmp.Diff(before, after, cmpopts.IgnoreUnexported(Schedule{})); err != nil || diff != "" {
		t.Errorf("state has changed: %v %s", err, diff)
	}
}

// Erasing a period leaves its time nobody's: what comes late of it does not become the
// owner's. Erasing the device leaves the period to whom it is.
func TestErasePeriodAndDevice(t *testing.T) {
	h := newHub(t)
	ada, bob, eve := h.party("Ada"), h.party("Bob"), h.party("Eve")
	d := h.device(DeviceSpec{Label: "bike", Owner: ada})
	first := h.period(PeriodSpec{Device: d.ID, Owner: bob, Terms: Terms{Basis: Guest}})
	begun := h.clock
	h.clock = h.clock.Add(time.Hour)
	s, err := h.ScopeOfSlice(t.Context(), d.ID, bob)
	if err != nil || !slices.Equal(s.Assignments, []holdfast.AssignmentID{first.ID}) || s.Party != bob {
		t.Fatalf("scope %+v, %v", s, err)
	}
	if own, err := h.ScopeOfDevice(t.Context(), d.ID); err != nil || !slices.Equal(own.Assignments, []holdfast.AssignmentID{d.Assignment}) {
		t.Fatalf("scope %+v, %v", own, err)
	}
	for range 2 { // it may run again
		if err := h.Erase(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		h.keys.destroy(vault.OfAssignment(first.ID))
	}
	if err := h.at(d.ID, begun.Add(time.Minute)).Denied(); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("a late reading of the erased period: %v", err)
	}
	if h.at(d.ID, h.clock).Assignment != d.Assignment {
		t.Error("the device's readings are not its owner's after the erasure")
	}
	_, err = h.AddPeriod(t.Context(), h.admin, PeriodSpec{Device: d.ID, Owner: eve, Terms: Terms{Basis: Guest, From: begun}})
	wants(t, err, holdfast.Conflict, "erased")

	second := h.period(PeriodSpec{Device: d.ID, Owner: eve, Terms: Terms{Basis: Guest, EraseAfter: 1}})
	x := number("speed", 1)
	if _, _, err := h.Accept(t.Context(), h.at(d.ID, h.clock), &x); err != nil {
		t.Fatal(err)
	}
	h.clock = h.clock.Add(time.Hour)
	s, err = h.ScopeOfDevice(t.Context(), d.ID)
	if err != nil {
		t.Fatal(err)
	}
	s.Before = h.clock.UnixNano()
	for range 2 {
		if err := h.Erase(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		h.keys.destroy(vault.OfAssignment(d.Assignment))
	}
	a, err := h.Assignment(t.Context(), second.ID)
	if err != nil || a.State != Active || !a.To.Equal(h.clock) {
		t.Errorf("the other's period: %+v, %v", a, err)
	}
	if all, err := h.StreamsOfAssignment(t.Context(), a); err != nil || len(all) != 1 {
		t.Errorf("its streams: %v, %v", all, err)
	}
	if all, err := h.Holders(t.Context(), d.ID); err != nil || len(all) != 1 || all[0].ID != second.ID {
		t.Errorf("holders: %v, %v", all, err)
	}
	if _, err := h.Route(t.Context(), d.ID); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("the erased device has a route: %v", err)
	}
}

// Closing a device ends its periods; closing a period leaves the others.
func TestClosePeriodAndDevice(t *testing.T) {
	h := newHub(t)
	bob, eve := h.party("Bob"), h.party("Eve")
	d := h.device(DeviceSpec{Label: "car"})
	day := schedule(t, "Mo-Su 08:00-20:00", "UTC")
	night := schedule(t, "Mo-Su 20:00-08:00", "UTC")
	his := h.period(PeriodSpec{Device: d.ID, Owner: bob, Terms: Terms{Basis: Employ, Schedule: day}})
	hers := h.period(PeriodSpec{Device: d.ID, Owner: eve, Terms: Terms{Basis: Employ, Schedule: night}})
	if h.at(d.ID, h.clock).Assignment != his.ID {
		t.Fatal("the day is not his")
	}
	h.clock = h.clock.Add(24 * time.Hour)
	if err := h.CloseAssignment(t.Context(), h.admin, his.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.at(d.ID, h.clock.Add(-time.Hour)).Denied(); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("a late reading of a closed period: %v", err)
	}
	if h.at(d.ID, h.clock.Add(-12*time.Hour)).Assignment != hers.ID {
		t.Error("the night is not hers any more")
	}
	if h.at(d.ID, h.clock.Add(time.Minute)).Assignment != d.Assignment {
		t.Error("the day is not the owner's again")
	}
	if err := h.CloseAssignment(t.Context(), h.admin, d.Assignment); err != nil {
		t.Fatal(err)
	}
	a, err := h.Assignment(t.Context(), hers.ID)
	if err != nil || !a.To.Equal(h.clock) || a.State != Active {
		t.Errorf("the period of a closed device: %+v, %v", a, err)
	}
}
