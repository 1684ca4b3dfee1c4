package grant

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// reading is the lab about to read two streams of Ada's.
func (h *hub) reading() Disclosure {
	return Disclosure{
		Owner: h.ada, Reader: h.admin, Recipient: h.lab, Purpose: "research", Grant: holdfast.GrantID{7}, Streams: []holdfast.StreamID{{2}, {1}, {2}},
	}
}

func (h *hub) openDisclosure(d Disclosure) holdfast.DisclosureID {
	h.t.Helper()
	id, err := h.OpenDisclosure(h.t.Context(), d)
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

func (h *hub) disclosures() []Disclosure {
	h.t.Helper()
	all, err := h.Disclosures(h.t.Context(), h.ada)
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

func TestDisclosureIsDurableBeforeAnythingLeaves(t *testing.T) {
	h := newHub(t)
	id := h.openDisclosure(h.reading())
	opened := h.clock
	h.restart() // a crash while the readings were on their way
	got := h.disclosures()
	want := Disclosure{
		ID: id, Owner: h.ada, Reader: h.admin, Recipient: h.lab, Purpose: "research", Grant: holdfast.GrantID{7}, Streams: []holdfast.StreamID{{1}, {2}},
		Opened: opened, Last: opened, Reads: 1,
	}
	if diff := cmp.Diff([]Disclosure{want}, got); diff != "" {
		t.Errorf("the amount must be unknown, nothing else: %s", diff)
	}
	if got := h.diary.kinds(vault.OfParty(h.ada)); !slices.Equal(got, []string{"disclosure opened"}) {
		t.Errorf("recorded %v", got)
	}
	if next := h.openDisclosure(h.reading()); next == id {
		t.Error("a read joins a disclosure of a process that is dead")
	}
	wants(t, h.CloseDisclosure(t.Context(), id, 1, 1, 1), holdfast.NotFound, "is not open")
	_, err := h.OpenDisclosure(t.Context(), Disclosure{Owner: h.ada, Recipient: h.lab})
	wants(t, err, holdfast.Invalid, "a purpose")
}

func TestReadsWithinFifteenMinutesAreOneDisclosure(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	id := h.openDisclosure(h.reading())
	if err := h.CloseDisclosure(ctx, id, 10, 100, 200); err != nil {
		t.Fatal(err)
	}
	h.clock = h.clock.Add(14 * time.Minute)
	same := h.reading()
	slices.Reverse(same.Streams)
	if again := h.openDisclosure(same); again != id {
		t.Error("the same read is another disclosure")
	}
	if d := h.disclosures()[0]; d.Complete || d.Rows != 10 {
		t.Errorf("while a read is under way: %+v", d)
	}
	if err := h.CloseDisclosure(ctx, id, 5, 50, 150); err != nil {
		t.Fatal(err)
	}
	d := h.disclosures()[0]
	if d.Rows != 15 || d.Reads != 2 || d.First != 50 || d.Final != 200 || !d.Complete || !d.Last.Equal(h.clock) {
		t.Errorf("after two reads: %+v", d)
	}
	wants(t, h.CloseDisclosure(ctx, id, 1, 1, 1), holdfast.NotFound, "is not open")

	for what, change := range map[string]func(*Disclosure){
		"another reader":    func(d *Disclosure) { d.Reader = holdfast.CredentialID{9} },
		"another recipient": func(d *Disclosure) { d.Recipient = h.bob },
		"another purpose":   func(d *Disclosure) { d.Purpose = "care" },
		"another grant":     func(d *Disclosure) { d.Grant = holdfast.GrantID{8} },
		"other streams":     func(d *Disclosure) { d.Streams = d.Streams[:1] },
		"another owner":     func(d *Disclosure) { d.Owner = h.bob },
	} {
		r := h.reading()
		change(&r)
		if other := h.openDisclosure(r); other == id {
			t.Errorf("%s joins the disclosure", what)
		}
	}
	h.clock = h.clock.Add(time.Minute)
	if later := h.openDisclosure(h.reading()); later == id {
		t.Error("a read after 15 minutes joins it")
	}
}

func TestAmountsAreWrittenWithoutAWritePerRead(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	id := h.openDisclosure(h.reading())
	for range 100 {
		h.openDisclosure(h.reading())
	}
	for range 101 {
		if err := h.CloseDisclosure(ctx, id, 2, 1, 3); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(h.diary.entries); n != 1 {
		t.Errorf("%d entries for one disclosure", n)
	}
	if err := h.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(h.diary.entries); n != 1 {
		t.Errorf("a flush within the 15 minutes records %d entries", n)
	}
	h.clock = h.clock.Add(15 * time.Minute)
	if err := h.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if len(h.byID)+len(h.byKey) != 0 {
		t.Error("a closed disclosure stays in memory")
	}
	h.restart()
	if d := h.disclosures()[0]; d.Rows != 202 || d.Reads != 101 || !d.Complete {
		t.Errorf("%+v", d)
	}
	if got := h.diary.kinds(vault.OfParty(h.ada)); !slices.Equal(got, []string{"disclosure opened", "disclosure closed"}) {
		t.Errorf("recorded %v", got)
	}
	if last := h.diary.entries[1]; !strings.Contains(last, `"rows":202`) {
		t.Errorf("the amount is not in the ledger: %s", last)
	}
}

func TestACrashLosesAMinuteOfCountsAtMost(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	id := h.openDisclosure(h.reading())
	if err := h.CloseDisclosure(ctx, id, 10, 1, 2); err != nil {
		t.Fatal(err)
	}
	if err := h.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	h.openDisclosure(h.reading())
	if err := h.CloseDisclosure(ctx, id, 10, 1, 2); err != nil {
		t.Fatal(err)
	}
	h.restart()
	if d := h.disclosures()[0]; d.Rows != 10 || d.Complete {
		t.Errorf("%+v: want at least 10 rows, amount unknown", d)
	}
}

func TestCloseWritesAllButReadsUnderWay(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	done := h.openDisclosure(h.reading())
	if err := h.CloseDisclosure(ctx, done, 10, 1, 2); err != nil {
		t.Fatal(err)
	}
	busy := h.reading()
	busy.Purpose = "care"
	h.openDisclosure(busy)
	h.diary.broken = errors.New("ledger away")
	if err := h.Close(ctx); !errors.Is(err, h.diary.broken) {
		t.Errorf("a failed close says %v", err)
	}
	h.diary.broken = nil
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	h.restart()
	for _, d := range h.disclosures() {
		if want := d.ID == done; d.Complete != want || (want && d.Rows != 10) {
			t.Errorf("%+v", d)
		}
	}
}

func TestManyReadersShareDisclosures(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			d := h.reading()
			d.Grant = holdfast.GrantID{byte(i % 2)}
			for range 20 {
				id, err := h.OpenDisclosure(ctx, d)
				if err != nil {
					t.Error(err)
					return
				}
				if err := h.CloseDisclosure(ctx, id, 1, 5, 5); err != nil {
					t.Error(err)
				}
				if i == 0 {
					if err := h.Flush(ctx); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wait.Wait()
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	h.restart()
	var rows uint64
	for _, d := range h.disclosures() {
		rows += d.Rows
	}
	if all := h.disclosures(); len(all) != 2 || rows != 160 || !all[0].Complete || !all[1].Complete {
		t.Errorf("%d disclosures of %d rows", len(all), rows)
	}
}
