// Package ledger keeps the append-only record of everything that changed or left:
// a Merkle tree (RFC 6962, golang.org/x/mod/sumdb/tlog) over salted commitments,
// written in the same transaction as the change it records.
//
// A leaf is SHA-256(salt ‖ payload) and nothing else. Salt and payload lie beside
// it, sealed under the records key of whom they are about: when that key is
// destroyed, the leaf is a commitment that says nothing to anybody, and the tree
// stands. Checkpoints are signed notes (C2SP tlog-checkpoint).
//
// It promises that an entry exists exactly if its change does, and that Verify
// finds an edited, dropped or reordered row. It does not keep a database owner
// from rolling the whole catalog back: a checkpoint kept elsewhere shows that.
package ledger

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// keys is the vault, as the ledger needs it.
type keys interface {
	SealField(ctx context.Context, o vault.Owner, table string, row []byte, column string, plain []byte) ([]byte, error)
	OpenField(ctx context.Context, o vault.Owner, table string, row []byte, column string, box []byte) ([]byte, error)
	SealRecord(ctx context.Context, o vault.Owner, table string, row []byte, column string, plain []byte) ([]byte, error)
	OpenRecord(ctx context.Context, o vault.Owner, table string, row []byte, column string, box []byte) ([]byte, error)
	RecordKeyID(ctx context.Context, o vault.Owner) (seal.KeyID, error)
}

// Ledger is the hub's log.
type Ledger struct {
	db       *catalog.DB
	keys     keys
	signer   note.Signer
	verifier string
}

const saltSize = 32

// Create makes the log's signing key. The origin names the log in every
// checkpoint and must be this hub's alone.
func Create(ctx context.Context, db *catalog.DB, k keys, origin string) (*Ledger, error) {
	secret, public, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return nil, fmt.Errorf("make ledger key: %w", err)
	}
	box, err := k.SealField(ctx, vault.Hub, "ledger_key", nil, "seed", []byte(secret))
	if err != nil {
		return nil, fmt.Errorf("seal ledger key: %w", err)
	}
	err = db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO ledger_key (one, origin, verifier, seed_sealed) VALUES (1, $1, $2, $3)`, origin, public, box)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("save ledger key: %w", err)
	}
	return Open(ctx, db, k)
}

// Open opens the log that Create made.
func Open(ctx context.Context, db *catalog.DB, k keys) (*Ledger, error) {
	l := &Ledger{db: db, keys: k}
	var box []byte
	err := db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT verifier, seed_sealed FROM ledger_key`).Scan(&l.verifier, &box)
	})
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	secret, err := k.OpenField(ctx, vault.Hub, "ledger_key", nil, "seed", box)
	if err != nil {
		return nil, fmt.Errorf("open ledger key: %w", err)
	}
	if l.signer, err = note.NewSigner(string(secret)); err != nil {
		return nil, fmt.Errorf("open ledger key: %w", err)
	}
	return l, nil
}

// Origin names this log.
func (l *Ledger) Origin() string { return l.signer.Name() }

// VerifierKey returns the public key of checkpoints and certificates, in the
// text form of golang.org/x/mod/sumdb/note.
func (l *Ledger) VerifierKey() string { return l.verifier }

// Sign signs a text, which must end in a newline, with the ledger's key.
func (l *Ledger) Sign(text string) ([]byte, error) {
	return note.Sign(&note.Note{Text: text}, l.signer)
}

// Event is what an entry records.
type Event struct {
	Index uint64          `json:"index"`
	Kind  string          `json:"kind"`
	Time  time.Time       `json:"time"`
	Data  json.RawMessage `json:"data,omitempty"`
}

