package ledger

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

const saltSize = 32

// payload is what a leaf commits to, after its salt; the index is the row's.
type payload struct {
	Kind string          `json:"kind"`
	Time time.Time       `json:"time"`
	Seq  uint64          `json:"seq"` // on the owner's record: 0, 1, 2, ... without a gap
	Data json.RawMessage `json:"data,omitempty"`
}

// Happening is an event that is to be recorded.
type Happening struct {
	About vault.Owner // must have its key already
	Kind  string
	Data  any
}

// Append records an event about o in the transaction of what happened, and
// returns its index. o must have its key already.
func (l *Ledger) Append(ctx context.Context, tx *sql.Tx, o vault.Owner, kind string, data any) (uint64, error) {
	return l.AppendAll(ctx, tx, []Happening{{About: o, Kind: kind, Data: data}})
}

// AppendAll records several events, in order, and returns the index of the first.
func (l *Ledger) AppendAll(ctx context.Context, tx *sql.Tx, all []Happening) (uint64, error) {
	e, err := l.atEdge(ctx, tx)
	if err != nil {
		return 0, err
	}
	first := e.tree.size
	records, err := l.count(ctx, tx, all)
	if err != nil {
		return 0, err
	}
	now := time.Now().UTC()
	leaves := make([]commitment, len(all))
	// One statement a row, parsed once: of several rows in one, the engine keeps a
	// journal in case that it fails half way.
	insert, err := tx.PrepareContext(ctx, `INSERT INTO ledger_entry (idx, owner, key_id, commitment, payload_sealed) VALUES ($1, $2, $3, $4, $5)`)
	if err != nil {
		return 0, fmt.Errorf("append ledger entry: %w", err)
	}
	defer insert.Close()
	// The driver starts a goroutine for each statement that can be cancelled: what
	// takes microseconds is not, and the loop asks instead.
	whole := context.WithoutCancel(ctx)
	for i, h := range all {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		index := first + uint64(i)
		r := records[h.About]
		salted, err := salt(h, now, r.next)
		if err != nil {
			return 0, err
		}
		leaves[i] = sha256.Sum256(salted)
		box, err := l.keys.SealRecord(ctx, h.About, "ledger_entry", rowName(index), "payload", salted)
		if err != nil {
			return 0, fmt.Errorf("seal ledger entry: %w", err)
		}
		if _, err := insert.ExecContext(whole, int64(index), h.About[:], r.key[:], leaves[i][:], box); err != nil {
			return 0, fmt.Errorf("append ledger entry: %w", err)
		}
		r.next++
	}
	if err := e.grow(ctx, tx, leaves); err != nil {
		return 0, err
	}
	if len(leaves) > 0 {
		e.last = leaves[len(leaves)-1]
	}
	return first, nil
}

func rowName(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// salt encodes an event behind a fresh salt: as json.Marshal of a payload would, in
// one pass.
func salt(h Happening, now time.Time, seq uint64) ([]byte, error) {
	data, err := json.Marshal(h.Data)
	if err != nil {
		return nil, fmt.Errorf("encode ledger entry: %w", err)
	}
	kind, err := json.Marshal(h.Kind)
	if err != nil {
		return nil, fmt.Errorf("encode ledger entry: %w", err)
	}
	out := make([]byte, saltSize, saltSize+96+len(kind)+len(data))
	rand.Read(out)
	out = append(append(out, `{"kind":`...), kind...)
	out = now.AppendFormat(append(out, `,"time":"`...), time.RFC3339Nano)
	out = strconv.AppendUint(append(out, `","seq":`...), seq, 10)
	out = append(append(out, `,"data":`...), data...)
	return append(out, '}'), nil
}

// record is a record that grows.
type record struct {
	more, next uint64 // entries to add; sequence of the next
	key        seal.KeyID
}

// count counts the events on their records.
func (l *Ledger) count(ctx context.Context, tx *sql.Tx, all []Happening) (map[vault.Owner]*record, error) {
	records := map[vault.Owner]*record{}
	var owners []vault.Owner // in order: every run writes the same
	for _, h := range all {
		r := records[h.About]
		if r == nil {
			r = new(record)
			records[h.About] = r
			owners = append(owners, h.About)
		}
		r.more++
	}
	add, err := tx.PrepareContext(ctx, `INSERT INTO ledger_owner (owner, entries) VALUES ($1, $2)
		ON CONFLICT (owner) DO UPDATE SET entries = ledger_owner.entries + excluded.entries RETURNING entries`)
	if err != nil {
		return nil, fmt.Errorf("count ledger entries: %w", err)
	}
	defer add.Close()
	for _, o := range owners {
		r := records[o]
		if r.key, err = l.keys.RecordKeyID(ctx, o); err != nil {
			return nil, fmt.Errorf("seal ledger entry: %w", err)
		}
		var entries int64
		if err := add.QueryRowContext(ctx, o[:], int64(r.more)).Scan(&entries); err != nil {
			return nil, fmt.Errorf("count ledger entries: %w", err)
		}
		r.next = uint64(entries) - r.more
	}
	return records, nil
}
