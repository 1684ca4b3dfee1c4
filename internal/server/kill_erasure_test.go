package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// erasing is an owner of whom something is being erased.
type erasing struct {
	who    access.Principal
	device identity.Peer
	scope  holdfast.Scope
	asked  holdfast.ErasureID // zero: it never became known whether it was asked for
	left   int                // readings that survive
}

// kill -9 in the middle of erasures, whole and in part: each that was asked for is
// carried out after the restart and has its certificate; what it does not cover is
// all there.
func TestKilledWhileErasing(t *testing.T) {
	rounds := 4
	if long() {
		rounds = 60
	}
	seed := testseed.Of(t)
	t.Logf("%d rounds", rounds)
	r := rand.New(rand.NewPCG(seed, 4))
	h := newHouse(t)
	ben := h.person("Ben")
	his := h.device(ben.Party, "watch")
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	const each = 60
	fill := func(p identity.Peer) {
		for i := range each {
			h.mustSend(p, number("pulse", start.Add(time.Duration(i)*time.Second), float64(i)), number("steps", start.Add(time.Duration(i)*time.Second), float64(i)))
			if i == each/2 {
				if err := h.series.Roll(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	fill(his)
	var all []*erasing
	for round := range rounds {
		for kind := range 3 {
			who := h.person(fmt.Sprintf("Anna %d %d", round, kind))
			x := &erasing{who: who, device: h.device(who.Party, "watch")}
			fill(x.device)
			var err error
			switch kind {
			case 0:
				x.scope, err = h.custody.ScopeOfParty(t.Context(), who.Party)
			case 1:
				x.scope, err = h.custody.ScopeOfStream(t.Context(), x.device.Device, "pulse")
			case 2:
				x.scope, err = h.custody.ScopeOfStream(t.Context(), x.device.Device, "pulse")
				x.scope.Span, x.left = holdfast.Span{From: start.Add(10 * time.Second).UnixNano(), To: start.Add(39 * time.Second).UnixNano()}, each-30
			}
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, x)
		}
	}
	h.halt()
	for round := range rounds {
		hub := h.spawn(childConfig{RollEvery: 50 * time.Millisecond})
		batch := all[3*round : 3*round+3]
		r.Shuffle(3, func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
		wait := time.Duration(r.IntN(250)) * time.Millisecond
		killed := time.AfterFunc(time.Minute, hub.kill)
		if round%2 == 1 {
			killed.Reset(wait)
		}
		for i, x := range batch {
			if round%2 == 0 && i == 1 { // on a slow machine, too, some are asked for
				killed.Reset(wait)
			}
			line, err := json.Marshal(x.scope)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := hub.in.Write(append(line, '\n')); err != nil {
				break
			}
			answer, err := hub.out.ReadString('\n')
			if err != nil {
				break
			}
			if x.asked, err = holdfast.ParseID[holdfast.ErasureID](strings.TrimSpace(answer)); err != nil {
				t.Errorf("round %d: %s: %s", round, answer, hub.stderr)
			}
		}
		<-hub.ended
		killed.Stop()
	}
	h.start() // finishes what was asked for
	asked := 0
	for i, x := range all {
		pulse, perr := h.read(x.who, x.device, "pulse")
		steps, serr := h.read(x.who, x.device, "steps")
		if x.asked.IsZero() { // whole, or erased: the answer was lost
			continue
		}
		asked++
		e, err := h.Server.erasure.Erasure(t.Context(), x.asked)
		if err != nil || e.State != erasure.Done {
			t.Errorf("erasure %d is %s: %v", i, e.State, err)
			continue
		}
		if _, err := erasure.VerifyCertificate(e.Certificate, h.ledger.VerifierKey()); err != nil {
			t.Errorf("erasure %d: %v", i, err)
		}
		switch whole := x.scope.Whole; {
		case whole && (perr == nil || serr == nil):
			t.Errorf("erasure %d: the owner reads %d and %d readings", i, len(pulse), len(steps))
		case !whole && (serr != nil || len(steps) != each || len(pulse) != x.left || perr != nil && x.left > 0):
			t.Errorf("erasure %d: %d readings of the erased stream (%v), %d of the other (%v)", i, len(pulse), perr, len(steps), serr)
		}
	}
	for range 2 {
		for _, stream := range []string{"pulse", "steps"} {
			if got, err := h.read(ben, his, stream); err != nil || len(got) != each {
				t.Errorf("the other owner has %d readings: %v", len(got), err)
			}
		}
		if v, err := h.ledger.Verify(t.Context()); err != nil || len(v.Faults) > 0 {
			t.Errorf("ledger: %+v %v", v, err)
		}
		h.halt()
		h.start()
	}
	if asked == 0 && rounds > 3 {
		t.Error(errors.New("no erasure was asked for: the kills come too early"))
	}
	t.Logf("%d kills, %d of %d erasures were asked for and are done", rounds, asked, len(all))
}
