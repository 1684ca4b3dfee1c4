package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// KindErasure is the kind of entry, on the hub's record, that names the records
// keys which died: only they excuse an unreadable row.
const KindErasure = "erasure done"

// KindErasureBegun is the kind of entry, on the hub's record, that names the
// records keys which an erasure is about to destroy: from the moment they die to
// its KindErasure entry, an unreadable row is not excused, and no fault.
const KindErasureBegun = "erasure begun"

// Covers is the part of either entry's data that Verify reads.
type Covers struct {
	RecordKeys []seal.KeyID `json:"record_keys"`
}

// Report is what Verify found.
type Report struct {
	Entries     uint64   `json:"entries"`
	Erased      uint64   `json:"erased"`                // unreadable, covered by an erasure
	BeingErased uint64   `json:"being_erased,omitzero"` // unreadable, an erasure of them is under way
	Checkpoints int      `json:"checkpoints"`
	Root        string   `json:"root"`
	Faults      []string `json:"faults,omitempty"` // each names an index or a size
}

// maxFaults bounds the report of a ledger that is wrong all over.
const maxFaults = 100

func (r *Report) fault(format string, args ...any) {
	if len(r.Faults) < maxFaults {
		r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
	}
}

// verifyPage is how many entries Verify takes from the catalog at once.
const verifyPage = 1000

// Verify recomputes the tree from its entries and holds it against the stored
// hashes, every checkpoint signed before, and every payload. A payload that does
// not open is a fault unless an erasure on the hub's record covers its key, or has
// begun to.
//
// Payloads are opened between the reads of the catalog, not within one: to open
// one the vault may have to read as well.
func (l *Ledger) Verify(ctx context.Context) (Report, error) {
	var r Report
	var heads map[uint64]tlog.Hash
	err := l.db.Read(ctx, func(tx *sql.Tx) (err error) {
		heads, err = l.checkpoints(ctx, tx, &r)
		return err
	})
	if err != nil {
		return r, fmt.Errorf("verify ledger: %w", err)
	}
	v := verification{l: l, r: &r, tree: &prefix{}, heads: heads, begun: map[seal.KeyID]bool{}, excused: map[seal.KeyID]bool{}, unread: map[uint64]seal.KeyID{}}
	v.checkHead()
	for more := true; more; {
		if more, err = v.page(ctx); err != nil {
			return r, fmt.Errorf("verify ledger: %w", err)
		}
	}
	for index, key := range v.unread {
		if v.excused[key] {
			r.Erased++
		} else if v.begun[key] {
			r.BeingErased++
		} else {
			r.fault("entry %d does not open and no erasure covers its key %s", index, key)
		}
	}
	return r, nil
}

// verification is a Verify under way.
type verification struct {
	l       *Ledger
	r       *Report
	tree    *prefix
	heads   map[uint64]tlog.Hash  // signed, not yet come to
	begun   map[seal.KeyID]bool   // an erasure of them was begun
	excused map[seal.KeyID]bool   // covered by an erasure
	unread  map[uint64]seal.KeyID // payloads that do not open, by entry
}

// page verifies the next entries and reports whether there may be more.
func (v *verification) page(ctx context.Context) (more bool, err error) {
	var entries []entryRow
	stored := map[int64]tlog.Hash{}
	first := int64(v.tree.size)
	err = v.l.db.Read(ctx, func(tx *sql.Tx) error {
		if entries, err = readEntries(ctx, tx, first); err != nil {
			return err
		}
		return readHashes(ctx, tx, tlog.StoredHashIndex(0, first), tlog.StoredHashIndex(0, first+int64(len(entries))), stored)
	})
	if err != nil {
		return false, err
	}
	for _, row := range entries {
		if row.index != int64(v.tree.size) {
			v.r.fault("entry %d is missing", v.tree.size)
			return false, nil
		}
		v.row(ctx, row)
		at := tlog.StoredHashIndex(0, row.index)
		for i, h := range v.tree.add(tlog.RecordHash(row.commitment)) {
			if have, ok := stored[at+int64(i)]; !ok || have != h {
				v.r.fault("the tree has something else than entry %d at its place", row.index)
			}
		}
		v.checkHead()
	}
	if len(entries) == verifyPage {
		return true, nil
	}
	for size := range v.heads {
		v.r.fault("a checkpoint was signed for %d entries, there are %d", size, v.tree.size)
	}
	v.r.Entries = v.tree.size
	v.r.Root = v.tree.root().String()
	return false, nil
}

