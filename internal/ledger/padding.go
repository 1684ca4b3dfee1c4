package ledger

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
)

// Padding. A leaf that stands for nothing is the commitment to a payload of its
// kind under a salt that follows from its index and a key: without the key it is as
// random as any other, with it nobody can pass a row that was removed off as
// padding. Nothing but the extent of each run is stored.
const (
	paddingPayload = `{"kind":"padding"}`
	// paddingStep is by how many leaves the tree grows from one published checkpoint
	// to the next, or the least double, fourfold, ... of it that holds what happened.
	paddingStep = 16
)

// grown is by how many leaves the published tree grows for so many entries.
func grown(entries uint64) uint64 {
	step := uint64(paddingStep)
	for step < entries {
		step *= 2
	}
	return step
}

// dummy returns the commitment of the leaf at index, if it stands for nothing.
func (l *Ledger) dummy(index uint64) commitment {
	m := hmac.New(sha256.New, l.padding)
	m.Write([]byte("holdfast ledger padding 1"))
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], index)
	m.Write(n[:])
	return sha256.Sum256(append(m.Sum(make([]byte, 0, saltSize+len(paddingPayload))), paddingPayload...))
}

// run is a run of padding.
type run struct{ first, end uint64 }

// pad appends leaves that stand for nothing.
func (l *Ledger) pad(ctx context.Context, tx *sql.Tx, e *edge, leaves uint64) error {
	if leaves == 0 {
		return nil
	}
	first := e.tree.size
	if _, err := tx.ExecContext(ctx, `INSERT INTO ledger_padding (idx, leaves) VALUES ($1, $2)`, int64(first), int64(leaves)); err != nil {
		return fmt.Errorf("pad ledger: %w", err)
	}
	all := make([]commitment, leaves)
	for i := range all {
		all[i] = l.dummy(first + uint64(i))
	}
	return e.grow(ctx, tx, all)
}

// runs reads the runs of padding that overlap [from, to), in order.
func runs(ctx context.Context, tx *sql.Tx, from, to uint64) (out []run, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT idx, leaves FROM ledger_padding
		WHERE idx >= coalesce((SELECT max(idx) FROM ledger_padding WHERE idx <= $1), 0) AND idx < $2 ORDER BY idx`, int64(from), int64(to))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var first, leaves int64
		if err := rows.Scan(&first, &leaves); err != nil {
			return nil, err
		}
		if r := (run{uint64(first), uint64(first + leaves)}); r.end > from {
			out = append(out, r)
		}
	}
	return out, rows.Err()
}
