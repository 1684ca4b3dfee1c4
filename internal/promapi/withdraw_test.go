package promapi

import (
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// What is taken back before an answer is given out ends it, although all of it was
// read and worked out before.
func TestTakenBackBeforeItIsGiven(t *testing.T) {
	h := querytest.Build(t)
	h.Purpose("study")
	anna := h.Party("Anna")
	institute := h.Party("Institute")
	watch := h.Device(custody.DeviceSpec{Label: "watch", Owner: anna.Party})
	h.Send(watch, querytest.At("pulse", h.Now().Add(-time.Minute), holdfast.NumberValue(61)))
	g := h.Grant(anna, grant.Spec{Recipient: institute.Party, Purpose: "study", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: h.Now().Add(time.Hour)})
	e := New(h.Query, h.Custody, Options{Recheck: time.Nanosecond, Now: h.Now})
	program := h.Program(institute.Party, "study")
	by := asker{who: program, purpose: "study", live: func() error { return nil }}
	q := question{expr: `pulse`, start: h.Now(), end: h.Now()}
	a, err := e.ask(t.Context(), by, q)
	if err != nil || a.value.String() == "" {
		t.Fatalf("with the grant: %v", err)
	}
	if err := a.still(t.Context()); err != nil {
		t.Fatalf("the grant stands: %v", err)
	}
	if err := h.Register.End(t.Context(), h.Caller(anna), g.ID); err != nil {
		t.Fatal(err)
	}
	if err := a.still(t.Context()); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("an answer that is still being given out: %v", err)
	}
	by.live = func() error { return holdfast.Errorf(holdfast.Denied, "the credential has ended") }
	if _, err := e.ask(t.Context(), by, question{expr: `1`, start: h.Now(), end: h.Now()}); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("without a credential: %v", err)
	}
}

// Who may check an expression for an alarm has it worked out as himself.
func TestEvaluate(t *testing.T) {
	h := querytest.Build(t)
	anna := h.Party("Anna")
	watch := h.Device(custody.DeviceSpec{Label: "watch", Owner: anna.Party})
	h.Send(watch, querytest.At("pulse", h.Now().Add(-time.Minute), holdfast.NumberValue(61)))
	e := New(h.Query, h.Custody, Options{})
	for _, wrong := range []string{`pulse >`, `pulse[5m]`, `"text"`} {
		if err := e.Check(wrong); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	all, err := e.Evaluate(t.Context(), anna, holdfast.OwnAccess, `pulse > 60`, h.Now())
	if err != nil || len(all) != 1 || all[0].Value != 61 || all[0].Labels["device"] != "watch" || !all[0].Time.Equal(h.Now().Truncate(time.Millisecond)) {
		t.Errorf("%+v %v", all, err)
	}
	if all, err = e.Evaluate(t.Context(), h.Party("Ben"), holdfast.OwnAccess, `pulse`, h.Now()); err != nil || len(all) != 0 {
		t.Errorf("Ben's: %+v %v", all, err)
	}
	if _, err = e.Evaluate(t.Context(), access.Principal{Role: access.Owner, Party: anna.Party}, "", `pulse`, h.Now()); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("without the scope: %v", err)
	}
}
