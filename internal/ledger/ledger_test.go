package ledger

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/vaulttest"
)

type book struct {
	*Ledger
	t     testing.TB
	db    *catalog.DB
	vault *vault.Vault
}

func open(t testing.TB) *book {
	t.Helper()
	db, v := vaulttest.New(t)
	l, err := Create(t.Context(), db, v, "hub.example/ledger")
	if err != nil {
		t.Fatal(err)
	}
	return &book{l, t, db, v}
}

func (b *book) party() vault.Owner {
	b.t.Helper()
	o := vault.OfParty(holdfast.NewID[holdfast.PartyID]())
	if err := b.vault.AddOwner(b.t.Context(), o); err != nil {
		b.t.Fatal(err)
	}
	return o
}

func (b *book) append(o vault.Owner, kind string, data any) uint64 {
	b.t.Helper()
	var index uint64
	b.write(func(tx *sql.Tx) (err error) {
		index, err = b.Append(b.t.Context(), tx, o, kind, data)
		return err
	})
	return index
}

func (b *book) write(f func(*sql.Tx) error) {
	b.t.Helper()
	if err := b.db.Write(b.t.Context(), f); err != nil {
		b.t.Fatal(err)
	}
}

// leaves returns the data of all leaves.
func (b *book) leaves() (out [][]byte) {
	b.t.Helper()
	err := b.db.Read(b.t.Context(), func(tx *sql.Tx) error {
		x, err := readExtent(b.t.Context(), tx)
		if err != nil {
			return err
		}
		all, err := b.commitments(b.t.Context(), tx, 0, x.size)
		for _, c := range all {
			out = append(out, c[:])
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (b *book) publish() checkpoint.Checkpoint {
	b.t.Helper()
	c, err := b.Publish(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *book) verify() Report {
	b.t.Helper()
	r, err := b.Verify(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *book) exec(query string, args ...any) {
	b.t.Helper()
	b.write(func(tx *sql.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	})
}

func TestEntriesAreReadAndProved(t *testing.T) {
	b := open(t)
	anna, ben := b.party(), b.party()
	var third uint64
	for i := range 13 {
		o := anna
		if i%3 == 0 {
			o = ben
		}
		index := b.append(o, "grant made", map[string]int{"n": i})
		if i == 3 {
			third = index
		}
		if i%4 == 0 {
			b.publish()
		}
	}
	events, err := b.Events(t.Context(), ben, 0, 100)
	if err != nil || len(events) != 5 || string(events[1].Data) != `{"n":3}` || events[1].Seq != 1 {
		t.Fatalf("events %v, %v", events, err)
	}
	p, err := b.Prove(t.Context(), ben, third)
	if err != nil {
		t.Fatal(err)
	}
	e, err := p.Check(b.VerifierKey())
	if err != nil || e.Kind != "grant made" || string(e.Data) != `{"n":3}` {
		t.Errorf("proof says %v, %v", e, err)
	}
	if _, err := b.Prove(t.Context(), anna, third); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("an entry about another was proved: %v", err)
	}
	for name, alter := range map[string]func(*Proof){
		"index":      func(p *Proof) { p.Index++ },
		"commitment": func(p *Proof) { p.Commitment[0] ^= 1 },
		"payload":    func(p *Proof) { p.Salted[40] ^= 1 },
		"path":       func(p *Proof) { p.Hashes[0][0] ^= 1 },
		"checkpoint": func(p *Proof) { p.Checkpoint = "x" + p.Checkpoint },
	} {
		q, err := b.Prove(t.Context(), ben, third)
		if err != nil {
			t.Fatal(err)
		}
		if alter(&q); true {
			if _, err := q.Check(b.VerifierKey()); err == nil {
				t.Errorf("a proof with another %s passes", name)
			}
		}
	}
	if r := b.verify(); len(r.Faults) > 0 || r.Entries != 13 || r.Checkpoints == 0 {
		t.Errorf("report %+v", r)
	}
}

// Trees of all sizes, of entries and padding in any mixture, are those of the
// library, whether the edge comes from memory or from the catalog.
func TestTreeIsTheLibrarys(t *testing.T) {
	b := open(t)
	o := b.party()
	var leaves [][]byte
	rng := mathrand.New(mathrand.NewPCG(7, 7))
	for len(leaves) < 900 {
		switch rng.IntN(4) {
		case 0:
			b.edge = nil
		case 1:
			if _, err := b.Publish(t.Context()); err != nil {
				t.Fatal(err)
			}
		default:
			n := rng.IntN(70)
			b.write(func(tx *sql.Tx) error {
				_, err := b.AppendAll(t.Context(), tx, slices.Repeat([]Happening{{o, "grant made", n}}, n))
				return err
			})
			if rng.IntN(3) == 0 { // and a transaction that is not to be
				b.db.Write(t.Context(), func(tx *sql.Tx) error {
					b.AppendAll(t.Context(), tx, slices.Repeat([]Happening{{o, "grant made", n}}, rng.IntN(300)))
					return errors.New("no")
				})
			}
		}
		leaves = b.leaves()
	}
	var stored []tlog.Hash
	library := tlog.HashReaderFunc(func(at []int64) (out []tlog.Hash, err error) {
		for _, i := range at {
			out = append(out, stored[i])
		}
		return out, nil
	})
	for n, leaf := range leaves {
		hashes, err := tlog.StoredHashes(int64(n), leaf, library)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
	}
	err := b.db.Read(t.Context(), func(tx *sql.Tx) error {
		for size := range int64(len(leaves)) {
			want, err := tlog.TreeHash(size+1, library)
			if err != nil {
				return err
			}
			have, err := tlog.TreeHash(size+1, b.reader(t.Context(), tx, uint64(len(leaves))))
			if err != nil || have != want {
				t.Fatalf("size %d: %v, %v, %v", size+1, have, want, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := b.verify(); len(r.Faults) > 0 || r.Entries+r.Padding != uint64(len(leaves)) || r.Root == "" {
		t.Errorf("%+v", r)
	}
}

// An unreadable row passes only when an erasure names its key.
func TestErasedRowsNeedAnErasure(t *testing.T) {
	b := open(t)
	anna, ben := b.party(), b.party()
	for range 3 {
		b.append(anna, "grant made", nil)
		b.append(ben, "grant made", nil)
	}
	rot, err := b.vault.Destroy(t.Context(), vault.Destruction{Owners: []vault.Owner{anna}})
	if err != nil {
		t.Fatal(err)
	}
	if r := b.verify(); len(r.Faults) != 3 {
		t.Errorf("uncovered: %+v", r)
	}
	b.append(vault.Hub, KindErasureBegun, Covers{RecordKeys: rot.RecordKeys})
	if r := b.verify(); len(r.Faults) != 0 || r.Erased != 0 || r.BeingErased != 3 {
		t.Errorf("under way: %+v", r)
	}
	b.append(vault.Hub, KindErasure, Covers{RecordKeys: rot.RecordKeys})
	if r := b.verify(); len(r.Faults) != 0 || r.Erased != 3 || r.BeingErased != 0 {
		t.Errorf("covered: %+v", r)
	}
	if events, err := b.Events(t.Context(), anna, 0, 10); err != nil || events != nil {
		t.Errorf("events of an erased owner: %v, %v", events, err)
	}
}

// A change that is rolled back leaves no entry.
func TestEntryExistsExactlyIfItsChangeDoes(t *testing.T) {
	b := open(t)
	anna := b.party()
	boom := holdfast.Errorf(holdfast.Invalid, "no")
	if err := b.db.Write(t.Context(), func(tx *sql.Tx) error {
		if _, err := b.Append(t.Context(), tx, anna, "grant made", nil); err != nil {
			return err
		}
		return boom
	}); err == nil {
		t.Fatal("the change happened")
	}
	if r := b.verify(); r.Entries != 0 || len(r.Faults) > 0 {
		t.Errorf("%+v", r)
	}
}

// openIn is open in a folder of its own, which again opens once more.
func openIn(t testing.TB, dir string) *book {
	t.Helper()
	db, err := catalog.Open(t.Context(), dir, catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := os.Mkdir(filepath.Join(dir, "keyring"), 0o700); err != nil {
		t.Fatal(err)
	}
	holder, err := vault.CreateFileHolder(filepath.Join(dir, "root.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Create(t.Context(), db, vault.Dir(filepath.Join(dir, "keyring")), []vault.Holder{holder}, vault.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := Create(t.Context(), db, v, "hub.example/ledger")
	if err != nil {
		t.Fatal(err)
	}
	return &book{l, t, db, v}
}

func (b *book) again(dir string) *book {
	b.t.Helper()
	b.vault.Close()
	b.db.Close()
	db, err := catalog.Open(b.t.Context(), dir, catalog.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { db.Close() })
	holder, err := vault.OpenFileHolder(filepath.Join(dir, "root.key"), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	v, err := vault.Open(b.t.Context(), db, vault.Dir(filepath.Join(dir, "keyring")), []vault.Holder{holder}, vault.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	l, err := Open(b.t.Context(), db, v)
	if err != nil {
		b.t.Fatal(err)
	}
	return &book{l, b.t, db, v}
}

func (b *book) slice(o vault.Owner, since uint64) *bytes.Buffer {
	b.t.Helper()
	var out bytes.Buffer
	if err := b.Slice(b.t.Context(), o, since, json.NewEncoder(&out).Encode); err != nil {
		b.t.Fatal(err)
	}
	return &out
}

// A day of a hub on which nothing happens takes little room, and its tree grows by
// the same at every tick, as on one on which a little does.
func TestIdleDayIsCheapAndLooksLikeAnyOther(t *testing.T) {
	b := open(t)
	o := b.party()
	used := func() (bytes int64) {
		b.write(func(tx *sql.Tx) error {
			return tx.QueryRow(`SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&bytes)
		})
		return bytes
	}
	before, size := used(), b.publish().Size
	for range 288 {
		c := b.publish()
		if c.Size != size+paddingStep {
			t.Fatalf("a tick grew the tree from %d to %d", size, c.Size)
		}
		size = c.Size
	}
	if day := used() - before; day > 150<<10 {
		t.Errorf("an idle day takes %d bytes", day)
	} else {
		t.Logf("an idle day takes %d bytes", day)
	}
	for entries, step := range map[int]uint64{1: 16, 16: 16, 17: 32, 100: 128} {
		for range entries {
			b.append(o, "grant made", nil)
		}
		if c := b.publish(); c.Size != size+step {
			t.Errorf("%d entries grew the tree by %d", entries, c.Size-size)
		} else {
			size = c.Size
		}
	}
	if r := b.verify(); len(r.Faults) > 0 || r.Entries != 134 {
		t.Errorf("%+v", r)
	}
}
