package ledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
)

// commitment is a leaf's data.
type commitment [sha256.Size]byte

// tileHeight and tileWidth are those of C2SP tlog-tiles. Of the tree only the roots
// of full tiles are stored; what lies within a tile is computed from its lowest
// row, of which 256 commitments are the widest.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// prefix is the tree over the leaves so far, as its perfect subtrees from the
// largest to the smallest: enough to add a leaf and to compute the root.
type prefix struct {
	size uint64
	subs []tlog.Hash
}

// add returns the hashes that the leaf completes: its own, then each inner node
// from the bottom up.
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

// edge is the right edge of the tree, kept in memory between transactions. A
// transaction that was rolled back leaves one that does not fit the catalog: the
// commitment of the newest entry, which is random, and the size tell.
type edge struct {
	tree prefix
	last commitment // of the newest entry
}

// extent is what the catalog says of the tree's end.
type extent struct {
	size uint64
	last commitment
}

func readExtent(ctx context.Context, tx *sql.Tx) (x extent, err error) {
	var entry, padded sql.NullInt64
	var last []byte
	err = tx.QueryRowContext(ctx, `SELECT (SELECT max(idx) + 1 FROM ledger_entry), (SELECT commitment FROM ledger_entry ORDER BY idx DESC LIMIT 1),
		(SELECT idx + leaves FROM ledger_padding ORDER BY idx DESC LIMIT 1)`).Scan(&entry, &last, &padded)
	if err != nil {
		return x, fmt.Errorf("read ledger size: %w", err)
	}
	x.size = uint64(max(entry.Int64, padded.Int64))
	copy(x.last[:], last)
	return x, nil
}

// atEdge returns the edge as tx sees the tree.
func (l *Ledger) atEdge(ctx context.Context, tx *sql.Tx) (*edge, error) {
	x, err := readExtent(ctx, tx)
	if err != nil {
		return nil, err
	}
	if l.edge != nil && l.edge.tree.size == x.size && l.edge.last == x.last {
		return l.edge, nil
	}
	e := &edge{tree: prefix{size: x.size}, last: x.last}
	r := l.reader(ctx, tx, x.size)
	for level := 62; level >= 0; level-- {
		if x.size>>level&1 == 1 {
			h, err := r.node(level, int64(x.size>>level)-1)
			if err != nil {
				return nil, fmt.Errorf("read the ledger's edge: %w", err)
			}
			e.tree.subs = append(e.tree.subs, h)
		}
	}
	l.edge = e
	return e, nil
}

// grow adds leaves and stores the roots of the tiles that they fill.
func (e *edge) grow(ctx context.Context, tx *sql.Tx, all []commitment) error {
	var sql strings.Builder
	var args []any
	for _, c := range all {
		n := e.tree.size
		done := e.tree.add(tlog.RecordHash(c[:]))
		for level := tileHeight; level < len(done); level += tileHeight {
			if len(args) > 0 {
				sql.WriteByte(',')
			}
			fmt.Fprintf(&sql, "($%d,$%d,$%d)", len(args)+1, len(args)+2, len(args)+3)
			args = append(args, level/tileHeight, int64(n>>level), done[level][:])
		}
		if len(args) > 3*tileWidth {
			if err := insertHashes(ctx, tx, sql.String(), args); err != nil {
				return err
			}
			sql.Reset()
			args = args[:0]
		}
	}
	if len(args) == 0 {
		return nil
	}
	return insertHashes(ctx, tx, sql.String(), args)
}

