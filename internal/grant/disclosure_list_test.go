package grant

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/testseed"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func random(t *testing.T) *rand.Rand {
	return rand.New(rand.NewPCG(testseed.Of(t), 0))
}

// added is what tallies must be: the sum of the disclosures that there are.
func added(all []Disclosure) map[tallyKey]Tally {
	sums := make(map[tallyKey]Tally)
	slices.SortFunc(all, func(a, b Disclosure) int { return a.Opened.Compare(b.Opened) })
	for _, d := range all {
		s, ok := sums[d.tallyKey()]
		if !ok {
			s = Tally{Recipient: d.Recipient, Purpose: d.Purpose, Grant: d.Grant, Permission: d.Permission, Role: d.Role, Opened: d.Opened}
		}
		s.Disclosures++
		if !d.Complete {
			s.Open++
		}
		s.Reads += d.Reads
		if d.Rows > 0 && s.Rows == 0 {
			s.First, s.Final = d.First, d.Final
		}
		if d.Rows > 0 {
			s.First, s.Final = min(s.First, d.First), max(s.Final, d.Final)
		}
		s.Rows += d.Rows
		if d.Last.After(s.Last) {
			s.Last = d.Last
		}
		s.Streams = united(s.Streams, d.Streams)
		sums[d.tallyKey()] = s
	}
	return sums
}

// TestTalliesAreTheSumOfDisclosures: whatever is read, written and lost in crashes,
// an owner's totals are those of the single disclosures he is shown.
func TestTalliesAreTheSumOfDisclosures(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	r := random(t)
	purposes := []holdfast.Purpose{"research", "care"}
	var open []holdfast.DisclosureID
	for step := range 250 {
		switch n := r.IntN(20); {
		case n < 8:
			d := Disclosure{
				Owner: h.ada, Recipient: []holdfast.PartyID{h.lab, h.bob}[r.IntN(2)], Purpose: purposes[r.IntN(2)], Grant: holdfast.GrantID{byte(r.IntN(2))},
				Reader: holdfast.CredentialID{byte(1 + r.IntN(3))}, Role: "program", Streams: []holdfast.StreamID{{byte(r.IntN(3))}, {byte(r.IntN(3))}},
			}
			if r.IntN(5) == 0 {
				d.Permission, d.Role = holdfast.PermissionID{1}, "administrator"
			}
			open = append(open, h.openDisclosure(d))
		case n < 14 && len(open) > 0:
			i := r.IntN(len(open))
			err := h.CloseDisclosure(ctx, open[i], uint64(r.IntN(5)), r.Int64N(50)-25, 25+r.Int64N(50))
			if err != nil && holdfast.KindOf(err) != holdfast.NotFound { // lost in a crash
				t.Fatal(err)
			}
			open = slices.Delete(open, i, i+1)
		case n < 16:
			if err := h.Flush(ctx); err != nil {
				t.Fatal(err)
			}
		case n < 17:
			h.diary.broken = errors.New("ledger away")
			h.Flush(ctx)
			h.diary.broken = nil
		case n < 18:
			h.restart()
		default:
			h.clock = h.clock.Add(time.Duration(r.IntN(20)-2) * time.Minute) // clocks go back, too
		}
		all := h.disclosures()
		got, err := h.Tallies(ctx, h.ada)
		if err != nil {
			t.Fatal(err)
		}
		want := added(all)
		if len(got) != len(want) {
			t.Fatalf("step %d: %d tallies, want %d", step, len(got), len(want))
		}
		for _, g := range got {
			k := Disclosure{Owner: h.ada, Recipient: g.Recipient, Purpose: g.Purpose, Grant: g.Grant, Permission: g.Permission, Role: g.Role}.tallyKey()
			if diff := gocmp.Diff(want[k], g, cmpopts.IgnoreFields(Tally{}, "Readers")); diff != "" {
				t.Fatalf("step %d: %s", step, diff)
			}
		}
	}
	h.pagesAreTheList(r)
}

