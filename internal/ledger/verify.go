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

// Covers is the part of a KindErasure entry's data that Verify reads.
type Covers struct {
	RecordKeys []seal.KeyID `json:"record_keys"`
}

// Report is what Verify found.
type Report struct {
	Entries     uint64   `json:"entries"`
	Erased      uint64   `json:"erased"` // unreadable, covered by an erasure
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

// Verify recomputes the tree from its entries and holds it against the stored
// hashes, every checkpoint ever signed, and every payload. A payload that does
// not open is a fault unless an erasure on the hub's record covers its key.
func (l *Ledger) Verify(ctx context.Context) (Report, error) {
	var r Report
	excused := map[seal.KeyID]bool{}
	unread := map[uint64]seal.KeyID{}
	err := l.db.Read(ctx, func(tx *sql.Tx) error {
		heads, err := l.checkpoints(ctx, tx, &r)
		if err != nil {
			return err
		}
		tree := &prefix{}
		check := func() {
			if head, ok := heads[tree.size]; ok {
				delete(heads, tree.size)
				if root := tree.root(); root != head {
					r.fault("checkpoint of size %d was signed for another tree", tree.size)
				}
			}
		}
		check()
		rows, err := tx.QueryContext(ctx, `SELECT e.idx, e.owner, e.key_id, e.commitment, e.payload_sealed FROM ledger_entry e ORDER BY e.idx`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var row entryRow
			if err := rows.Scan(&row.index, &row.owner, &row.key, &row.commitment, &row.box); err != nil {
				return err
			}
			if row.index != int64(tree.size) {
				r.fault("entry %d is missing", tree.size)
				return nil
			}
			l.verifyRow(ctx, row, &r, excused, unread)
			at := tlog.StoredHashIndex(0, row.index)
			for i, h := range tree.add(tlog.RecordHash(row.commitment)) {
				if stored, err := hashReader(ctx, tx).ReadHashes([]int64{at + int64(i)}); err != nil || stored[0] != h {
					r.fault("the tree has something else than entry %d at its place", row.index)
				}
			}
			check()
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for size := range heads {
			r.fault("a checkpoint was signed for %d entries, there are %d", size, tree.size)
		}
		r.Entries = tree.size
		r.Root = tree.root().String()
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("verify ledger: %w", err)
	}
	for index, key := range unread {
		if excused[key] {
			r.Erased++
		} else {
			r.fault("entry %d does not open and no erasure covers its key %s", index, key)
		}
	}
	return r, nil
}

type entryRow struct {
	index           int64
	owner           []byte
	key             seal.KeyID
	commitment, box []byte
}

// verifyRow checks one payload against its leaf and collects what erasures
// excuse and what they must.
func (l *Ledger) verifyRow(ctx context.Context, row entryRow, r *Report, excused map[seal.KeyID]bool, unread map[uint64]seal.KeyID) {
	index := uint64(row.index)
	var o vault.Owner
	copy(o[:], row.owner)
	commitment, e, err := l.open(ctx, o, index, row.box)
	switch {
	case holdfast.KindOf(err) == holdfast.NotFound:
		unread[index] = row.key
		return
	case err != nil:
		r.fault("entry %d does not open: its row was altered", index)
		return
	case string(commitment[:]) != string(row.commitment):
		r.fault("the payload of entry %d is not what its leaf commits to", index)
	}
	if o == vault.Hub && e.Kind == KindErasure {
		var c Covers
		if json.Unmarshal(e.Data, &c) == nil {
			for _, id := range c.RecordKeys {
				excused[id] = true
			}
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
