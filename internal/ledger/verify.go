package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
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
	Padding     uint64   `json:"padding"`               // leaves that stand for nothing
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

// verifyPage is how many leaves Verify takes from the catalog at once.
const verifyPage = 1000

// Verify recomputes the tree from its leaves and holds it against the stored
// hashes, every checkpoint signed before, the head outside, every payload and the
// sequence of every record. A payload that does not open is a fault unless an
// erasure on the hub's record covers its key, or has begun to.
//
// Payloads are opened between the reads of the catalog, not within one: to open
// one the vault may have to read as well. A key that dies in between has an entry
// that was written before: what was appended meanwhile is read before anything
// unreadable is called a fault.
func (l *Ledger) Verify(ctx context.Context) (Report, error) {
	var r Report
	v := verification{l: l, r: &r, heads: map[uint64]tlog.Hash{}, begun: map[seal.KeyID]bool{}, excused: map[seal.KeyID]bool{},
		unread: map[uint64]seal.KeyID{}, seqs: map[vault.Owner]uint64{}}
	if err := v.checkpoints(ctx); err != nil {
		return r, fmt.Errorf("verify ledger: %w", err)
	}
	v.checkHead()
	if err := v.toTheEnd(ctx); err != nil {
		return r, fmt.Errorf("verify ledger: %w", err)
	}
	for size := range v.heads {
		r.fault("a checkpoint was signed over %d leaves, there are %d", size, v.tree.size)
	}
	if err := v.countRecords(ctx); err != nil {
		return r, fmt.Errorf("verify ledger: %w", err)
	}
	r.Root = v.tree.root().String()
	for index, key := range v.unread {
		if v.excused[key] {
			r.Erased++
		} else if v.begun[key] {
			r.BeingErased++
		} else {
			r.fault("entry %d does not open and no erasure covers its key %s", index, key)
		}
	}
	if l.outside != nil {
		if err := v.checkOutside(ctx); err != nil {
			return r, fmt.Errorf("verify ledger: %w", err)
		}
	}
	return r, nil
}

// verification is a Verify under way.
type verification struct {
	l       *Ledger
	r       *Report
	tree    prefix
	broken  bool                   // a leaf is missing: what follows can't be placed
	heads   map[uint64]tlog.Hash   // signed, not yet come to
	begun   map[seal.KeyID]bool    // an erasure of them was begun
	excused map[seal.KeyID]bool    // covered by an erasure
	unread  map[uint64]seal.KeyID  // payloads that do not open, by entry
	seqs    map[vault.Owner]uint64 // entries of each record so far
}

// toTheEnd verifies page after page until there is nothing new, and once more if
// something did not open that no erasure accounts for yet.
func (v *verification) toTheEnd(ctx context.Context) error {
	for again := true; again; {
		for {
			more, err := v.page(ctx)
			if err != nil {
				return err
			}
			if !more {
				break
			}
		}
		before := v.tree.size
		again = false
		if v.unexplained() && !v.broken {
			if _, err := v.page(ctx); err != nil {
				return err
			}
			again = v.tree.size > before
		}
	}
	return nil
}

func (v *verification) unexplained() bool {
	for _, key := range v.unread {
		if !v.excused[key] && !v.begun[key] {
			return true
		}
	}
	return false
}

// page is what Verify reads at once.
type page struct {
	entries []entryRow
	padding []run
	stored  map[tile]map[int64]tlog.Hash // of level from 1
	end     uint64
}

// page verifies the next leaves and reports whether there may be more.
func (v *verification) page(ctx context.Context) (more bool, err error) {
	first := v.tree.size
	p, err := v.l.readPage(ctx, first)
	if err != nil || p.end == first {
		return false, err
	}
	entries := p.entries
	for index := first; index < p.end; index++ {
		var leaf commitment
		row := len(entries) > 0 && entries[0].index == int64(index)
		padded := len(p.padding) > 0 && index >= p.padding[0].first
		switch {
		case row && padded:
			v.r.fault("leaf %d is an entry and padding at once", index)
			fallthrough
		case row:
			if len(entries[0].commitment) != len(leaf) {
				v.r.fault("the commitment of entry %d was altered", index)
			}
			copy(leaf[:], entries[0].commitment)
			v.row(ctx, entries[0])
			v.r.Entries++
			entries = entries[1:]
		case padded:
			leaf = v.l.dummy(index)
			v.r.Padding++
		default:
			v.r.fault("entry %d is missing", index)
			v.broken = true
			return false, nil
		}
		if len(p.padding) > 0 && index+1 == p.padding[0].end {
			p.padding = p.padding[1:]
		}
		v.add(index, leaf, p.stored)
	}
	return true, nil
}

// add adds a leaf and holds what it completes against what is stored.
func (v *verification) add(index uint64, leaf commitment, stored map[tile]map[int64]tlog.Hash) {
	done := v.tree.add(tlog.RecordHash(leaf[:]))
	for level := tileHeight; level < len(done); level += tileHeight {
		n := int64(index >> level)
		if have, ok := stored[tile{level: level / tileHeight}][n]; !ok || have != done[level] {
			v.r.fault("the tree has another hash stored than that of the leaves up to %d", index)
		}
	}
	v.checkHead()
}

// checkHead holds the tree so far against the checkpoint of its size.
func (v *verification) checkHead() {
	if head, ok := v.heads[v.tree.size]; ok {
		delete(v.heads, v.tree.size)
		if root := v.tree.root(); root != head {
			v.r.fault("the checkpoint over %d leaves was signed over others", v.tree.size)
		}
	}
}

