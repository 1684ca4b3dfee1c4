package server

import (
	"context"
	"database/sql"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// took writes take-backs down, and gives them to the copy if it may have them.
func (p *pushing) took(h *house, n int) {
	p.t.Helper()
	for range n {
		back := ledger.TakeBack{Kind: ledger.CodeEnded, ID: holdfast.NewID[ledger.TakenID]()}
		if err := h.stores.catalog.Write(p.t.Context(), func(tx *sql.Tx) error { return ledger.AddTakeBacks(p.t.Context(), tx, back) }); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := h.stores.vault.TendCopies(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// inCopy is every file of the copy.
func (p *pushing) inCopy() map[string]string {
	p.t.Helper()
	out := map[string]string{}
	names, err := os.ReadDir(p.kept)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range names {
		b, err := os.ReadFile(filepath.Join(p.kept, e.Name()))
		if err != nil {
			p.t.Fatal(err)
		}
		out[e.Name()] = string(b)
	}
	return out
}

// twin is a second hub of the same keyring, from another state of the data folder.
func (p *pushing) twin(from string) *house {
	p.t.Helper()
	h := *p.house
	h.dir, h.Server = p.t.TempDir(), nil
	if err := os.CopyFS(h.dir, os.DirFS(from)); err != nil {
		p.t.Fatal(err)
	}
	h.start()
	p.t.Cleanup(h.halt)
	return &h
}

// left fails unless the hub leaves the copy as it is, whatever happens, and says so.
func (p *pushing) left(h *house, when string, before map[string]string) {
	p.t.Helper()
	p.took(h, 1)
	s := h.stores.vault.Copies()[0]
	if !s.Late || !s.Ahead || !strings.Contains(s.Reason, "another hub of the same keyring") || !strings.Contains(s.Reason, "holdfast restore") {
		p.t.Errorf("%s: the copy is %+v, want it ahead, with what to do", when, s)
	}
	o := holdfast.NewID[holdfast.AssignmentID]()
	if err := h.stores.vault.AddOwner(p.t.Context(), vault.OfAssignment(o)); holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "keyring remove-copy") {
		p.t.Errorf("%s: add an owner: %v, want it refused", when, err)
	}
	g := h.stores.vault.Generation()
	if _, err := h.stores.vault.Destroy(p.t.Context(), vault.Destruction{}); holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "another hub of the same keyring") {
		p.t.Errorf("%s: destroy keys: %v, want that it waits", when, err)
	}
	if got := h.stores.vault.Generation(); got != g {
		p.t.Errorf("%s: generation %d, was %d", when, got, g)
	}
	p.took(h, 2)
	if diff := cmp.Diff(before, p.inCopy()); diff != "" {
		p.t.Errorf("%s: the copy was written to (-before +after):\n%s", when, diff)
	}
}

func (p *pushing) renewed(h *house) {
	p.t.Helper()
	h.halt()
	if _, err := RenewLedger(p.t.Context(), Config{Data: h.dir, RootKey: p.rootKey}, nil, true); err != nil {
		p.t.Fatal(err)
	}
	h.start()
}

// Two hubs of one keyring, the second from a restore, with a name of its own: whoever
// comes second to the copy leaves it, and a restore from it goes on working.
func TestACopyThatAnotherHubWritesIsLeftAlone(t *testing.T) {
	for _, first := range []string{"the old hub", "the restored hub"} {
		t.Run(first, func(t *testing.T) {
			p := newPushing(t)
			p.took(p.house, 3)
			p.whole("before")
			p.halt()
			other := p.twin(p.dir)
			p.renewed(other)
			p.start()
			if err := p.stores.vault.TendCopies(t.Context()); err != nil { // the old one is in step
				t.Fatal(err)
			}
			one, two := p.house, other
			if first == "the restored hub" {
				one, two = other, p.house
			}
			p.took(one, 2)
			if s := one.stores.vault.Copies()[0]; s.Late {
				t.Fatalf("the copy is late for who wrote first: %s", s.Reason)
			}
			before := p.inCopy()
			p.left(two, "the other", before)
			two.halt()
			two.start()
			p.left(two, "the other, restarted", before)
			files, err := takeBacksIn(p.kept)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := one.ledger.ReadTakeBacks(t.Context(), files, one.stores.vault.Generation()); err != nil || got.Short != "" {
				t.Errorf("a restore reads the copy: %q, %v", got.Short, err)
			}
		})
	}
}

// A data folder that was put back from a snapshot leaves the copy, also when it has
// more take-backs by then, and was restarted.
func TestAFolderThatWasPutBackLeavesTheCopy(t *testing.T) {
	p := newPushing(t)
	p.took(p.house, 1)
	p.whole("before")
	p.halt()
	snapshot := t.TempDir()
	if err := os.CopyFS(snapshot, os.DirFS(p.dir)); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.took(p.house, 4)
	p.whole("after the snapshot")
	before := p.inCopy()
	p.halt()
	back := p.twin(snapshot)
	p.left(back, "put back", before)
	p.took(back, 9)
	back.halt()
	back.start()
	p.left(back, "with more than the copy", before)

	found, err := back.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	said := false
	for _, f := range found {
		said = said || f.ID == "copy-late" && strings.Contains(f.What+f.Mend, "remove-copy") && strings.Contains(f.What, "put back from an older state")
	}
	if !said {
		t.Errorf("the doctor finds %+v", found)
	}
	back.halt()
	for _, deep := range []bool{false, true} {
		r, err := ShowKeyring(t.Context(), Config{Data: back.dir}, deep, "")
		if err != nil || len(r.Copies) != 1 || r.Copies[0].State != CopyAhead || !strings.Contains(r.Copies[0].Error, "put back from an older state") {
			t.Errorf("keyring compared, every byte: %v: %+v, %v", deep, r.Copies, err)
		}
	}
}

// serve warns of such a copy when it has started.
func TestServeWarnsOfACopyThatIsAhead(t *testing.T) {
	p := newPushing(t)
	p.whole("before")
	p.halt()
	snapshot := t.TempDir()
	if err := os.CopyFS(snapshot, os.DirFS(p.dir)); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.took(p.house, 1)
	p.halt()
	back := p.twin(snapshot)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	back.Server.log = slog.New(stopAt{slog.DiscardHandler, "left as it is", stop})
	if err := back.runCopies(ctx); err == nil || ctx.Err() == nil {
		t.Errorf("it ended by itself: %v", err)
	}
}

// stopAt ends something at the first warning that has a text.
type stopAt struct {
	slog.Handler
	text string
	stop func()
}

func (stopAt) Enabled(context.Context, slog.Level) bool { return true }

func (s stopAt) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn && strings.Contains(r.Message, s.text) {
		s.stop()
	}
	return nil
}
