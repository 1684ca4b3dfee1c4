package vault

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
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

// Adopted is what a keyring and a restored catalog have in common.
type Adopted struct {
	Generation uint64
	Owners     int // keys of the keyring
	Erased     int // owners of the catalog whose key was left out since
	Reissued   int // owners of the catalog that have another key since
}

// Adopt makes a catalog that was put back from a backup take the keyring that is in
// force, which is of then or later: Open comes after it. Whose key was left out or
// replaced since, his old lists go at Open.
//
// It fails with Conflict if the keyring is older than the catalog, so that keys
// would be missing that nobody destroyed.
func Adopt(ctx context.Context, db *catalog.DB, place Place, holders []Holder, generation uint64, owners int) (a Adopted, err error) {
	ring, err := recoverRing(ctx, place, holders)
	if err != nil {
		return a, err
	}
	defer ring.close()
	a = Adopted{Generation: ring.generation, Owners: len(ring.at)}
	switch {
	case a.Generation < generation:
		return a, holdfast.Errorf(holdfast.Conflict, "this keyring is of generation %d, the backup was made under %d: it is an older copy. Give the newest one", a.Generation, generation)
	case a.Generation == generation && a.Owners < owners:
		return a, holdfast.Errorf(holdfast.Conflict, "this keyring lacks %d owner keys that were there when the backup was made: it is a copy that lags. Give the newest one", owners-a.Owners)
	}
	var changed []Owner
	err = db.Read(ctx, func(tx *sql.Tx) error {
		return ownerKeysIn(ctx, tx, func(o Owner, id seal.KeyID) error {
			k, now, err := ring.key(place, o)
			switch {
			case holdfast.KindOf(err) == holdfast.NotFound:
				a.Erased++
				err = nil
			case err != nil:
				return err
			case now != id:
				a.Reissued++
			}
			k.Wipe()
			if now != id {
				changed = append(changed, o)
			}
			return nil
		})
	})
	if err != nil {
		return a, fmt.Errorf("compare keyring and catalog: %w", err)
	}
	err = db.Write(ctx, func(tx *sql.Tx) error {
		for _, o := range changed {
			if _, err := tx.ExecContext(ctx, `INSERT INTO rekeyed_owner (owner) VALUES ($1) ON CONFLICT (owner) DO NOTHING`, o[:]); err != nil {
				return err
			}
		}
		return writeEntries(ctx, tx, a.Generation, a.Owners)
	})
	if err != nil {
		return a, fmt.Errorf("write keyring's size: %w", err)
	}
	return a, nil
}