// checkHead holds the tree so far against the checkpoint of its size.
func (v *verification) checkHead() {
	if head, ok := v.heads[v.tree.size]; ok {
		delete(v.heads, v.tree.size)
		if root := v.tree.root(); root != head {
			v.r.fault("checkpoint of size %d was signed for another tree", v.tree.size)
		}
	}
}

func readEntries(ctx context.Context, tx *sql.Tx, first int64) (out []entryRow, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT idx, owner, key_id, commitment, payload_sealed FROM ledger_entry WHERE idx >= $1 ORDER BY idx LIMIT $2`, first, verifyPage)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var row entryRow
		if err := rows.Scan(&row.index, &row.owner, &row.key, &row.commitment, &row.box); err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, rows.Err()
}

// readHashes reads the stored hashes in [from, to), but for those of a wrong size.
func readHashes(ctx context.Context, tx *sql.Tx, from, to int64, out map[int64]tlog.Hash) error {
	rows, err := tx.QueryContext(ctx, `SELECT idx, hash FROM ledger_hash WHERE idx >= $1 AND idx < $2`, from, to)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var at int64
		var b []byte
		if err := rows.Scan(&at, &b); err != nil {
			return err
		}
		if len(b) == tlog.HashSize {
			out[at] = tlog.Hash(b)
		}
	}
	return rows.Err()
}

type entryRow struct {
	index           int64
	owner           []byte
	key             seal.KeyID
	commitment, box []byte
}

// row checks one payload against its leaf and collects what erasures excuse and
// what they must.
func (v *verification) row(ctx context.Context, row entryRow) {
	index := uint64(row.index)
	var o vault.Owner
	copy(o[:], row.owner)
	commitment, e, err := v.l.open(ctx, o, index, row.box)
	switch {
	case holdfast.KindOf(err) == holdfast.NotFound:
		v.unread[index] = row.key
		return
	case err != nil:
		v.r.fault("entry %d does not open: its row was altered", index)
		return
	case string(commitment[:]) != string(row.commitment):
		v.r.fault("the payload of entry %d is not what its leaf commits to", index)
	}
	if o != vault.Hub || e.Kind != KindErasure && e.Kind != KindErasureBegun {
		return
	}
	into := v.excused
	if e.Kind == KindErasureBegun {
		into = v.begun
	}
	var c Covers
	if json.Unmarshal(e.Data, &c) == nil {
		for _, id := range c.RecordKeys {
			into[id] = true
		}
	}
}

// checkpoints reads all signed heads and checks their signatures.
func (l *Ledger) checkpoints(ctx context.Context, tx *sql.Tx, r *Report) (map[uint64]tlog.Hash, error) {
	rows, err := tx.QueryContext(ctx, `SELECT size, note FROM ledger_checkpoint`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	heads := map[uint64]tlog.Hash{}
	for rows.Next() {
		var size int64
		var text string
		if err := rows.Scan(&size, &text); err != nil {
			return nil, err
		}
		r.Checkpoints++
		c, err := ParseCheckpoint([]byte(text), l.verifier)
		if err != nil || c.Size != uint64(size) {
			r.fault("the checkpoint of size %d is not one that was signed", size)
			continue
		}
		heads[c.Size] = c.Root
	}
	return heads, rows.Err()
}

// prefix is the tree over the entries so far, as its perfect subtrees from the
// largest to the smallest: enough to add a leaf and to compute the root.
type prefix struct {
	size uint64
	subs []tlog.Hash
}

// add returns the hashes that the leaf completes, as tlog stores them: its own,
// then each inner node from the bottom up.
func (p *prefix) add(leaf tlog.Hash) []tlog.Hash {
	done := []tlog.Hash{leaf}
	p.subs = append(p.subs, leaf)
	for n := p.size; n&1 == 1; n >>= 1 {
		k := len(p.subs)
		node := tlog.NodeHash(p.subs[k-2], p.subs[k-1])
		p.subs = append(p.subs[:k-2], node)
		done = append(done, node)
	}
	p.size++
	return done
}

func (p *prefix) root() tlog.Hash {
	if p.size == 0 {
		h, _ := tlog.TreeHash(0, nil)
		return h
	}
	h := p.subs[len(p.subs)-1]
	for i := len(p.subs) - 2; i >= 0; i-- {
		h = tlog.NodeHash(p.subs[i], h)
	}
	return h
}
