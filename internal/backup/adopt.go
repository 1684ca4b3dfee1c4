package backup

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"time"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
)

// Standing is a backup that lies in a folder, as far as it can be read.
type Standing struct {
	Snapshot
	Statement *Statement // nil: the identities don't open it, or it is damaged
}

// Standing returns all backups of a hub that lie in the folder, the newest first. Those
// that can't be read may be its own.
func (f *Folder) Standing(hub string, ids []age.Identity) (out []Standing, err error) {
	all, err := f.Snapshots()
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		r, err := f.Open(s.ID, ids, "")
		switch {
		case err != nil && (holdfast.KindOf(err) == holdfast.Denied || holdfast.KindOf(err) == holdfast.Invalid || holdfast.KindOf(err) == holdfast.Conflict):
			out = append(out, Standing{Snapshot: s})
		case holdfast.KindOf(err) == holdfast.NotFound: // pruned meanwhile
		case err != nil:
			return nil, err
		case r.Statement.Hub == hub:
			out = append(out, Standing{s, &r.Statement})
		}
	}
	return out, nil
}

// Adopt remembers backups that the catalog does not know, for it was put back to before
// they were made: whoever has one has ciphertext of then, until it expires. What can't
// be read is reckoned to be kept as long as any of the others, and DefaultKeep at least.
// It returns how many of all there are that have not expired.
func (k *Keeper) Adopt(ctx context.Context, all []Standing) (living int, err error) {
	longest := DefaultKeep
	for _, s := range all {
		if s.Statement != nil {
			longest = min(max(longest, s.Statement.Expires.Sub(s.Statement.Began)), mostKeep)
		}
	}
	err = k.Catalog.Write(ctx, func(tx *sql.Tx) error {
		for _, s := range all {
			sum := sha256.Sum256([]byte(s.ID))
			id, began, expires, ended, st := sum[:16], s.At, s.At.Add(longest), time.Time{}, Statement{Keyring: keyringFolderOnly}
			if s.Statement != nil {
				st = *s.Statement
				if id, err = text32.DecodeString(st.ID); err != nil {
					return holdfast.Errorf(holdfast.Invalid, "the id of backup %s can't be read", s.ID)
				}
				began, expires, ended = st.Began, st.Expires, st.Ended
			}
			if most := k.Now().Add(mostKeep); expires.After(most) {
				expires = most
			}
			if expires.After(k.Now()) {
				living++
			}
			end := int64(0)
			if !ended.IsZero() {
				end = ended.UnixNano()
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO backup (id, began, expires, ended, bytes, written, keyring) VALUES ($1, $2, $3, $4, $5, $6, $7)
				ON CONFLICT (id) DO UPDATE SET ended = max(ended, excluded.ended), expires = max(expires, excluded.expires)`,
				id, began.UnixNano(), expires.UnixNano(), end, st.Bytes, st.Written, st.Keyring); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("remember backups: %w", err)
	}
	return living, k.load(ctx)
}
