package ledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Proof shows offline that an entry is in the tree of a signed checkpoint. With
// the salt and the payload it also shows what the entry says.
type Proof struct {
	Index      uint64      `json:"index"`
	Commitment []byte      `json:"commitment"` // SHA-256(salt ‖ payload), the leaf's data
	Salted     []byte      `json:"salted,omitempty"`
	Hashes     []tlog.Hash `json:"hashes"`     // RFC 6962 audit path, from the leaf up
	Checkpoint string      `json:"checkpoint"` // signed note
	Verifier   string      `json:"verifier"`   // its public key
}

// Prove returns the inclusion proof of entry index, which must be about o.
func (l *Ledger) Prove(ctx context.Context, o vault.Owner, index uint64) (Proof, error) {
	c, err := l.Checkpoint(ctx)
	if err != nil {
		return Proof{}, err
	}
	p := Proof{Index: index, Checkpoint: string(c.Note), Verifier: l.verifier}
	var box []byte
	err = l.db.Read(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `SELECT commitment, payload_sealed FROM ledger_entry WHERE idx = $1 AND owner = $2`, int64(index), o[:]).Scan(&p.Commitment, &box)
		if errors.Is(err, sql.ErrNoRows) || index >= c.Size {
			return holdfast.Errorf(holdfast.NotFound, "there is no entry %d on this record", index)
		} else if err != nil {
			return err
		}
		p.Hashes, err = tlog.ProveRecord(int64(c.Size), int64(index), hashReader(ctx, tx))
		return err
	})
	if err != nil {
		return Proof{}, fmt.Errorf("prove ledger entry: %w", err)
	}
	p.Salted, err = l.keys.OpenRecord(ctx, o, "ledger_entry", rowName(index), "payload", box)
	return p, err
}

// Check verifies the proof against its checkpoint and returns the event, if the
// proof carries it. trusted is the verifier key that the reader holds of the
// hub; empty means the one in the proof, which then must be compared by hand.
func (p Proof) Check(trusted string) (Event, error) {
	if trusted == "" {
		trusted = p.Verifier
	}
	c, err := ParseCheckpoint([]byte(p.Checkpoint), trusted)
	if err != nil {
		return Event{}, err
	}
	if err := tlog.CheckRecord(p.Hashes, int64(c.Size), c.Root, int64(p.Index), tlog.RecordHash(p.Commitment)); err != nil {
		return Event{}, holdfast.Errorf(holdfast.Invalid, "entry %d is not in the checkpoint's tree", p.Index)
	}
	e := Event{Index: p.Index}
	if p.Salted == nil {
		return e, nil
	}
	if sum := sha256.Sum256(p.Salted); string(sum[:]) != string(p.Commitment) || len(p.Salted) < saltSize {
		return Event{}, holdfast.Errorf(holdfast.Invalid, "the payload is not what entry %d commits to", p.Index)
	}
	var body payload
	if err := json.Unmarshal(p.Salted[saltSize:], &body); err != nil {
		return Event{}, holdfast.Errorf(holdfast.Invalid, "the payload of entry %d is not JSON", p.Index)
	}
	e.Kind, e.Time, e.Data = body.Kind, body.Time, body.Data
	return e, nil
}
