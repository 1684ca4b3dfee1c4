package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"database/sql"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/testseed"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// final is a change that a restore must never undo, and whether it still stands.
type final struct {
	name   string
	change func() error
	stands func(h *house) bool
}

func (f *finals) codes() identity.CodeOptions { return identity.CodeOptions{} }

// request asks for a certificate for a fresh key.
func (f *finals) request() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	f.must(err)
	csr, err := x509.CreateCertificateRequest(crand.Reader, &x509.CertificateRequest{}, key)
	f.must(err)
	return csr
}

// all prepares a change of each kind, none of which touches another's.
func (f *finals) all() []final {
	return slices.Concat(f.access(), f.identity(), f.grants(), f.told(), f.hub(), f.hands(), f.households(), f.periods(), f.erasures())
}

func (h *house) waitErasedAll(e erasure.Erasure) {
	h.t.Helper()
	if err := h.Server.erasure.Once(h.t.Context()); err != nil {
		h.t.Fatalf("erasure %s: %v", e.ID, err)
	}
}

// happened returns the kinds of the events on record from an index on, as far as they
// can be read, and of the take-backs behind a number, with where both go on.
type happened struct {
	index  uint64
	number uint64
}

func (h *house) since(at happened) (events []string, backs []ledger.TakeBackKind, next happened) {
	h.t.Helper()
	type entry struct {
		index int64
		owner vault.Owner
	}
	rows, err := catalog.Rows(h.t.Context(), h.stores.catalog, func(q *sql.Rows) (e entry, err error) {
		var owner []byte
		if err = q.Scan(&e.index, &owner); err == nil {
			copy(e.owner[:], owner)
		}
		return e, err
	}, `SELECT idx, owner FROM ledger_entry WHERE idx >= $1 ORDER BY idx`, int64(at.index))
	if err != nil {
		h.t.Fatal(err)
	}
	next = at
	for _, e := range rows {
		next.index = uint64(e.index) + 1
		all, err := h.ledger.Events(h.t.Context(), e.owner, uint64(e.index), 1)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, x := range all {
			events = append(events, x.Kind)
		}
	}
	lines, err := catalog.Rows(h.t.Context(), h.stores.catalog, func(q *sql.Rows) (kind string, err error) {
		return kind, q.Scan(&next.number, &kind)
	}, `SELECT number, json_extract(line, '$.kind') FROM take_back WHERE number > $1 ORDER BY number`, int64(at.number))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, k := range lines {
		backs = append(backs, ledger.TakeBackKind(k))
	}
	return events, backs, next
}

// Whatever was final after a copy of the data folder was made is final after that
// copy is put back with the newest copy of the keyring: of every kind of take-back
// something is tried, in some order, and each event writes what the table of decisions
// says.
func TestARestoreUndoesNothingThatIsFinal(t *testing.T) {
	r := rand.New(rand.NewPCG(testseed.Of(t), 1))
	h := newHouse(t)
	h.halt()
	kept, old := t.TempDir(), filepath.Join(t.TempDir(), "old")
	if err := AddCopy(t.Context(), Config{Data: h.dir}, "safe", "file:"+kept); err != nil {
		t.Fatal(err)
	}
	h.start()
	all := (&finals{h, time.Now().Add(-time.Minute)}).all()
	h.backUp(old)
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	tried := h.doAll(all)
	for _, k := range ledger.TakeBackKinds() {
		if !tried[k] && k != ledger.OriginRenewed { // with each restore
			t.Errorf("no %s is tried: add a change that writes it", k)
		}
	}
	if err := h.stores.vault.TendCopies(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.halt()
	back := putBack(t, h, old, kept)
	for _, f := range all {
		if !f.stands(back) {
			t.Errorf("%s: undone by the restore", f.name)
		}
	}
}

// backUp copies the data folder as a backup does: all is in segments, no journal.
func (h *house) backUp(to string) {
	h.t.Helper()
	if err := h.series.Roll(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	h.halt()
	if err := os.CopyFS(to, os.DirFS(h.dir)); err != nil {
		h.t.Fatal(err)
	}
	j := filepath.Join(to, journalDir)
	if err := errors.Join(os.RemoveAll(j), os.Mkdir(j, 0o700)); err != nil {
		h.t.Fatal(err)
	}
	h.start()
}

// doAll carries the changes out and holds what each writes against the decisions. It
// returns the kinds of take-backs that there were.
func (h *house) doAll(all []final) map[ledger.TakeBackKind]bool {
	h.t.Helper()
	_, _, at := h.since(happened{})
	tried, table := map[ledger.TakeBackKind]bool{}, decisions()
	for _, f := range all {
		if err := f.change(); err != nil {
			h.t.Fatalf("%s: %v", f.name, err)
		}
		events, backs, next := h.since(at)
		at = next
		for _, k := range backs {
			tried[k] = true
		}
		for _, e := range events {
			d, ok := table[e]
			if !ok {
				h.t.Errorf("%s: nobody decided what a restore does to %q", f.name, e)
			}
			if len(d.back) > 0 && !slices.ContainsFunc(d.back, func(k ledger.TakeBackKind) bool { return slices.Contains(backs, k) }) && e != "invitation made" && e != "enrolment code made" && e != "recovery dealt" {
				h.t.Errorf("%s: %q writes none of %s: %s", f.name, e, d.back, backs)
			}
		}
	}
	return tried
}

// putBack makes a hub of an old copy of the data folder and the newest of the keyring.
func putBack(t *testing.T, h *house, old, kept string) *house {
	t.Helper()
	files, err := takeBacksIn(kept)
	if err != nil {
		t.Fatal(err)
	}
	ring := filepath.Join(old, keyringDir)
	if err := errors.Join(os.RemoveAll(ring), os.CopyFS(ring, os.DirFS(kept)), os.Remove(filepath.Join(old, keysFile))); err != nil {
		t.Fatal(err)
	}
	c := Config{Data: old, RootKey: h.rootKey, restored: true}
	done, err := ReplayTakeBacks(t.Context(), c.withDefaults(), files)
	if err != nil || done.Short != "" || done.Replayed == 0 {
		t.Fatalf("replay: %+v, %v", done, err)
	}
	s, err := openKept(t.Context(), c) // once more: each may be carried out twice
	if err != nil {
		t.Fatal(err)
	}
	var again []ledger.TakeBack
	for _, name := range slices.Sorted(maps.Keys(files)) {
		b, err := ledger.ParseTakeBacks(files[name], s.ledger.VerifierKey())
		if err != nil {
			t.Fatal(err)
		}
		all, err := b.TakeBacks()
		if err != nil {
			t.Fatal(err)
		}
		again = append(again, all...)
	}
	again = slices.DeleteFunc(again, func(b ledger.TakeBack) bool { return b.Number <= done.Last-done.Replayed })
	_, err = s.replay(t.Context(), again)
	if err := errors.Join(err, s.stores.close()); err != nil {
		t.Fatal(err)
	}
	if _, err := RenewLedger(t.Context(), c, nil, true); err != nil {
		t.Fatal(err)
	}
	back := &house{t: t, dir: old, rootKey: h.rootKey}
	back.start()
	t.Cleanup(back.halt)
	return back
}
