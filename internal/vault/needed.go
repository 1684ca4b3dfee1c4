package vault

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"

	"github.com/holdfast-iot/holdfast/internal/seal"
)

// Needed is which owner keys a catalog needs to be read.
type Needed struct {
	Owners int    `json:"owners"`
	Digest string `json:"sha256"` // SHA-256 over the owners in order, each with its owner key's id, in hex
}

// NeededIn says which owner keys the key lists of a catalog, which may be a copy,
// are sealed under.
func NeededIn(ctx context.Context, tx *sql.Tx) (n Needed, err error) {
	h := sha256.New()
	err = ownerKeysIn(ctx, tx, func(o Owner, id seal.KeyID) error {
		n.Owners++
		h.Write(o[:])
		h.Write(id[:])
		return nil
	})
	n.Digest = hex.EncodeToString(h.Sum(nil))
	return n, err
}

// ownerKeysIn gives the owners that have a list without time, in order, and under
// which owner key.
func ownerKeysIn(ctx context.Context, tx *sql.Tx, each func(Owner, seal.KeyID) error) error {
	rows, err := tx.QueryContext(ctx, `SELECT owner, owner_key FROM key_list WHERE bucket = 0 ORDER BY owner, owner_key`)
	if err != nil {
		return fmt.Errorf("read key lists: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var b []byte
		var o Owner
		var id seal.KeyID
		if err := rows.Scan(&b, &id); err != nil {
			return fmt.Errorf("read key lists: %w", err)
		}
		copy(o[:], b)
		if err := each(o, id); err != nil {
			return err
		}
	}
	return rows.Err()
}
