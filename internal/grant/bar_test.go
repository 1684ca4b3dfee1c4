package grant

import (
	"database/sql"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func (h *hub) setBar(bars ...Bar) error {
	return h.catalog.Write(h.t.Context(), func(tx *sql.Tx) error {
		for _, b := range bars {
			if err := h.SetBar(h.t.Context(), tx, b); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestBarKeepsOutWhatWasErased(t *testing.T) {
	h := newHub(t)
	a, b, c := holdfast.AssignmentID{1}, holdfast.AssignmentID{2}, holdfast.AssignmentID{3}
	s, other := holdfast.StreamID{1}, holdfast.StreamID{2}
	const erased = 1000
	if err := h.setBar(
		Bar{Party: h.ada, Assignment: a, Stream: s, Span: holdfast.Always, ArrivedBefore: erased},
		Bar{Party: h.ada, Assignment: b, Stream: s, Span: holdfast.Span{From: 10, To: 20}, ArrivedBefore: erased},
		Bar{Assignment: c, Span: holdfast.Always, ArrivedBefore: math.MaxInt64},
	); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		for _, x := range []struct {
			what        string
			a           holdfast.AssignmentID
			s           holdfast.StreamID
			at, arrived int64
			want        bool
		}{
			{"sent again after the erasure", a, s, 500, 2000, true},
			{"still in the journal", a, s, 500, 900, true},
			{"still in the journal, from a clock ahead", a, s, 5000, 900, true},
			{"taken after the erasure", a, s, 1500, 1600, false},
			{"at the moment of the erasure", a, s, erased, erased, false},
			{"another stream", a, other, 500, 900, false},
			{"in the erased span", b, s, 20, 2000, true},
			{"outside it", b, s, 21, 2000, false},
			{"outside it, in the journal", b, s, 9, 900, false},
			{"any stream of an assignment that is gone", c, other, 1 << 60, 1 << 60, true},
			{"another assignment", holdfast.AssignmentID{9}, s, 500, 900, false},
		} {
			if got := h.Bars(x.a).Bar(x.s, x.at, x.arrived); got != x.want {
				t.Errorf("%s, %s: barred %v", when, x.what, got)
			}
		}
	}
	check("at once")
	h.restart()
	check("after a restart")
	if got := h.diary.kinds(vault.OfParty(h.ada)); !slices.Equal(got, []string{"bar set", "bar set"}) {
		t.Errorf("recorded %v", got)
	}
	if got := h.diary.kinds(vault.Hub); !slices.Equal(got, []string{"bar set"}) {
		t.Errorf("recorded of the hub %v", got)
	}
}

func TestBarOfAFailedErasureGoesWithReload(t *testing.T) {
	h := newHub(t)
	a := holdfast.AssignmentID{1}
	boom := errors.New("boom")
	err := h.catalog.Write(t.Context(), func(tx *sql.Tx) error {
		if err := h.SetBar(t.Context(), tx, Bar{Assignment: a, Span: holdfast.Always, ArrivedBefore: 1}); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if !h.Bars(a).Bar(holdfast.StreamID{}, 0, 0) {
		t.Error("a bar waits for its transaction")
	}
	if err := h.ReloadBars(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.Bars(a).Bar(holdfast.StreamID{}, 0, 0) {
		t.Error("the bar of a failed transaction stays")
	}
}

func TestBarsExpire(t *testing.T) {
	h := newHub(t)
	a := holdfast.AssignmentID{1}
	now := h.clock.UnixNano()
	bar := Bar{Assignment: a, Span: holdfast.Always, ArrivedBefore: now}
	if err := h.setBar(bar, bar); err != nil { // set twice, as an erasure that runs again does
		t.Fatal(err)
	}
	h.clock = h.clock.AddDate(0, 0, BarDays).Add(-time.Nanosecond)
	if err := h.expireBars(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !h.Bars(a).Bar(holdfast.StreamID{}, now-1, h.clock.UnixNano()) {
		t.Error("gone too early")
	}
	h.clock = h.clock.Add(time.Nanosecond)
	if h.Bars(a).Bar(holdfast.StreamID{}, now-1, h.clock.UnixNano()) {
		t.Error("it counts after 400 days")
	}
	if err := h.expireBars(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.restart()
	if n := len(h.bars); n != 0 {
		t.Errorf("%d bars are left", n)
	}
}

// An erasure that fails does not take away the bar of another that is just being
// written.
func TestReloadBarsKeepsTheBarsOfOthers(t *testing.T) {
	h := newHub(t)
	a := holdfast.AssignmentID{1}
	reloaded := make(chan error, 1)
	err := h.catalog.Write(t.Context(), func(tx *sql.Tx) error {
		if err := h.SetBar(t.Context(), tx, Bar{Assignment: a, Span: holdfast.Always, ArrivedBefore: math.MaxInt64}); err != nil {
			return err
		}
		go func() { reloaded <- h.ReloadBars(t.Context()) }()
		select {
		case err := <-reloaded:
			reloaded <- err
		case <-time.After(50 * time.Millisecond): // it waits
		}
		return nil
	})
	if err = errors.Join(err, <-reloaded); err != nil {
		t.Fatal(err)
	}
	if !h.Bars(a).Bar(holdfast.StreamID{1}, 1, 1) {
		t.Error("the bar of the other is gone")
	}
}