// readPage reads up to verifyPage leaves from first on.
func (l *Ledger) readPage(ctx context.Context, first uint64) (p page, err error) {
	p.stored = map[tile]map[int64]tlog.Hash{}
	err = l.db.Read(ctx, func(tx *sql.Tx) error {
		x, err := readExtent(ctx, tx)
		if err != nil {
			return err
		}
		p.end = max(first, min(x.size, first+verifyPage))
		if p.padding, err = runs(ctx, tx, first, p.end); err != nil {
			return err
		}
		if p.entries, err = readEntries(ctx, tx, first, p.end); err != nil {
			return err
		}
		for level := 1; level*tileHeight < 63; level++ {
			from, to := int64(first>>(level*tileHeight)), int64(p.end>>(level*tileHeight))
			if to == 0 {
				break
			}
			p.stored[tile{level: level}], err = storedHashes(ctx, tx, level, from, to)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return p, err
}

func readEntries(ctx context.Context, tx *sql.Tx, first, end uint64) (out []entryRow, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT idx, owner, key_id, commitment, payload_sealed FROM ledger_entry WHERE idx >= $1 AND idx < $2 ORDER BY idx`, int64(first), int64(end))
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

// storedHashes reads the stored hashes in [from, to), but for those of a wrong size.
func storedHashes(ctx context.Context, tx *sql.Tx, level int, from, to int64) (map[int64]tlog.Hash, error) {
	rows, err := tx.QueryContext(ctx, `SELECT n, hash FROM ledger_hash WHERE level = $1 AND n >= $2 AND n < $3`, level, from, to)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[int64]tlog.Hash{}
	for rows.Next() {
		var n int64
		var b []byte
		if err := rows.Scan(&n, &b); err != nil {
			return nil, err
		}
		if len(b) == tlog.HashSize {
			out[n] = tlog.Hash(b)
		}
	}
	return out, rows.Err()
}

type entryRow struct {
	index           int64
	owner           []byte
	key             seal.KeyID
	commitment, box []byte
}

// row checks one payload against its leaf and its place on the owner's record, and
// collects what erasures excuse and what they must.
func (v *verification) row(ctx context.Context, row entryRow) {
	index := uint64(row.index)
	var o vault.Owner
	copy(o[:], row.owner)
	seq := v.seqs[o]
	v.seqs[o]++
	salted, err := v.l.open(ctx, o, boxed{index, row.box})
	switch {
	case holdfast.KindOf(err) == holdfast.NotFound:
		v.unread[index] = row.key
		return
	case err != nil:
		v.r.fault("entry %d does not open: its row was altered", index)
		return
	}
	if sum := commit(salted); string(sum[:]) != string(row.commitment) {
		v.r.fault("the payload of entry %d is not what its leaf commits to", index)
	}
	e, err := eventOf(index, salted)
	if err != nil {
		v.r.fault("the payload of entry %d can't be read", index)
		return
	}
	if e.Seq != seq {
		v.r.fault("entry %d says it is number %d on the record of %s, number %d is due: there is a gap or a repeat", index, e.Seq, o, seq)
		v.seqs[o] = e.Seq + 1
	}
	if o == vault.Hub {
		v.erasure(e)
	}
}

// erasure takes note of the keys that an entry of the hub's record accounts for.
func (v *verification) erasure(e Event) {
	into := v.excused
	switch e.Kind {
	case KindErasure:
	case KindErasureBegun:
		into = v.begun
	default:
		return
	}
	var c Covers
	if json.Unmarshal(e.Data, &c) == nil {
		for _, id := range c.RecordKeys {
			into[id] = true
		}
	}
}

// checkpoints reads all signed heads and checks their signatures.
func (v *verification) checkpoints(ctx context.Context) error {
	all, err := v.l.origins(ctx)
	if err != nil {
		return err
	}
	verifiers := map[int]string{}
	for _, o := range all {
		verifiers[o.number] = o.Verifier
	}
	return v.l.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT size, origin, note FROM ledger_checkpoint`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var size int64
			var origin int
			var text string
			if err := rows.Scan(&size, &origin, &text); err != nil {
				return err
			}
			v.r.Checkpoints++
			c, err := checkpoint.Parse([]byte(text), verifiers[origin])
			if err != nil || c.Size != uint64(size) {
				v.r.fault("the checkpoint over %d leaves is not one that was signed", size)
				continue
			}
			v.heads[c.Size] = c.Root
		}
		return rows.Err()
	})
}

// countRecords holds the entries of each record against their number, as far as
// they were read: those appended since are counted already.
func (v *verification) countRecords(ctx context.Context) error {
	if v.broken {
		return nil
	}
	return v.l.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT o.owner, o.entries, (SELECT count(*) FROM ledger_entry e WHERE e.owner = o.owner AND e.idx >= $1) FROM ledger_owner o`, int64(v.tree.size))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var owner []byte
			var entries, since int64
			if err := rows.Scan(&owner, &entries, &since); err != nil {
				return err
			}
			var o vault.Owner
			copy(o[:], owner)
			if have := v.seqs[o]; uint64(entries-since) != have {
				v.r.fault("the record of %s is to have %d entries, it has %d", o, entries-since, have)
			}
			delete(v.seqs, o)
		}
		for o := range v.seqs {
			v.r.fault("the record of %s has entries and no number of them", o)
		}
		return rows.Err()
	})
}

// checkOutside holds the tree against the head outside of the catalog.
func (v *verification) checkOutside(ctx context.Context) error {
	k, err := v.l.outside.Load()
	if errors.Is(err, fs.ErrNotExist) {
		v.r.fault("the ledger's last head outside the catalog is gone")
		return nil
	} else if err != nil {
		return err
	}
	_, err = v.l.fits(ctx, k)
	if holdfast.KindOf(err) == holdfast.Conflict {
		v.r.fault("%s", err)
		return nil
	}
	return err
}
