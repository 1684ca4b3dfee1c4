package ledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Event is what an entry records.
type Event struct {
	Index uint64          `json:"index"`
	Seq   uint64          `json:"seq"` // on the record it stands on, from 0
	Kind  string          `json:"kind"`
	Time  time.Time       `json:"time"`
	Data  json.RawMessage `json:"data,omitempty"`
}

// boxed is an entry as the catalog has it.
type boxed struct {
	index uint64
	box   []byte
}

// readBoxed reads the entries about o in [from, to), at most limit.
func (l *Ledger) readBoxed(ctx context.Context, o vault.Owner, from, to uint64, limit int) (found []boxed, err error) {
	err = l.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT idx, payload_sealed FROM ledger_entry WHERE owner = $1 AND idx >= $2 AND idx < $3 ORDER BY idx LIMIT $4`,
			o[:], int64(from), int64(to), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var index int64
			var r boxed
			if err := rows.Scan(&index, &r.box); err != nil {
				return err
			}
			r.index = uint64(index)
			found = append(found, r)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	return found, nil
}

// beyond is more than any size.
const beyond = 1<<63 - 1

// Events returns the readable entries about o, oldest first, from index from, at
// most limit.
func (l *Ledger) Events(ctx context.Context, o vault.Owner, from uint64, limit int) ([]Event, error) {
	found, err := l.readBoxed(ctx, o, from, beyond, limit)
	if err != nil {
		return nil, err
	}
	var out []Event
	for _, r := range found {
		salted, err := l.open(ctx, o, r)
		if holdfast.KindOf(err) == holdfast.NotFound {
			return nil, nil // erased
		} else if err != nil {
			return nil, err
		}
		e, err := eventOf(r.index, salted)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// open returns an entry's salt and payload.
func (l *Ledger) open(ctx context.Context, o vault.Owner, r boxed) ([]byte, error) {
	return l.keys.OpenRecord(ctx, o, "ledger_entry", rowName(r.index), "payload", r.box)
}

// eventOf reads what a leaf commits to.
func eventOf(index uint64, salted []byte) (Event, error) {
	if len(salted) < saltSize {
		return Event{}, errors.New("a ledger entry is too short")
	}
	var p payload
	if err := json.Unmarshal(salted[saltSize:], &p); err != nil {
		return Event{}, holdfast.Errorf(holdfast.Invalid, "the payload of entry %d is not JSON", index)
	}
	return Event{Index: index, Seq: p.Seq, Kind: p.Kind, Time: p.Time, Data: p.Data}, nil
}

func commit(salted []byte) commitment { return sha256.Sum256(salted) }