// payload is an Event as it is committed to; the index is the row's.
type payload struct {
	Kind string          `json:"kind"`
	Time time.Time       `json:"time"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Append records an event about o in the transaction of what happened, and
// returns its index. o must have its key already.
func (l *Ledger) Append(ctx context.Context, tx *sql.Tx, o vault.Owner, kind string, data any) (uint64, error) {
	raw, err := json.Marshal(data)
	if err != nil {
		return 0, fmt.Errorf("encode ledger entry: %w", err)
	}
	body, err := json.Marshal(payload{Kind: kind, Time: time.Now().UTC(), Data: raw})
	if err != nil {
		return 0, fmt.Errorf("encode ledger entry: %w", err)
	}
	index, err := size(ctx, tx)
	if err != nil {
		return 0, err
	}
	salted := make([]byte, saltSize, saltSize+len(body))
	rand.Read(salted)
	salted = append(salted, body...)
	commitment := sha256.Sum256(salted)
	box, err := l.keys.SealRecord(ctx, o, "ledger_entry", rowName(index), "payload", salted)
	if err != nil {
		return 0, fmt.Errorf("seal ledger entry: %w", err)
	}
	id, err := l.keys.RecordKeyID(ctx, o)
	if err != nil {
		return 0, fmt.Errorf("seal ledger entry: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO ledger_entry (idx, owner, key_id, commitment, payload_sealed) VALUES ($1, $2, $3, $4, $5)`,
		int64(index), o[:], id, commitment[:], box); err != nil {
		return 0, fmt.Errorf("append ledger entry: %w", err)
	}
	hashes, err := tlog.StoredHashesForRecordHash(int64(index), tlog.RecordHash(commitment[:]), hashReader(ctx, tx))
	if err != nil {
		return 0, fmt.Errorf("hash ledger entry: %w", err)
	}
	at := tlog.StoredHashIndex(0, int64(index))
	for i, h := range hashes {
		if _, err := tx.ExecContext(ctx, `INSERT INTO ledger_hash (idx, hash) VALUES ($1, $2)`, at+int64(i), h[:]); err != nil {
			return 0, fmt.Errorf("append ledger hash: %w", err)
		}
	}
	return index, nil
}

func rowName(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func size(ctx context.Context, tx *sql.Tx) (uint64, error) {
	var last sql.NullInt64
	if err := tx.QueryRowContext(ctx, `SELECT max(idx) FROM ledger_entry`).Scan(&last); err != nil {
		return 0, fmt.Errorf("read ledger size: %w", err)
	}
	if !last.Valid {
		return 0, nil
	}
	return uint64(last.Int64) + 1, nil
}

// hashReader reads stored hashes of the tree in tx.
func hashReader(ctx context.Context, tx *sql.Tx) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, at := range indexes {
			var b []byte
			if err := tx.QueryRowContext(ctx, `SELECT hash FROM ledger_hash WHERE idx = $1`, at).Scan(&b); err != nil {
				return nil, fmt.Errorf("read ledger hash %d: %w", at, err)
			}
			if len(b) != tlog.HashSize {
				return nil, fmt.Errorf("ledger hash %d has %d bytes", at, len(b))
			}
			out[i] = tlog.Hash(b)
		}
		return out, nil
	})
}

// Events returns the readable entries about o, oldest first, from index from, at
// most limit.
func (l *Ledger) Events(ctx context.Context, o vault.Owner, from uint64, limit int) ([]Event, error) {
	type row struct {
		index uint64
		box   []byte
	}
	var found []row
	err := l.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT idx, payload_sealed FROM ledger_entry WHERE owner = $1 AND idx >= $2 ORDER BY idx LIMIT $3`,
			o[:], int64(from), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r row
			if err := rows.Scan(&r.index, &r.box); err != nil {
				return err
			}
			found = append(found, r)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	var out []Event
	for _, r := range found {
		_, e, err := l.open(ctx, o, r.index, r.box)
		if holdfast.KindOf(err) == holdfast.NotFound {
			return nil, nil // erased
		} else if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// open opens a payload and returns its commitment and what it says.
func (l *Ledger) open(ctx context.Context, o vault.Owner, index uint64, box []byte) (c [sha256.Size]byte, e Event, err error) {
	salted, err := l.keys.OpenRecord(ctx, o, "ledger_entry", rowName(index), "payload", box)
	if err != nil {
		return c, e, err
	}
	if len(salted) < saltSize {
		return c, e, errors.New("a ledger entry is too short")
	}
	var p payload
	if err := json.Unmarshal(salted[saltSize:], &p); err != nil {
		return c, e, fmt.Errorf("decode ledger entry %d: %w", index, err)
	}
	return sha256.Sum256(salted), Event{Index: index, Kind: p.Kind, Time: p.Time, Data: p.Data}, nil
}
