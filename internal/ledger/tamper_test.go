package ledger

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// headFile is an Outside in a file.
type headFile string

func (f headFile) Load() (k Kept, err error) {
	b, err := os.ReadFile(string(f))
	if err != nil {
		return k, err
	}
	return k, json.Unmarshal(b, &k)
}

func (f headFile) Save(k Kept) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return os.WriteFile(string(f), b, 0o600)
}

// keep gives the book a head outside of the catalog.
func (b *book) keep() headFile {
	b.t.Helper()
	f := headFile(filepath.Join(b.t.TempDir(), "ledger.json"))
	if err := f.Save(Kept{Checkpoint: string(b.head().Note), Verifier: b.verifier}); err != nil {
		b.t.Fatal(err)
	}
	if err := b.KeepOutside(b.t.Context(), f); err != nil {
		b.t.Fatal(err)
	}
	return f
}

// whole is a ledger of two records, 60 entries and padding between.
func whole(t *testing.T) (*book, checkpoint.Checkpoint) {
	t.Helper()
	b := open(t)
	anna, ben := b.party(), b.party()
	for i := range 300 {
		o := anna
		if i%2 == 0 {
			o = ben
		}
		b.append(o, "disclosure opened", i)
		if i%50 == 49 {
			b.publish()
		}
	}
	c := b.publish()
	if r := b.verify(); len(r.Faults) > 0 {
		t.Fatalf("faults before: %v", r.Faults)
	}
	return b, c
}

// Whoever can write to the database is found.
func TestTamperingIsFound(t *testing.T) {
	leaves := map[string]bool{ // that can be seen in the tiles
		"commitment edited": true, "row dropped": true, "last rows dropped": true, "first row dropped": true, "two rows swapped": true, "rows moved up": true,
		"an owner's rows gone": true, "row passed off as padding": true, "padding dropped": true, "entry beneath padding": true,
	}
	for name, tamper := range map[string]string{
		"payload edited":             `UPDATE ledger_entry SET payload_sealed = CAST(payload_sealed || x'00' AS BLOB) WHERE idx = 2`,
		"payload of another":         `UPDATE ledger_entry SET payload_sealed = (SELECT e.payload_sealed FROM ledger_entry e WHERE e.idx = 4) WHERE idx = 2`,
		"commitment edited":          `UPDATE ledger_entry SET commitment = zeroblob(32) WHERE idx = 1`,
		"commitment cut":             `UPDATE ledger_entry SET commitment = x'00' WHERE idx = 1`,
		"key id edited":              `UPDATE ledger_entry SET key_id = zeroblob(16), payload_sealed = x'00' WHERE idx = 1`,
		"row dropped":                `DELETE FROM ledger_entry WHERE idx = 4`,
		"last rows dropped":          `DELETE FROM ledger_entry WHERE idx >= 45`,
		"first row dropped":          `DELETE FROM ledger_entry WHERE idx = 0`,
		"two rows swapped":           `UPDATE ledger_entry SET idx = CASE idx WHEN 2 THEN -4 WHEN 4 THEN -2 END WHERE idx IN (2, 4); UPDATE ledger_entry SET idx = -idx WHERE idx < 0`,
		"rows moved up":              `DELETE FROM ledger_entry WHERE idx = 3; UPDATE ledger_entry SET idx = idx - 1 WHERE idx BETWEEN 4 AND 40`,
		"an owner's rows gone":       `DELETE FROM ledger_entry WHERE owner = (SELECT owner FROM ledger_entry WHERE idx = 1)`,
		"row passed off as padding":  `DELETE FROM ledger_entry WHERE idx = 3; INSERT INTO ledger_padding (idx, leaves) VALUES (3, 1)`,
		"rows and padding dropped":   `DELETE FROM ledger_entry WHERE idx >= 40; DELETE FROM ledger_padding WHERE idx >= 40`,
		"padding dropped":            `DELETE FROM ledger_padding WHERE idx = (SELECT min(idx) FROM ledger_padding)`,
		"padding shortened":          `UPDATE ledger_padding SET leaves = leaves - 1 WHERE idx = (SELECT max(idx) FROM ledger_padding)`,
		"entry beneath padding":      `UPDATE ledger_entry SET idx = (SELECT min(idx) FROM ledger_padding) WHERE idx = 5`,
		"hash edited":                `UPDATE ledger_hash SET hash = zeroblob(32) WHERE level = 1 AND n = 0`,
		"hash dropped":               `DELETE FROM ledger_hash WHERE level = 1 AND n = 0`,
		"checkpoint edited":          `UPDATE ledger_checkpoint SET note = replace(note, '8', '9')`,
		"checkpoint at another size": `UPDATE ledger_checkpoint SET size = size + 1 WHERE size = (SELECT max(size) FROM ledger_checkpoint)`,
		"entry given to other":       `UPDATE ledger_entry SET owner = (SELECT owner FROM ledger_entry WHERE idx = 1) WHERE idx = 2`,
		"count of a record edited":   `UPDATE ledger_owner SET entries = entries + 1 WHERE owner = (SELECT owner FROM ledger_entry WHERE idx = 1)`,
		"count of a record dropped":  `DELETE FROM ledger_owner`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, c := whole(t)
			for _, q := range strings.Split(tamper, ";") {
				b.exec(q)
			}
			r := b.verify()
			if len(r.Faults) == 0 {
				t.Fatal("not found")
			}
			// The hub signs on only where that is the beginning of what it signs: with a
			// tile's hash in place it is, whatever became of the leaves under it. Those
			// an outsider finds, who has the checkpoint and reads the tiles.
			next, err := b.Publish(t.Context())
			if holdfast.KindOf(err) == holdfast.Conflict && b.Trouble() != nil {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			proof, err := b.Consistency(t.Context(), c.Size, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := checkpoint.Grown(proof.Hashes, c.Size, c.Root, next.Size, next.Root); err != nil {
				t.Errorf("an altered tree was signed: %v", err)
			}
			if leaves[name] {
				if root, ok := b.rootOfTiles(c.Size); ok && root == c.Root {
					t.Error("an outsider does not see it in the tiles")
				}
			}
		})
	}
}