// pagesAreTheList reads pages of every kind and holds them against the whole.
func (h *hub) pagesAreTheList(r *rand.Rand) {
	h.t.Helper()
	var all []Disclosure
	for d, err := range h.AllDisclosures(h.t.Context(), h.ada) {
		if err != nil {
			h.t.Fatal(err)
		}
		all = append(all, d)
	}
	if !slices.IsSortedFunc(all, func(a, b Disclosure) int { return -cmp.Compare(hourOf(a.Opened), hourOf(b.Opened)) }) {
		h.t.Error("not the newest first")
	}
	for range 50 {
		var w Wanted
		if r.IntN(2) == 0 {
			w.Recipient = h.lab
		}
		if r.IntN(2) == 0 {
			w.Purpose = "care"
		}
		if r.IntN(3) == 0 {
			w.Grant = holdfast.GrantID{1}
		}
		if r.IntN(4) == 0 {
			w.Permission = holdfast.PermissionID{1}
		}
		if r.IntN(2) == 0 {
			w.From = all[r.IntN(len(all))].Opened
		}
		if r.IntN(2) == 0 {
			w.Before = all[r.IntN(len(all))].Opened
		}
		var want, got []holdfast.DisclosureID
		for _, d := range all {
			if w.fits(d) {
				want = append(want, d.ID)
			}
		}
		for after, limit := uint64(0), 1+r.IntN(7); ; {
			page, next, err := h.DisclosurePage(h.t.Context(), h.ada, w, after, limit)
			if err != nil || len(page) > limit {
				h.t.Fatal(len(page), err)
			}
			for _, d := range page {
				got = append(got, d.ID)
			}
			if after = next; next == 0 {
				break
			}
		}
		if !slices.Equal(got, want) {
			h.t.Fatalf("%+v: pages give %d, the list %d", w, len(got), len(want))
		}
	}
	_, _, err := h.DisclosurePage(h.t.Context(), h.ada, Wanted{}, 1<<40, 1)
	wants(h.t, err, holdfast.Conflict, "ask again from the start")
}

// TestOpeningsThatCoincideAreWrittenTogether, and one that can't be written does
// not hold up the others.
func TestOpeningsThatCoincideAreWrittenTogether(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	stranger := holdfast.NewID[holdfast.PartyID]() // without a key
	h.disclosing.Lock()
	var wait sync.WaitGroup
	ids := make([]holdfast.DisclosureID, 40)
	for i := range ids {
		d := h.reading()
		d.Reader = holdfast.CredentialID{byte(i / 2)} // two of each are one
		if i == 7 {
			d.Owner = stranger
		}
		wait.Go(func() {
			id, err := h.OpenDisclosure(ctx, d)
			if (err != nil) != (i == 7) {
				t.Errorf("%d: %v", i, err)
			}
			ids[i] = id
		})
	}
	for waiting := 0; waiting < len(ids); {
		h.mu.Lock()
		waiting = len(h.waiting)
		h.mu.Unlock()
	}
	h.disclosing.Unlock()
	wait.Wait()
	if n := len(h.diary.kinds(vault.OfParty(h.ada))); n != 20 {
		t.Errorf("%d disclosures, want 20", n)
	}
	if ids[0] != ids[1] || ids[1] == ids[2] {
		t.Error("the same reads are not one disclosure, or others are")
	}
	for i, id := range ids {
		if i != 7 {
			if err := h.CloseDisclosure(ctx, id, 1, 1, 1); err != nil {
				t.Error(err)
			}
		}
	}
	all, err := h.Tallies(ctx, h.ada)
	if err != nil || len(all) != 1 || all[0].Rows != 39 || all[0].Disclosures != 20 || all[0].Open != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if len(all[0].Readers) != MaxReaders {
		t.Errorf("%d readers", len(all[0].Readers))
	}
}
