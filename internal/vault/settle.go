package vault

import (
	"context"
	"database/sql"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// The catalog knows how many entries the keyring had of each generation when the
// last owner key came into use: fewer are damage or an older copy. And it knows
// whose owner keys a rotation is about until their lists are settled. So neither
// a start nor a rotation need look at the lists of all owners.

func writeEntries(ctx context.Context, tx *sql.Tx, generation uint64, entries int) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO keyring_size (generation, entries) VALUES ($1, $2)
		ON CONFLICT (generation) DO UPDATE SET entries = excluded.entries`, int64(generation), entries)
	return err
}

func raiseEntries(ctx context.Context, tx *sql.Tx, generation uint64, entries int) error {
	_, err := tx.ExecContext(ctx, `UPDATE keyring_size SET entries = $1 WHERE generation = $2 AND entries < $1`, entries, int64(generation))
	return err
}

// checkEntries refuses a keyring that lacks keys: it was cut, damaged in entries
// that were in use, or is an older copy.
func (v *Vault) checkEntries(ctx context.Context) error {
	var want int
	err := v.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT coalesce(max(entries), 0) FROM keyring_size WHERE generation = $1`, int64(v.ring.generation)).Scan(&want)
	})
	if err != nil {
		return err
	}
	if want == 0 {
		return holdfast.Errorf(holdfast.Invalid, "open keyring: %s is of a generation that the catalog does not know: one of them is an older copy, or of another folder. Nothing was changed",
			where(v.place, headName(v.ring.generation)))
	}
	lost := want - len(v.ring.at)
	if lost <= 0 {
		return nil
	}
	if n := len(v.ring.pages); n > 0 && v.ring.pages[n-1].torn >= 0 {
		p := v.ring.pages[n-1]
		return holdfast.Errorf(holdfast.Invalid, "open keyring: %s is damaged at offset %d: %d owner keys stood there. Nothing was changed. Put back an undamaged copy of this file",
			where(v.place, p.name()), p.torn, lost)
	}
	return holdfast.Errorf(holdfast.Invalid, "open keyring: %s lacks %d owner keys: it was cut short, or is an older copy. Nothing was changed. Put back the newest copy of the keyring",
		where(v.place, headName(v.ring.generation)), lost)
}

// settle deletes the lists that a rotation has left without an owner key: the old
// ones after its commit point, the new ones if it did not reach it.
func (v *Vault) settle(ctx context.Context) error {
	owners, stale, err := v.rekeyed(ctx)
	if err != nil || len(owners) == 0 && stale == 0 {
		return err
	}
	inForce := make([]seal.KeyID, len(owners)) // zero for who has none
	for i, o := range owners {
		k, err := v.ownerKey(o)
		if holdfast.KindOf(err) == holdfast.NotFound {
			continue
		} else if err != nil {
			return err
		}
		k.Wipe()
		inForce[i] = k.ID()
	}
	generation := int64(v.Generation())
	return v.db.Write(ctx, func(tx *sql.Tx) error {
		for i, o := range owners {
			if _, err := tx.ExecContext(ctx, `DELETE FROM key_list WHERE owner = $1 AND owner_key <> $2`, o[:], inForce[i]); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM rekeyed_owner WHERE owner = $1`, o[:]); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM keyring_size WHERE generation <> $1`, generation)
		return err
	})
}

// rekeyed returns whose lists are to be settled, and how many generations the
// catalog knows that are not in force.
func (v *Vault) rekeyed(ctx context.Context) (out []Owner, stale int, err error) {
	err = v.db.Read(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM keyring_size WHERE generation <> $1`, int64(v.Generation())).Scan(&stale); err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, `SELECT owner FROM rekeyed_owner`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var b []byte
			if err := rows.Scan(&b); err != nil {
				return err
			}
			var o Owner
			copy(o[:], b)
			out = append(out, o)
		}
		return rows.Err()
	})
	return out, stale, err
}
