package server

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

var errCrash = errors.New("the hub crashes here")

// The hub crashes at each step of an erasure, of a whole party and of a span side by
// side: after the restart both are done, with the certificate that they would have had,
// and at most one rotation more. TestKilledWhileErasing does so with kill -9 at any
// moment, TestEveryStepOfAStory with the power, at each write.
func TestCrashAtEachStepOfAnErasure(t *testing.T) {
	h := newHouse(t)
	ben := h.owner("Ben")
	h.mustSend(ben.device, number("pulse", time.Now(), 60))
	steps := h.Server.erasure.Steps()
	twice := []string{"barred", "rotated", "destroyed", "Readings", "recorded", "certified"} // in either lane
	if !long() {                                                                             // of the places one
		places := reflect.TypeFor[erasure.Places]()
		steps = slices.DeleteFunc(steps, func(s string) bool {
			f, place := places.FieldByName(s)
			return place && f.Type == reflect.TypeFor[erasure.Place]() && s != "Readings"
		})
	}
	reached := 0
	for at, step := range steps {
		for nth := 1; nth <= 2; nth++ {
			if nth == 2 && !slices.Contains(twice, step) {
				continue
			}
			x := &crash{house: h, step: step, left: nth}
			x.plant(fmt.Sprintf("%d %d", at, nth))
			if x.play() {
				reached++
			} else {
				t.Errorf("%s, for the %d. time: no erasure comes there", step, nth)
			}
			if got, err := h.read(ben.Principal, ben.device, "pulse"); err != nil || len(got) != 1 {
				t.Fatalf("%s: the other owner has %d readings: %v", step, len(got), err)
			}
		}
	}
	if v, err := h.ledger.Verify(t.Context()); err != nil || len(v.Faults) > 0 {
		t.Errorf("ledger: %+v %v", v, err)
	}
	t.Logf("%d crashes", reached)
}

// crash is two erasures in the middle of which the hub crashes, when it comes to a step
// for the left-th time.
type crash struct {
	*house
	step string
	left int

	whole, part   owner
	scopes        [2]holdfast.Scope
	start         time.Time
	before, after uint64 // generations of the root key
}

func (x *crash) plant(name string) {
	x.t.Helper()
	x.whole, x.part = x.owner("whole "+name), x.owner("part "+name)
	x.start = time.Now().Add(-time.Hour).Truncate(time.Second)
	for _, d := range []identity.Peer{x.whole.device, x.part.device} {
		for i := range 6 {
			x.mustSend(d, number("pulse", x.start.Add(time.Duration(i)*time.Second), float64(i)))
		}
	}
	var err error
	if x.scopes[0], err = x.custody.ScopeOfParty(x.t.Context(), x.whole.Party); err != nil {
		x.t.Fatal(err)
	}
	if x.scopes[1], err = x.custody.ScopeOfStream(x.t.Context(), x.part.device.Device, "pulse"); err != nil {
		x.t.Fatal(err)
	}
	x.scopes[1].Span = holdfast.Span{From: x.start.UnixNano(), To: x.start.Add(3 * time.Second).UnixNano()}
}

// play asks for both, crashes, starts again and looks. It is false if the step was
// not come to.
func (x *crash) play() bool {
	x.t.Helper()
	ctx, gate := x.t.Context(), x.Server.erasure
	x.before = x.stores.vault.Generation()
	gate.Fault = func(step string) error {
		if step != x.step || x.left == 0 {
			return nil
		}
		if x.left--; x.left == 0 {
			return errCrash
		}
		return nil
	}
	crashed := false
	for i, who := range []access.Principal{x.whole.Principal, x.part.Principal} {
		if _, err := gate.Ask(ctx, who, x.scopes[i]); errors.Is(err, errCrash) {
			crashed = true
		} else if err != nil {
			x.t.Fatal(err)
		}
	}
	if !crashed {
		crashed = errors.Is(gate.Once(ctx), errCrash)
	}
	if !crashed {
		return false
	}
	x.halt()
	x.house.start()
	x.after = x.stores.vault.Generation()
	if n := x.after - x.before; n < 2 || n > 3 {
		x.t.Errorf("%s: %d rotations for an erasure of each kind", x.step, n)
	}
	x.look()
	return true
}

// look checks what both erasures have come to.
func (x *crash) look() {
	x.t.Helper()
	all, err := x.Server.erasure.Erasures(x.t.Context(), x.admin())
	if err != nil {
		x.t.Fatal(err)
	}
	for i, who := range []owner{x.whole, x.part} {
		mine := slices.DeleteFunc(slices.Clone(all), func(e erasure.Erasure) bool { return e.Party != who.Party })
		if len(mine) != 1 || mine[0].State != erasure.Done {
			x.t.Errorf("%s: erasures %+v", x.step, mine)
			continue
		}
		e := mine[0]
		c, err := erasure.VerifyCertificate(e.Certificate, x.ledger.VerifierKey())
		if err != nil {
			x.t.Errorf("%s: %v", x.step, err)
			continue
		}
		want := erasure.Opening{Erasure: e.ID, Party: who.Party, Scope: e.Scope}
		if diff := cmp.Diff(&want, c.Opened); diff != "" || c.Issue != 1 || c.InPart != (i == 1) || len(c.Destroyed.OwnerKeys) != 2-i ||
			c.Destroyed.From+1 != c.Destroyed.To || c.Destroyed.From < x.before || c.Destroyed.To > x.after || c.Purged.Before(c.Asked) {
			x.t.Errorf("%s: the certificate says %+v %s", x.step, c, diff)
		}
	}
	if got, err := x.read(x.whole.Principal, x.whole.device, "pulse"); err == nil {
		x.t.Errorf("%s: %d erased readings are read", x.step, len(got))
	}
	if got, err := x.read(x.part.Principal, x.part.device, "pulse"); err != nil || len(got) != 2 {
		x.t.Errorf("%s: %d readings are left, want 2: %v", x.step, len(got), err)
	}
}