// rootOfTiles computes the root as an outsider does, from the lowest tiles.
func (b *book) rootOfTiles(size uint64) (tlog.Hash, bool) {
	tree := prefix{}
	for tree.size < size {
		row, err := b.Tile(b.t.Context(), 0, int64(tree.size/tileWidth), int(min(tileWidth, size-tree.size)))
		if err != nil {
			return tlog.Hash{}, false
		}
		for ; len(row) > 0; row = row[tlog.HashSize:] {
			tree.add(tlog.Hash(row[:tlog.HashSize]))
		}
	}
	return tree.root(), true
}

// A gap and a repeat in a record are found even where the tree was built over them.
func TestGapInARecordIsFound(t *testing.T) {
	for name, to := range map[string]int{"gap": 5, "repeat": 2} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			anna := b.party()
			for range 3 {
				b.append(anna, "grant made", nil)
			}
			b.exec(`UPDATE ledger_owner SET entries = $1 WHERE owner = $2`, to, anna[:])
			b.append(anna, "grant made", nil)
			b.publish()
			r := b.verify()
			if len(r.Faults) == 0 || !strings.Contains(r.Faults[0], "gap or a repeat") {
				t.Errorf("%v", r.Faults)
			}
		})
	}
}

// copyFile copies the catalog as a database administrator would.
func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A database that is put back as a whole verifies by itself. The head outside tells;
// so does a checkpoint that somebody kept. A new origin goes on from there.
func TestWholeDatabasePutBack(t *testing.T) {
	dir := t.TempDir()
	b := openIn(t, dir)
	kept := b.keep()
	anna := b.party()
	for range 5 {
		b.append(anna, "grant made", nil)
	}
	early := b.publish()
	if err := b.db.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	copyFile(t, filepath.Join(dir, catalog.File), filepath.Join(dir, "copy"))
	b.append(anna, "grant ended", nil)
	late := b.publish()
	slice := b.slice(anna, 0)

	b.db.Close()
	for _, name := range []string{catalog.File + "-wal", catalog.File + "-shm"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	copyFile(t, filepath.Join(dir, "copy"), filepath.Join(dir, catalog.File))
	b = b.again(dir)
	if r := b.verify(); len(r.Faults) > 0 {
		t.Fatalf("faults without a head outside: %v", r.Faults)
	}
	if err := b.KeepOutside(t.Context(), kept); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "earlier state") {
		t.Fatalf("the fork was taken: %v", err)
	}
	b.outside = kept
	if r := b.verify(); len(r.Faults) != 1 {
		t.Errorf("the head outside was not held against the tree: %v", r.Faults)
	}
	b.outside = nil

	before := b.VerifierKey()
	r, err := b.Renew(t.Context(), kept)
	if err != nil {
		t.Fatal(err)
	}
	if r.Origin != "hub.example/ledger/2" || b.Origin() != r.Origin || r.KeptSize != early.Size || r.Last[0] != string(late.Note) || b.VerifierKey() == before {
		t.Errorf("renewal %+v", r)
	}
	b.append(anna, "grant made", nil)
	b.publish()
	if r := b.verify(); len(r.Faults) > 0 {
		t.Errorf("after the renewal: %v", r.Faults)
	}
	b = b.again(dir)
	if err := b.KeepOutside(t.Context(), kept); err != nil || b.Origin() != r.Origin {
		t.Fatalf("the renewed log does not start: %v", err)
	}
	openings, err := b.Renewals(t.Context())
	if err != nil || len(openings) != 1 || openings[0].Index != early.Size || !strings.Contains(string(openings[0].Salted), r.Verifier) {
		t.Errorf("openings %v, %v", openings, err)
	}
	// The owner's slice of before is of a log that went another way.
	again := b.slice(anna, 0)
	if _, err := CheckSlice(again, b.VerifierKey(), nil, nil); err != nil {
		t.Error(err)
	}
	old, err := ReadOlder(slice.Bytes(), before)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckSlice(b.slice(anna, old.Checkpoint.Size), b.VerifierKey(), &old, nil); err == nil {
		t.Error("a slice that lost an entry is taken for the continuation of the older one")
	}
}

