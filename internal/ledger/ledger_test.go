package ledger

import (
	"database/sql"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/vaulttest"
)

type book struct {
	*Ledger
	t     *testing.T
	db    *catalog.DB
	vault *vault.Vault
}

func open(t *testing.T) *book {
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
	if err := b.db.Write(b.t.Context(), func(tx *sql.Tx) (err error) {
		index, err = b.Append(b.t.Context(), tx, o, kind, data)
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	return index
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
	if err := b.db.Write(b.t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
}

func TestEntriesAreReadAndProved(t *testing.T) {
	b := open(t)
	anna, ben := b.party(), b.party()
	for i := range 13 {
		o := anna
		if i%3 == 0 {
			o = ben
		}
		b.append(o, "grant made", map[string]int{"n": i})
		if i%4 == 0 {
			if _, err := b.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	events, err := b.Events(t.Context(), ben, 0, 100)
	if err != nil || len(events) != 5 || string(events[1].Data) != `{"n":3}` {
		t.Fatalf("events %v, %v", events, err)
	}
	p, err := b.Prove(t.Context(), ben, 3)
	if err != nil {
		t.Fatal(err)
	}
	e, err := p.Check(b.VerifierKey())
	if err != nil || e.Kind != "grant made" || string(e.Data) != `{"n":3}` {
		t.Errorf("proof says %v, %v", e, err)
	}
	if _, err := b.Prove(t.Context(), anna, 3); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("an entry about another was proved: %v", err)
	}
	for name, alter := range map[string]func(*Proof){
		"index":      func(p *Proof) { p.Index = 6 },
		"commitment": func(p *Proof) { p.Commitment[0] ^= 1 },
		"payload":    func(p *Proof) { p.Salted[40] ^= 1 },
		"path":       func(p *Proof) { p.Hashes[0][0] ^= 1 },
		"checkpoint": func(p *Proof) { p.Checkpoint = "x" + p.Checkpoint },
	} {
		q, err := b.Prove(t.Context(), ben, 3)
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

// The running tree agrees with the library's for every size.
func TestPrefixRoot(t *testing.T) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(at []int64) (out []tlog.Hash, err error) {
		for _, i := range at {
			out = append(out, stored[i])
		}
		return out, nil
	})
	p := &prefix{}
	for n := range int64(70) {
		leaf := tlog.RecordHash([]byte{byte(n)})
		hashes, err := tlog.StoredHashesForRecordHash(n, leaf, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		p.add(leaf)
		want, err := tlog.TreeHash(n+1, reader)
		if err != nil || p.root() != want {
			t.Fatalf("size %d: %v", n+1, err)
		}
	}
}

// Whoever can write to the database is found.
func TestTamperingIsFound(t *testing.T) {
	for name, tamper := range map[string]string{
		"payload edited":       `UPDATE ledger_entry SET payload_sealed = CAST(payload_sealed || x'00' AS BLOB) WHERE idx = 2`,
		"payload of another":   `UPDATE ledger_entry SET payload_sealed = (SELECT e.payload_sealed FROM ledger_entry e WHERE e.idx = 4) WHERE idx = 2`,
		"commitment edited":    `UPDATE ledger_entry SET commitment = zeroblob(32) WHERE idx = 1`,
		"row dropped":          `DELETE FROM ledger_entry WHERE idx = 4`,
		"last rows dropped":    `DELETE FROM ledger_entry WHERE idx >= 5`,
		"first row dropped":    `DELETE FROM ledger_entry WHERE idx = 0`,
		"hash edited":          `UPDATE ledger_hash SET hash = zeroblob(32) WHERE idx = 2`,
		"checkpoint edited":    `UPDATE ledger_checkpoint SET note = replace(note, '8', '9')`,
		"entry given to other": `UPDATE ledger_entry SET owner = (SELECT owner FROM ledger_entry WHERE idx = 1) WHERE idx = 2`,
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			anna, ben := b.party(), b.party()
			for i := range 8 {
				o := anna
				if i%2 == 0 {
					o = ben
				}
				b.append(o, "disclosure opened", i)
			}
			if _, err := b.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			if r := b.verify(); len(r.Faults) > 0 {
				t.Fatalf("faults before: %v", r.Faults)
			}
			b.exec(tamper)
			if r := b.verify(); len(r.Faults) == 0 {
				t.Error("not found")
			}
		})
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
