package server

import (
	"database/sql"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/testseed"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// chunkKeys are the ids of the keys that chunks of an assignment are under.
func (h *house) chunkKeys(a holdfast.AssignmentID) (out []string) {
	h.t.Helper()
	err := h.stores.catalog.Read(h.t.Context(), func(tx *sql.Tx) error {
		rows, err := tx.Query(`SELECT DISTINCT hex(key_id) FROM chunk WHERE assignment = $1`, a)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			out = append(out, id)
		}
		return rows.Err()
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h *house) keyringFiles() (out []string) {
	h.t.Helper()
	err := filepath.WalkDir(filepath.Join(h.dir, keyringDir), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			out = append(out, filepath.Base(path))
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// Rekeying changes every key and no reading; a crash before it has come about does
// not lose it. Who copied the whole folder with its root key before opens nothing
// that was written after.
func TestRekey(t *testing.T) {
	for _, everybody := range []bool{false, true} {
		h := newHouse(t)
		seed := testseed.Of(t)
		draw := rand.New(rand.NewPCG(seed, 0))
		anna, ben := h.person("Anna"), h.person("Ben")
		band, lamp := h.device(anna.Party, "band"), h.device(ben.Party, "lamp")
		begin := time.Now().Add(-time.Hour).Truncate(time.Second)
		send := func(n int) {
			for i := range n {
				at := begin.Add(time.Duration(i) * time.Second)
				h.mustSend(band, number("pulse", at, draw.Float64()), number("steps", at, float64(draw.IntN(1000))))
				h.mustSend(lamp, number("power", at, draw.NormFloat64()))
			}
			begin = begin.Add(time.Duration(n) * time.Second)
		}
		all := func() (out [][]holdfast.Reading) {
			t.Helper()
			for _, x := range []struct {
				peer   identity.Peer
				stream string
			}{{band, "pulse"}, {band, "steps"}, {lamp, "power"}} {
				who := anna
				if x.peer == lamp {
					who = ben
				}
				r, err := h.read(who, x.peer, x.stream)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, r)
			}
			return out
		}
		send(1 + draw.IntN(30))
		if err := h.series.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		send(1 + draw.IntN(30)) // in the journal
		before, keys, others, files := all(), h.chunkKeys(band.Assignment), h.chunkKeys(lamp.Assignment), h.keyringFiles()
		copied := h.copyKeys()
		old, err := h.stores.vault.SealField(t.Context(), vault.OfParty(anna.Party), "t", nil, "c", []byte("before"))
		if err != nil {
			t.Fatal(err)
		}

		party := anna.Party
		if everybody {
			party = holdfast.PartyID{}
		}
		r, err := h.Server.erasure.AskRekey(t.Context(), h.admin(), party, []holdfast.AssignmentID{band.Assignment})
		if err != nil {
			t.Fatal(err)
		}
		h.halt()
		h.start()
		if err := h.Server.erasure.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		list, err := h.Server.erasure.Rekeys(t.Context())
		if err != nil || len(list) != 1 || list[0].ID != r.ID || list[0].Left != 0 || list[0].Owners != r.Owners {
			t.Fatalf("rekeys %+v, %v", list, err)
		}
		for i, now := range all() {
			if !slices.EqualFunc(before[i], now, func(a, b holdfast.Reading) bool { return a.Time == b.Time && a.Seq == b.Seq && a.Value.Same(b.Value) }) {
				t.Errorf("stream %d has %d readings, other ones than the %d of before", i, len(now), len(before[i]))
			}
		}
		now := h.chunkKeys(band.Assignment)
		if len(now) < 2 || slices.ContainsFunc(now, func(k string) bool { return slices.Contains(keys, k) }) {
			t.Errorf("chunks are under keys %v, before under %v", now, keys)
		}
		// Of another owner the keys of before stay, and die with all.
		if kept := slices.Contains(h.chunkKeys(lamp.Assignment), others[0]); kept == everybody {
			t.Errorf("of all %v: another owner's key stayed %v", everybody, kept)
		}
		if slices.ContainsFunc(h.keyringFiles(), func(f string) bool { return slices.Contains(files, f) }) {
			t.Error("a file of the keyring is the one of before")
		}
		send(5)
		if err := h.series.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		box, err := h.stores.vault.SealField(t.Context(), vault.OfParty(anna.Party), "t", nil, "c", []byte("after"))
		if err != nil {
			t.Fatal(err)
		}
		stolen := copied()
		if _, err := stolen.OpenField(t.Context(), vault.OfParty(anna.Party), "t", nil, "c", box); err == nil {
			t.Error("the keys of before open a field that was sealed after")
		}
		// What was sealed before is not sealed again: docs/operations.md says so.
		for name, v := range map[string]*vault.Vault{"of before": stolen, "of now": h.stores.vault} {
			if _, err := v.OpenField(t.Context(), vault.OfParty(anna.Party), "t", nil, "c", old); err != nil {
				t.Errorf("the keys %s don't open a field that was sealed before: %v", name, err)
			}
		}
		h.erase(anna, holdfast.Scope{Party: anna.Party, Assignments: []holdfast.AssignmentID{band.Assignment}, Span: holdfast.Always, Whole: true})
		if report, err := h.ledger.Verify(t.Context()); err != nil {
			t.Errorf("the ledger: %+v, %v", report, err)
		}
		h.halt()
	}
}

// copyKeys copies the catalog, the keyring and the root key; the vault that it
// returns is opened on the copy.
func (h *house) copyKeys() func() *vault.Vault {
	h.t.Helper()
	h.halt()
	to := h.t.TempDir()
	for from, name := range map[string]string{filepath.Join(h.dir, catalogDir): catalogDir, filepath.Join(h.dir, keyringDir): keyringDir} {
		if err := os.CopyFS(filepath.Join(to, name), os.DirFS(from)); err != nil {
			h.t.Fatal(err)
		}
	}
	key, err := os.ReadFile(h.rootKey)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "root.key"), key, 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.start()
	return func() *vault.Vault {
		h.t.Helper()
		db, err := catalog.Open(h.t.Context(), filepath.Join(to, catalogDir), catalog.Options{})
		if err != nil {
			h.t.Fatal(err)
		}
		h.t.Cleanup(func() { db.Close() })
		holder, err := vault.OpenFileHolder(filepath.Join(to, "root.key"), nil)
		if err != nil {
			h.t.Fatal(err)
		}
		v, err := vault.Open(h.t.Context(), db, vault.Dir(filepath.Join(to, keyringDir)), []vault.Holder{holder}, vault.Options{})
		if err != nil {
			h.t.Fatal(err)
		}
		return v
	}
}
