package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Outside keeps the last checkpoint that was signed where an administrator of the
// database has no hand.
type Outside interface {
	Load() (Kept, error) // fs.ErrNotExist if there is nothing
	Save(Kept) error     // durably, whole or not at all
}

// Kept is what stands outside.
type Kept struct {
	Checkpoint string `json:"checkpoint"`
	Verifier   string `json:"verifier"`
}

// KeepOutside holds the tree against the head outside, and from then on keeps the
// last one that is signed there, before anybody gets it. It is Conflict if the tree
// is not one that the head outside is a head of: signing on would make two logs of
// one name.
func (l *Ledger) KeepOutside(ctx context.Context, o Outside) error {
	k, err := o.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return holdfast.Errorf(holdfast.Conflict, "the ledger's last head is not there any more")
	} else if err != nil {
		return fmt.Errorf("read the ledger's last head: %w", err)
	}
	c, err := l.fits(ctx, k)
	if err != nil {
		return err
	}
	l.signing.Lock()
	defer l.signing.Unlock()
	l.outside, l.kept = o, c.Size
	if c.Origin != l.Origin() {
		l.kept = 0
	}
	// A crash may have come between the catalog and the head outside.
	var newest string
	err = l.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT note FROM ledger_checkpoint WHERE origin = $1 ORDER BY size DESC LIMIT 1`, l.origin).Scan(&newest)
	})
	if err != nil {
		return fmt.Errorf("read checkpoint: %w", err)
	}
	if c, err = checkpoint.Parse([]byte(newest), l.verifier); err != nil {
		return holdfast.Errorf(holdfast.Conflict, "the ledger's newest checkpoint in the catalog was altered")
	}
	return l.keepOutside(c)
}

// keepOutside is called with signing held.
func (l *Ledger) keepOutside(c checkpoint.Checkpoint) error {
	if l.outside == nil || c.Size <= l.kept {
		return nil
	}
	if err := l.outside.Save(Kept{Checkpoint: string(c.Note), Verifier: l.verifier}); err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "keep the ledger's head outside the catalog: %w", err)
	}
	l.kept = c.Size
	return nil
}

// fits checks that the tree begins with the one that was signed.
func (l *Ledger) fits(ctx context.Context, k Kept) (checkpoint.Checkpoint, error) {
	c, err := checkpoint.Parse([]byte(k.Checkpoint), k.Verifier)
	if err != nil {
		return c, holdfast.Errorf(holdfast.Conflict, "the ledger's last head can't be read: %w", err)
	}
	origins, err := l.origins(ctx)
	if err != nil {
		return c, err
	}
	if !slices.ContainsFunc(origins, func(o Origin) bool { return o.Verifier == k.Verifier }) {
		return c, holdfast.Errorf(holdfast.Conflict, "the ledger's last head is by %s, a key that the catalog does not know: the catalog is of another hub, or of before that key", c.Origin)
	}
	err = l.db.Read(ctx, func(tx *sql.Tx) error {
		x, err := readExtent(ctx, tx)
		if err != nil {
			return err
		}
		if x.size < c.Size {
			return holdfast.Errorf(holdfast.Conflict, "the ledger's last head was signed over %d leaves, the catalog has %d: it was put back to an earlier state", c.Size, x.size)
		}
		root, err := tlog.TreeHash(int64(c.Size), l.reader(ctx, tx, c.Size))
		if err != nil && !errors.Is(err, errMissing) {
			return err
		}
		if err != nil || root != c.Root {
			return holdfast.Errorf(holdfast.Conflict, "the ledger's last head, over %d leaves, was signed over others than the catalog has", c.Size)
		}
		return nil
	})
	if holdfast.KindOf(err) == holdfast.Conflict && c.Origin != l.Origin() && l.renewedFrom(ctx, k) {
		return c, nil
	}
	return c, err
}

// renewedFrom reports whether the origin that signs now was opened because of k.
func (l *Ledger) renewedFrom(ctx context.Context, k Kept) bool {
	all, err := l.origins(ctx)
	if err != nil || len(all) < 2 {
		return false
	}
	events, err := l.Events(ctx, vault.Hub, all[len(all)-1].First, 1)
	if err != nil || len(events) == 0 || events[0].Kind != KindRenewed {
		return false
	}
	var r Renewal
	return json.Unmarshal(events[0].Data, &r) == nil && slices.Contains(r.Last, k.Checkpoint)
}

// Origin is a name that the log had, or has.
type Origin struct {
	Name     string `json:"origin"`
	Verifier string `json:"verifier"`
	First    uint64 `json:"first"` // the leaf with which it begins
	number   int
}

// origins returns all names of the log, the one that signs last.
func (l *Ledger) origins(ctx context.Context) (out []Origin, err error) {
	err = l.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT n, name, verifier, first FROM ledger_origin ORDER BY n`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var o Origin
			var first int64
			if err := rows.Scan(&o.number, &o.Name, &o.Verifier, &first); err != nil {
				return err
			}
			o.First = uint64(first)
			out = append(out, o)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read ledger origins: %w", err)
	}
	return out, nil
}
