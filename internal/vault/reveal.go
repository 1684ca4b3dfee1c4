package vault

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/holdfast-iot/holdfast/internal/seal"
)

// Revealed is a key as it is.
type Revealed struct {
	Owner Owner  // whose; zero: of a page or of the whole keyring
	What  string // "owner key", "list key", "page key" or "root key"
	Key   seal.Key
}

// Reveal returns every key there is, in the clear. It is for the drill alone, which
// looks whether they are gone when they should be: no command and no route prints
// them, and the test of the floors lets nobody else call it.
func (v *Vault) Reveal(ctx context.Context) (all []Revealed, err error) {
	add := func(o Owner, what string, c *seal.Cipher) error {
		var room [len(seal.Key{})]byte
		b, err := c.AppendKey(room[:0])
		if err == nil {
			all = append(all, Revealed{o, what, seal.Key(b)})
		}
		return err
	}
	all = append(all, Revealed{What: "root key", Key: v.ring.root})
	for _, p := range v.ring.pages {
		if p != nil {
			if err := add(Owner{}, "page key", p.cipher); err != nil {
				return nil, fmt.Errorf("reveal page key: %w", err)
			}
		}
	}
	for _, o := range v.AllOwners() {
		c, err := v.ownerKey(o)
		if err != nil {
			return nil, err
		}
		err = add(o, "owner key", c)
		c.Wipe()
		if err != nil {
			return nil, fmt.Errorf("reveal owner key: %w", err)
		}
		buckets, err := v.bucketsOf(ctx, o)
		if err != nil {
			return nil, err
		}
		for _, b := range buckets {
			l, err := v.list(ctx, o, b, nil)
			if err != nil {
				return nil, err
			}
			for _, k := range l.clone().keys {
				if err := add(o, "list key", k.cipher); err != nil {
					return nil, fmt.Errorf("reveal list key: %w", err)
				}
			}
		}
	}
	return all, nil
}

func (v *Vault) bucketsOf(ctx context.Context, o Owner) (all []seal.Bucket, err error) {
	err = v.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT DISTINCT bucket FROM key_list WHERE owner = $1`, o[:])
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var b int64
			if err := rows.Scan(&b); err != nil {
				return err
			}
			all = append(all, seal.Bucket(b))
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read key lists: %w", err)
	}
	return all, nil
}
