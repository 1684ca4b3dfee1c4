package ledger

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
)

// Checkpoint is a signed tree head (C2SP tlog-checkpoint): origin, size, root
// hash, signature.
type Checkpoint struct {
	Size uint64
	Root tlog.Hash
	Note []byte
}

// Checkpoint returns a signed head of the tree as it is now. Heads are kept, so
// that Verify can hold the tree against all that was ever signed.
func (l *Ledger) Checkpoint(ctx context.Context) (Checkpoint, error) {
	var c Checkpoint
	err := l.db.Read(ctx, func(tx *sql.Tx) (err error) {
		c, err = l.head(ctx, tx)
		return err
	})
	if err != nil || c.Note != nil {
		return c, err
	}
	text := fmt.Sprintf("%s\n%d\n%s\n", l.Origin(), c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
	if c.Note, err = l.Sign(text); err != nil {
		return c, fmt.Errorf("sign checkpoint: %w", err)
	}
	err = l.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO ledger_checkpoint (size, at, note) VALUES ($1, $2, $3) ON CONFLICT (size) DO NOTHING`,
			int64(c.Size), time.Now().UnixNano(), string(c.Note))
		return err
	})
	return c, err
}

// head computes the tree's head and returns its note if it was signed already.
func (l *Ledger) head(ctx context.Context, tx *sql.Tx) (c Checkpoint, err error) {
	if c.Size, err = size(ctx, tx); err != nil {
		return c, err
	}
	if c.Root, err = tlog.TreeHash(int64(c.Size), hashReader(ctx, tx)); err != nil {
		return c, fmt.Errorf("hash ledger: %w", err)
	}
	var text string
	err = tx.QueryRowContext(ctx, `SELECT note FROM ledger_checkpoint WHERE size = $1`, int64(c.Size)).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return c, nil
	}
	c.Note = []byte(text)
	return c, err
}

// Run signs a checkpoint on a fixed clock. A proof signs one of its own.
func (l *Ledger) Run(ctx context.Context, every time.Duration) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			// A full disk may heal: the next tick signs what this one could not.
			_, err := l.Checkpoint(ctx)
			if err != nil && ctx.Err() == nil && holdfast.KindOf(err) != holdfast.Unavailable {
				return err
			}
		}
	}
}

// ParseCheckpoint checks the signature of a checkpoint under a verifier key and
// reads it. It needs no ledger.
func ParseCheckpoint(signed []byte, verifierKey string) (Checkpoint, error) {
	v, err := note.NewVerifier(verifierKey)
	if err != nil {
		return Checkpoint{}, holdfast.Errorf(holdfast.Invalid, "not a verifier key: %w", err)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, holdfast.Errorf(holdfast.Invalid, "the checkpoint's signature does not verify: %w", err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || lines[0] != v.Name() {
		return Checkpoint{}, holdfast.Errorf(holdfast.Invalid, "not a checkpoint of %s", v.Name())
	}
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil {
		return Checkpoint{}, holdfast.Errorf(holdfast.Invalid, "the checkpoint has no size")
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return Checkpoint{}, holdfast.Errorf(holdfast.Invalid, "the checkpoint has no root hash")
	}
	return Checkpoint{Size: size, Root: root, Note: signed}, nil
}
