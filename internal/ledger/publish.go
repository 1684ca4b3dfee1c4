package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
)

// Published returns the newest checkpoint that everybody may have, with the
// cosignatures that have come in.
func (l *Ledger) Published(ctx context.Context) (checkpoint.Checkpoint, error) {
	c := l.head()
	err := l.db.Read(ctx, func(tx *sql.Tx) (err error) {
		c.Note, err = withCosignatures(ctx, tx, c)
		return err
	})
	if err != nil {
		return c, fmt.Errorf("read checkpoint: %w", err)
	}
	return c, nil
}

// head is Published without cosignatures.
func (l *Ledger) head() checkpoint.Checkpoint { return l.published.Load().(checkpoint.Checkpoint) }

// Publish pads the tree, signs it and lets everybody have it. Heads are kept, so
// that Verify can hold the tree against all that was ever signed.
func (l *Ledger) Publish(ctx context.Context) (checkpoint.Checkpoint, error) {
	l.signing.Lock()
	defer l.signing.Unlock()
	var c checkpoint.Checkpoint
	err := l.db.Write(ctx, func(tx *sql.Tx) error {
		e, err := l.atEdge(ctx, tx)
		if err != nil {
			return err
		}
		if err := l.stillBegins(ctx, tx, e.tree.size, l.head()); err != nil {
			return err
		}
		fresh := e.tree.size - l.head().Size
		if err := l.pad(ctx, tx, e, grown(fresh)-fresh); err != nil {
			return err
		}
		if c, err = l.sign(e.tree.size, e.tree.root()); err != nil {
			return err
		}
		return saveCheckpoint(ctx, tx, l.origin, c, true)
	})
	if err == nil {
		err = l.keepOutside(c)
	}
	l.trouble.Store(&trouble{err, time.Now()})
	if err != nil {
		return c, fmt.Errorf("publish ledger: %w", err)
	}
	l.published.Store(c)
	return c, nil
}

// trouble is why the last Publish did not, and when that was.
type trouble struct {
	err error
	at  time.Time
}

// LastTick returns when it was last tried to publish, zero before the first time.
func (l *Ledger) LastTick() time.Time {
	if t := l.trouble.Load(); t != nil {
		return t.at
	}
	return time.Time{}
}

// Trouble returns why the last tick published nothing; nil: it did.
func (l *Ledger) Trouble() error {
	if t := l.trouble.Load(); t != nil {
		return t.err
	}
	return nil
}

// stillBegins refuses to sign a tree that does not begin with one that everybody
// has: the catalog was altered beneath the hub.
func (l *Ledger) stillBegins(ctx context.Context, tx *sql.Tx, size uint64, c checkpoint.Checkpoint) error {
	if size >= c.Size {
		root, err := tlog.TreeHash(int64(c.Size), l.reader(ctx, tx, c.Size))
		if err != nil && !errors.Is(err, errMissing) {
			return err
		}
		if err == nil && root == c.Root {
			return nil
		}
	}
	return holdfast.Errorf(holdfast.Conflict, "the ledger's rows are not those of the published checkpoint over %d leaves: the catalog was altered; holdfast ledger verify says where", c.Size)
}

func (l *Ledger) sign(size uint64, root tlog.Hash) (c checkpoint.Checkpoint, err error) {
	c = checkpoint.Checkpoint{Origin: l.Origin(), Size: size, Root: root}
	if c.Note, err = l.Sign(checkpoint.Text(c.Origin, size, root)); err != nil {
		return c, fmt.Errorf("sign checkpoint: %w", err)
	}
	return c, nil
}

func saveCheckpoint(ctx context.Context, tx *sql.Tx, origin int, c checkpoint.Checkpoint, published bool) error {
	public := 0
	if published {
		public = 1
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO ledger_checkpoint (size, at, origin, published, note) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (size) DO UPDATE SET published = CASE WHEN excluded.published = 1 THEN 1 ELSE ledger_checkpoint.published END`,
		int64(c.Size), time.Now().UnixNano(), origin, public, string(c.Note))
	return err
}

// covering returns a checkpoint over the entry at index: the published one if it
// has it already, else one that ends with the entry, which is signed and not
// published. It tells whoever gets it nothing but what the index says.
func (l *Ledger) covering(ctx context.Context, index uint64) (checkpoint.Checkpoint, error) {
	if c := l.head(); index < c.Size {
		return l.Published(ctx)
	}
	l.signing.Lock()
	defer l.signing.Unlock()
	var c checkpoint.Checkpoint
	err := l.db.Write(ctx, func(tx *sql.Tx) error {
		var text string
		err := tx.QueryRowContext(ctx, `SELECT note FROM ledger_checkpoint WHERE size = $1 AND origin = $2`, int64(index)+1, l.origin).Scan(&text)
		if err == nil {
			c, err = checkpoint.Parse([]byte(text), l.verifier)
			return err
		} else if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		root, err := tlog.TreeHash(int64(index)+1, l.reader(ctx, tx, index+1))
		if err != nil {
			return fmt.Errorf("hash ledger: %w", err)
		}
		if c, err = l.sign(index+1, root); err != nil {
			return err
		}
		return saveCheckpoint(ctx, tx, l.origin, c, false)
	})
	if err != nil {
		return c, err
	}
	return c, l.keepOutside(c)
}

// Run publishes on a fixed clock, at the full multiples of every, until ctx ends,
// and asks witnesses for cosignatures. What happens on the hub moves no tick.
func (l *Ledger) Run(ctx context.Context, every time.Duration) error {
	if l.witnesses != nil {
		var asking sync.WaitGroup
		asking.Go(func() { l.askWitnesses(ctx) })
		defer asking.Wait()
	}
	for {
		now := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(now.Truncate(every).Add(every).Sub(now)):
		}
		// A full disk may heal: the next tick publishes what this one could not.
		// A catalog that was altered is the doctor's to tell.
		_, err := l.Publish(ctx)
		if err == nil && l.witnesses != nil {
			select {
			case l.witnesses.wake <- struct{}{}:
			default:
			}
		}
		if kind := holdfast.KindOf(err); err != nil && ctx.Err() == nil && kind != holdfast.Unavailable && kind != holdfast.Conflict {
			return err
		}
	}
}