// A crash between the renewal in the catalog and the head outside starts again.
func TestRenewalWhoseHeadWasNotKept(t *testing.T) {
	b := open(t)
	kept := b.keep()
	b.append(b.party(), "grant made", nil)
	b.publish()
	lost, err := kept.Load()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Renew(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	if err := kept.Save(lost); err != nil {
		t.Fatal(err)
	}
	b.Ledger, err = Open(t.Context(), b.db, b.vault)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.KeepOutside(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	if k, err := kept.Load(); err != nil || k.Verifier != b.VerifierKey() {
		t.Errorf("the head outside is still the old name's: %v", err)
	}
}

// The head outside is there before anybody gets the checkpoint, and no start goes
// without it.
func TestHeadOutsideComesFirst(t *testing.T) {
	b := open(t)
	kept := b.keep()
	b.outside = failing{kept}
	index := b.append(vault.Hub, "purpose added", nil)
	before := b.head()
	if _, err := b.Publish(t.Context()); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Fatalf("published without the head outside: %v", err)
	}
	if b.head().Size != before.Size {
		t.Error("what is not kept outside was published")
	}
	if _, err := b.Prove(t.Context(), vault.Hub, index); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("proved without the head outside: %v", err)
	}
	b.outside = kept
	if c := b.publish(); c.Size <= index {
		t.Error("the next tick does not publish")
	}
	if err := os.Remove(string(kept)); err != nil {
		t.Fatal(err)
	}
	if err := b.KeepOutside(t.Context(), kept); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("started without the head outside: %v", err)
	}
	if r := b.verify(); len(r.Faults) != 1 {
		t.Errorf("%v", r.Faults)
	}
}

type failing struct{ headFile }

func (failing) Save(Kept) error { return fs.ErrPermission }
