// Package ledger keeps the append-only record of everything that changed or left:
// a Merkle tree (RFC 6962, golang.org/x/mod/sumdb/tlog) over salted commitments,
// written in the same transaction as the change it records.
//
// A leaf is SHA-256(salt ‖ payload) and nothing else. Salt and payload, which says
// what happened, when, and as the how-manieth entry of whose record, lie beside it,
// sealed under the records key of whom they are about: when that key is destroyed,
// the leaf is a commitment that says nothing to anybody, and the tree stands.
//
// The tree is published on a fixed clock as C2SP tiles and a signed checkpoint,
// each time padded with leaves that stand for nothing and look like all others: who
// reads them learns neither when something happened nor, but in coarse steps, how
// much. What is proved in between is proved against a checkpoint of its own, which
// only who asked gets.
//
// It promises that an entry exists exactly if its change does, and that Verify
// finds an edited, dropped, swapped or reordered row. A database that is put back
// as a whole is found by the last head outside of it (KeepOutside), by witnesses,
// and by whoever kept a checkpoint.
package ledger

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// keys is the vault, as the ledger needs it.
type keys interface {
	vault.Fields
	SealRecord(ctx context.Context, o vault.Owner, table string, row []byte, column string, plain []byte) ([]byte, error)
	OpenRecord(ctx context.Context, o vault.Owner, table string, row []byte, column string, box []byte) ([]byte, error)
	RecordKeyID(ctx context.Context, o vault.Owner) (seal.KeyID, error)
}

// Ledger is the hub's log.
type Ledger struct {
	db       *catalog.DB
	keys     keys
	signer   note.Signer
	origin   int // number of the origin that signs
	verifier string
	padding  []byte

	edge      *edge        // of the tree; used within Write transactions only, which are serial
	signing   sync.Mutex   // one checkpoint is made at a time
	outside   Outside      // nil: there is none
	kept      uint64       // size of the checkpoint in outside; guarded by signing
	published atomic.Value // checkpoint.Checkpoint
	trouble   atomic.Pointer[trouble]
	witnesses *circle // nil: none
}

// Create makes the log, its keys and the checkpoint of its empty tree. The origin
// names the log in every checkpoint and must be this hub's alone.
func Create(ctx context.Context, db *catalog.DB, k keys, origin string) (*Ledger, error) {
	secret, public, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return nil, fmt.Errorf("make ledger key: %w", err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, fmt.Errorf("make ledger key: %w", err)
	}
	padding := make([]byte, 32)
	rand.Read(padding)
	seedBox, err := k.SealField(ctx, vault.Hub, "ledger_origin", originRow(1), "seed", []byte(secret))
	if err != nil {
		return nil, fmt.Errorf("seal ledger key: %w", err)
	}
	paddingBox, err := k.SealField(ctx, vault.Hub, "ledger_key", nil, "padding", padding)
	if err != nil {
		return nil, fmt.Errorf("seal ledger key: %w", err)
	}
	empty := (&prefix{}).root()
	signed, err := note.Sign(&note.Note{Text: checkpoint.Text(origin, 0, empty)}, signer)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	err = db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO ledger_key (one, padding_sealed) VALUES (1, $1)`, paddingBox); err != nil {
			return err
		}
		if err := insertOrigin(ctx, tx, 1, origin, public, 0, seedBox); err != nil {
			return err
		}
		return saveCheckpoint(ctx, tx, 1, checkpoint.Checkpoint{Note: signed}, true)
	})
	if err != nil {
		return nil, fmt.Errorf("save ledger key: %w", err)
	}
	return Open(ctx, db, k)
}

func originRow(n int) []byte { return rowName(uint64(n)) }

func insertOrigin(ctx context.Context, tx *sql.Tx, n int, name, verifier string, first uint64, seedBox []byte) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO ledger_origin (n, name, verifier, first, seed_sealed) VALUES ($1, $2, $3, $4, $5)`, n, name, verifier, int64(first), seedBox)
	return err
}

// Open opens the log that Create made.
func Open(ctx context.Context, db *catalog.DB, k keys) (*Ledger, error) {
	l := &Ledger{db: db, keys: k}
	var seedBox, paddingBox []byte
	var newest string
	err := db.Read(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, `SELECT n, verifier, seed_sealed FROM ledger_origin ORDER BY n DESC LIMIT 1`).Scan(&l.origin, &l.verifier, &seedBox); err != nil {
			return err
		}
		if err := tx.QueryRowContext(ctx, `SELECT padding_sealed FROM ledger_key`).Scan(&paddingBox); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT note FROM ledger_checkpoint WHERE published = 1 ORDER BY size DESC LIMIT 1`).Scan(&newest)
	})
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	secret, err := k.OpenField(ctx, vault.Hub, "ledger_origin", originRow(l.origin), "seed", seedBox)
	if err != nil {
		return nil, fmt.Errorf("open ledger key: %w", err)
	}
	if l.signer, err = note.NewSigner(string(secret)); err != nil {
		return nil, fmt.Errorf("open ledger key: %w", err)
	}
	if l.padding, err = k.OpenField(ctx, vault.Hub, "ledger_key", nil, "padding", paddingBox); err != nil {
		return nil, fmt.Errorf("open ledger key: %w", err)
	}
	c, err := checkpoint.Parse([]byte(newest), l.verifier)
	if err != nil {
		return nil, fmt.Errorf("open ledger: the newest published checkpoint was altered: %w", err)
	}
	l.published.Store(c)
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
