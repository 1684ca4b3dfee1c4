package grant

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func TestNothingHappensUnrecorded(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	g, err := h.Make(ctx, h.own(h.ada), h.everything())
	if err != nil {
		t.Fatal(err)
	}
	away := errors.New("ledger away")
	h.diary.broken = away
	_, err = h.AddPurpose(ctx, h.admin, Purpose{Name: "care", IRI: research.IRI, LegalBasis: "contract", Text: "x"})
	for what, err := range map[string]error{
		"purpose added": err,
		"purpose ended": h.EndPurpose(ctx, h.admin, "research"),
		"grant ended":   h.End(ctx, h.own(h.ada), g.ID),
		"bar set":       h.setBar(Bar{Assignment: holdfast.AssignmentID{1}, Span: holdfast.Always}),
	} {
		if !errors.Is(err, away) {
			t.Errorf("%s without a record: %v", what, err)
		}
	}
	if _, err := h.Make(ctx, h.own(h.ada), h.everything()); !errors.Is(err, away) {
		t.Errorf("grant made without a record: %v", err)
	}
	if _, err := h.OpenDisclosure(ctx, h.reading()); !errors.Is(err, away) {
		t.Errorf("disclosure opened without a record: %v", err)
	}
	if h.Live(ctx, "care") || !h.Live(ctx, "research") || h.Bars(holdfast.AssignmentID{1}).Bar(holdfast.StreamID{}, 0, 0) {
		t.Error("it happened all the same")
	}
	if got, _ := h.For(ctx, h.lab, h.ada); len(got) != 1 {
		t.Errorf("grants %+v", got)
	}
	if got, _ := h.Disclosures(ctx, h.ada); len(got) != 0 {
		t.Errorf("disclosures %+v", got)
	}
}

func TestErasedPartyTakesItsGrantsAndDisclosuresAlong(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	if _, err := h.Make(ctx, h.own(h.ada), h.everything()); err != nil {
		t.Fatal(err)
	}
	toAda, err := h.Make(ctx, h.own(h.bob), h.everything(func(s *Spec) { s.Recipient = h.ada }))
	if err != nil {
		t.Fatal(err)
	}
	id := h.openDisclosure(h.reading())
	his := h.reading()
	his.Owner = h.bob
	hisID := h.openDisclosure(his)
	h.setBar(Bar{Party: h.ada, Assignment: holdfast.AssignmentID{1}, Span: holdfast.Always, ArrivedBefore: 1})

	part := holdfast.Scope{Party: h.ada, Assignments: []holdfast.AssignmentID{{1}}, Span: holdfast.Always}
	if err := h.Erase(ctx, part); err != nil {
		t.Fatal(err)
	}
	if got, _ := h.GrantsBy(ctx, h.ada); len(got) != 1 || len(h.disclosures()) != 1 {
		t.Error("erasing a device took the owner's record of who had its data")
	}
	h.keys.destroy(vault.OfParty(h.ada)) // rows are gone after the key, not with it
	if got, err := h.For(ctx, h.lab, h.ada); err != nil || len(got) != 0 {
		t.Errorf("a grant without its grantor: %+v, %v", got, err)
	}
	if err := h.CloseDisclosure(ctx, id, 1, 1, 1); err != nil {
		t.Fatal(err)
	}
	if err := h.CloseDisclosure(ctx, hisID, 3, 1, 1); err != nil {
		t.Fatal(err)
	}
	if err := h.Flush(ctx); err != nil {
		t.Errorf("another's erasure holds up the others' records: %v", err)
	}
	whole := holdfast.Scope{Party: h.ada, Span: holdfast.Always, Whole: true}
	for range 2 {
		if err := h.Erase(ctx, whole); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := h.GrantsBy(ctx, h.ada); err != nil || len(got) != 0 || len(h.disclosures()) != 0 {
		t.Errorf("left: %+v, %v", got, err)
	}
	if g, err := h.Grant(ctx, toAda.ID); err != nil || g.Live(h.clock) {
		t.Errorf("a grant to the erased party lives: %+v, %v", g, err)
	}
	if got, _ := h.Disclosures(ctx, h.bob); len(got) != 1 || got[0].Rows != 3 {
		t.Errorf("another's disclosures: %+v", got)
	}
	if !h.Bars(holdfast.AssignmentID{1}).Bar(holdfast.StreamID{}, 0, 0) {
		t.Error("the bar went with the party")
	}
}

func TestNothingOfAnOwnerIsOnDiskInClear(t *testing.T) {
	h := newHub(t)
	h.research()
	if _, err := h.Make(t.Context(), h.own(h.ada), h.everything(func(s *Spec) { s.AllStreams, s.Streams = false, []string{"secret-stream"} })); err != nil {
		t.Fatal(err)
	}
	h.openDisclosure(h.reading())
	files, err := filepath.Glob(filepath.Join(h.dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	for _, text := range []string{"research", "secret-stream", "bearings"} {
		if strings.Contains(string(all), text) {
			t.Errorf("%q is on disk", text)
		}
	}
	if !strings.Contains(string(all), "CREATE TABLE disclosure") {
		t.Error("the search finds nothing at all")
	}
}

func TestRunFlushesAndEndsWithItsContext(t *testing.T) {
	h := newHub(t)
	id := h.openDisclosure(h.reading())
	if err := h.CloseDisclosure(t.Context(), id, 10, 1, 2); err != nil {
		t.Fatal(err)
	}
	// The catalog's goroutines stand outside the bubble, so this flush must not
	// reach it: the owner is erased, and his disclosure is only forgotten.
	h.keys.destroy(vault.OfParty(h.ada))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx, func(err error) { t.Error(err) }) }()
		time.Sleep(flushEvery + time.Second)
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("run ended with %v", err)
		}
	})
	if len(h.byID) != 0 {
		t.Error("the minute passed without a flush")
	}
}

func BenchmarkHot(b *testing.B) {
	h := newHub(b)
	for i := range 100 {
		if err := h.setBar(Bar{Assignment: holdfast.AssignmentID{byte(i + 1)}, Span: holdfast.Always, ArrivedBefore: 1}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("live", func(b *testing.B) {
		for b.Loop() {
			if !h.Live(b.Context(), holdfast.Operation) {
				b.Fatal()
			}
		}
	})
	b.Run("barred", func(b *testing.B) {
		for b.Loop() {
			if h.Bars(holdfast.AssignmentID{50}).Bar(holdfast.StreamID{}, 5, 5) {
				b.Fatal()
			}
		}
	})
	b.Run("join a disclosure", func(b *testing.B) {
		d := h.reading()
		for b.Loop() {
			id, err := h.OpenDisclosure(b.Context(), d)
			if err != nil {
				b.Fatal(err)
			}
			if err := h.CloseDisclosure(b.Context(), id, 1, 1, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
}