func insertHashes(ctx context.Context, tx *sql.Tx, rows string, args []any) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO ledger_hash (level, n, hash) VALUES `+rows, args...); err != nil {
		return fmt.Errorf("append ledger hash: %w", err)
	}
	return nil
}

// tree reads hashes of the first size leaves: a tlog.HashReader. It keeps the rows
// of tiles that it read.
type tree struct {
	l     *Ledger
	ctx   context.Context
	tx    *sql.Tx
	size  uint64
	tiles map[tile][]tlog.Hash
}

// tile names a row of up to 256 hashes, of subtrees of 256^level leaves.
type tile struct {
	level int
	n     int64
}

// keptTiles bounds a tree's memory to a few megabytes.
const keptTiles = 512

func (l *Ledger) reader(ctx context.Context, tx *sql.Tx, size uint64) *tree {
	return &tree{l: l, ctx: ctx, tx: tx, size: size, tiles: map[tile][]tlog.Hash{}}
}

// ReadHashes implements tlog.HashReader.
func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, at := range indexes {
		level, n := tlog.SplitStoredHashIndex(at)
		var err error
		if out[i], err = t.node(level, n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// node returns the root of the n-th full subtree of 2^level leaves.
func (t *tree) node(level int, n int64) (tlog.Hash, error) {
	within := level % tileHeight
	first := n << within // in its row of hashes, counted over all tiles of that level
	row, err := t.row(tile{level / tileHeight, first / tileWidth})
	if err != nil {
		return tlog.Hash{}, err
	}
	from := first % tileWidth
	if from+1<<within > int64(len(row)) {
		return tlog.Hash{}, fmt.Errorf("the tree of %d leaves has no node %d of level %d", t.size, n, level)
	}
	fold := append([]tlog.Hash(nil), row[from:from+1<<within]...)
	for ; len(fold) > 1; fold = fold[:len(fold)/2] {
		for i := range len(fold) / 2 {
			fold[i] = tlog.NodeHash(fold[2*i], fold[2*i+1])
		}
	}
	return fold[0], nil
}

// row returns the hashes of a tile, as far as the tree reaches.
func (t *tree) row(at tile) ([]tlog.Hash, error) {
	if row, ok := t.tiles[at]; ok {
		return row, nil
	}
	end := min(int64(t.size>>(tileHeight*at.level)), (at.n+1)*tileWidth)
	first := at.n * tileWidth
	if end <= first {
		return nil, fmt.Errorf("the tree of %d leaves has no tile %d of level %d", t.size, at.n, at.level)
	}
	var row []tlog.Hash
	var err error
	if at.level == 0 {
		row, err = t.leaves(uint64(first), uint64(end))
	} else {
		row, err = readHashes(t.ctx, t.tx, at.level, first, end)
	}
	if err != nil {
		return nil, err
	}
	if len(t.tiles) >= keptTiles {
		clear(t.tiles)
	}
	t.tiles[at] = row
	return row, nil
}

func (t *tree) leaves(from, to uint64) ([]tlog.Hash, error) {
	all, err := t.l.commitments(t.ctx, t.tx, from, to)
	if err != nil {
		return nil, err
	}
	row := make([]tlog.Hash, len(all))
	for i, c := range all {
		row[i] = tlog.RecordHash(c[:])
	}
	return row, nil
}

var errMissing = holdfast.Errorf(holdfast.Conflict, "the ledger's rows are not whole: holdfast ledger verify says which")

// readHashes reads the stored hashes [first, end) of a level.
func readHashes(ctx context.Context, tx *sql.Tx, level int, first, end int64) ([]tlog.Hash, error) {
	rows, err := tx.QueryContext(ctx, `SELECT n, hash FROM ledger_hash WHERE level = $1 AND n >= $2 AND n < $3 ORDER BY n`, level, first, end)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make([]tlog.Hash, 0, end-first)
	for rows.Next() {
		var n int64
		var b []byte
		if err := rows.Scan(&n, &b); err != nil {
			return nil, err
		}
		if n != first+int64(len(out)) || len(b) != tlog.HashSize {
			return nil, errMissing
		}
		out = append(out, tlog.Hash(b))
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if int64(len(out)) != end-first {
		return nil, errMissing
	}
	return out, nil
}

// commitments reads the data of the leaves [from, to).
func (l *Ledger) commitments(ctx context.Context, tx *sql.Tx, from, to uint64) ([]commitment, error) {
	out := make([]commitment, to-from)
	filled := uint64(0)
	padding, err := runs(ctx, tx, from, to)
	if err != nil {
		return nil, err
	}
	for _, r := range padding {
		for i := max(r.first, from); i < min(r.end, to); i++ {
			out[i-from] = l.dummy(i)
			filled++
		}
	}
	if filled < to-from {
		n, err := readCommitments(ctx, tx, from, to, out)
		if err != nil {
			return nil, err
		}
		filled += n
	}
	if filled != to-from {
		return nil, errMissing
	}
	return out, nil
}

func readCommitments(ctx context.Context, tx *sql.Tx, from, to uint64, out []commitment) (n uint64, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT idx, commitment FROM ledger_entry WHERE idx >= $1 AND idx < $2`, int64(from), int64(to))
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var idx int64
		var b []byte
		if err := rows.Scan(&idx, &b); err != nil {
			return 0, err
		}
		if len(b) != len(commitment{}) {
			return 0, errMissing
		}
		out[uint64(idx)-from] = commitment(b)
		n++
	}
	return n, rows.Err()
}
