package ledger

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// KindRenewed is the kind of entry, on the hub's record, with which a new origin
// begins.
const KindRenewed = "ledger renewed"

// Renewal is what a new origin's first entry says: what the log was called, how far
// it is known to have come under that name, and what of it was kept.
type Renewal struct {
	From         string    `json:"from"`
	FromVerifier string    `json:"from_verifier"`
	Origin       string    `json:"origin"`
	Verifier     string    `json:"verifier"`
	KeptSize     uint64    `json:"kept_size"` // leaves, all before this entry
	KeptRoot     tlog.Hash `json:"kept_root"`
	Last         []string  `json:"last"` // checkpoints of the old name, as far as they are known
}

// renewalHeader is the first line of the note that both keys sign.
const renewalHeader = "holdfast ledger renewal 1"

// Renew gives the log a new name and key. Its leaves stay; the first one under the
// new name commits to the last checkpoints of the old: that of the head outside and
// those in more, which may be of leaves that are no longer there. From then on
// nothing is signed under the old name, whose key is dropped.
//
// It is for a catalog that was put back to an earlier state, or moved: signing on
// under the old name would make two logs of one name.
func (l *Ledger) Renew(ctx context.Context, o Outside, more ...Kept) (Renewal, error) {
	l.signing.Lock()
	defer l.signing.Unlock()
	r, err := l.renewal(ctx, o, more)
	if err != nil {
		return r, err
	}
	secret, public, err := note.GenerateKey(rand.Reader, r.Origin)
	if err != nil {
		return r, fmt.Errorf("make ledger key: %w", err)
	}
	r.Verifier = public
	signer, err := note.NewSigner(secret)
	if err != nil {
		return r, fmt.Errorf("make ledger key: %w", err)
	}
	box, err := l.keys.SealField(ctx, vault.Hub, "ledger_origin", originRow(l.origin+1), "seed", []byte(secret))
	if err != nil {
		return r, fmt.Errorf("seal ledger key: %w", err)
	}
	old := *l.current()
	var c checkpoint.Checkpoint
	err = l.db.Write(ctx, func(tx *sql.Tx) error {
		c, err = l.renew(ctx, tx, &r, signer, box)
		return err
	})
	if err != nil {
		l.become(old)
		return r, fmt.Errorf("renew ledger: %w", err)
	}
	l.outside, l.kept = o, 0
	if err := l.keepOutside(c); err != nil {
		return r, err
	}
	l.published.Store(c)
	return r, nil
}

// identity is under which name the log signs.
type identity struct {
	signer   note.Signer
	origin   int
	verifier string
}

func (l *Ledger) current() *identity { return &identity{l.signer, l.origin, l.verifier} }
func (l *Ledger) become(now identity) {
	l.signer, l.origin, l.verifier = now.signer, now.origin, now.verifier
}

// renewal says what is known of the old name.
func (l *Ledger) renewal(ctx context.Context, o Outside, more []Kept) (Renewal, error) {
	all, err := l.origins(ctx)
	if err != nil {
		return Renewal{}, err
	}
	r := Renewal{From: l.Origin(), FromVerifier: l.verifier, Origin: fmt.Sprintf("%s/%d", all[0].Name, l.origin+1)}
	if k, err := o.Load(); err == nil {
		more = append([]Kept{k}, more...)
	}
	for _, k := range more {
		if k.Verifier == "" {
			k.Verifier = l.verifier
		}
		if _, err := checkpoint.Parse([]byte(k.Checkpoint), k.Verifier); err != nil {
			continue // what can't be read proves nothing to anybody
		}
		r.Last = append(r.Last, k.Checkpoint)
	}
	r.Last = append(r.Last, string(l.head().Note))
	return r, nil
}

// renew writes the new name, its first entry and its first checkpoint.
func (l *Ledger) renew(ctx context.Context, tx *sql.Tx, r *Renewal, signer note.Signer, seedBox []byte) (c checkpoint.Checkpoint, err error) {
	e, err := l.atEdge(ctx, tx)
	if err != nil {
		return c, err
	}
	r.KeptSize, r.KeptRoot = e.tree.size, e.tree.root()
	text := fmt.Sprintf("%s\n%s\n%s\n%s\n%d\n%s\n", renewalHeader, r.From, r.Origin, r.Verifier, r.KeptSize, r.KeptRoot)
	both, err := note.Sign(&note.Note{Text: text}, l.signer, signer)
	if err != nil {
		return c, fmt.Errorf("sign renewal: %w", err)
	}
	if err := insertOrigin(ctx, tx, l.origin+1, r.Origin, r.Verifier, r.KeptSize, seedBox); err != nil {
		return c, err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE ledger_origin SET seed_sealed = $1 WHERE n = $2`, []byte{}, l.origin); err != nil {
		return c, err
	}
	l.become(identity{signer, l.origin + 1, r.Verifier})
	if _, err := l.Append(ctx, tx, vault.Hub, KindRenewed, struct {
		*Renewal
		Statement string    `json:"statement"` // signed by both keys
		At        time.Time `json:"at"`
	}{r, string(both), time.Now().UTC()}); err != nil {
		return c, err
	}
	statement, err := json.Marshal(string(both))
	if err != nil {
		return c, err
	}
	if err := AddTakeBacks(ctx, tx, TakeBack{Kind: OriginRenewed, Data: statement}); err != nil {
		return c, err
	}
	if err := l.pad(ctx, tx, e, grown(1)-1); err != nil {
		return c, err
	}
	if c, err = l.sign(e.tree.size, e.tree.root()); err != nil {
		return c, err
	}
	return c, saveCheckpoint(ctx, tx, l.origin, c, true)
}

// Renewals returns the openings of the entries with which the names of the log but
// the first begin: what whoever held a checkpoint of an earlier name needs.
func (l *Ledger) Renewals(ctx context.Context) ([]Opening, error) {
	all, err := l.origins(ctx)
	if err != nil {
		return nil, err
	}
	out := []Opening{}
	for _, o := range all[1:] {
		found, err := l.readBoxed(ctx, vault.Hub, o.First, o.First+1, 1)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, holdfast.Errorf(holdfast.Internal, "the entry of a renewal is missing")
		}
		salted, err := l.open(ctx, vault.Hub, found[0])
		if err != nil {
			return nil, err
		}
		out = append(out, Opening{Index: o.First, Salted: salted})
	}
	return out, nil
}

// Opening is what a leaf commits to: its data is the SHA-256 of Salted.
type Opening struct {
	Index  uint64 `json:"index"`
	Salted []byte `json:"salted"`
}
