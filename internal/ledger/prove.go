package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Proof shows offline that an entry is in the tree of a signed checkpoint, and what
// it says. As text it is a C2SP tlog-proof, whose extra data are the verifier key, a
// newline, and what the leaf commits to.
type Proof struct {
	Index      uint64      `json:"index"`
	Commitment []byte      `json:"commitment"` // SHA-256(salt ‖ payload), the leaf's data
	Salted     []byte      `json:"salted,omitempty"`
	Hashes     []tlog.Hash `json:"hashes"`     // RFC 6962 audit path, from the leaf up
	Checkpoint string      `json:"checkpoint"` // signed note
	Verifier   string      `json:"verifier"`   // its public key
}

// Prove returns the inclusion proof of entry index, which must be about o. An entry
// that no published checkpoint has yet is proved at once, against one of its own.
func (l *Ledger) Prove(ctx context.Context, o vault.Owner, index uint64) (Proof, error) {
	p := Proof{Index: index, Verifier: l.verifier}
	found, err := l.readBoxed(ctx, o, index, index+1, 1)
	if err != nil {
		return p, err
	}
	if len(found) == 0 {
		return p, holdfast.Errorf(holdfast.NotFound, "there is no entry %d on this record", index)
	}
	c, err := l.covering(ctx, index)
	if err != nil {
		return p, fmt.Errorf("prove ledger entry: %w", err)
	}
	p.Checkpoint = string(c.Note)
	err = l.db.Read(ctx, func(tx *sql.Tx) error {
		all, err := l.commitments(ctx, tx, index, index+1)
		if err != nil {
			return err
		}
		p.Commitment = all[0][:]
		p.Hashes, err = tlog.ProveRecord(int64(c.Size), int64(index), l.reader(ctx, tx, c.Size))
		return err
	})
	if err != nil {
		return p, fmt.Errorf("prove ledger entry: %w", err)
	}
	p.Salted, err = l.open(ctx, o, found[0])
	return p, err
}

// Check verifies the proof against its checkpoint and returns the event, if the
// proof carries it. trusted is the verifier key that the reader holds of the
// hub; empty means the one in the proof, which then must be compared by hand.
func (p Proof) Check(trusted string) (Event, error) {
	if trusted == "" {
		trusted = p.Verifier
	}
	c, err := checkpoint.Parse([]byte(p.Checkpoint), trusted)
	if err != nil {
		return Event{}, err
	}
	return p.within(c)
}

// within checks the proof against a checkpoint whose signature was checked.
func (p Proof) within(c checkpoint.Checkpoint) (Event, error) {
	if tlog.CheckRecord(p.Hashes, int64(c.Size), c.Root, int64(p.Index), tlog.RecordHash(p.Commitment)) != nil {
		return Event{}, holdfast.Errorf(holdfast.Invalid, "entry %d is not in the checkpoint's tree", p.Index)
	}
	if p.Salted == nil {
		return Event{Index: p.Index}, nil
	}
	if sum := commit(p.Salted); !bytes.Equal(sum[:], p.Commitment) || len(p.Salted) < saltSize {
		return Event{}, holdfast.Errorf(holdfast.Invalid, "the payload is not what entry %d commits to", p.Index)
	}
	return eventOf(p.Index, p.Salted)
}

// proofHeader is the first line of a C2SP tlog-proof.
const proofHeader = "c2sp.org/tlog-proof@v1"

// IsProof reports whether b looks like a proof's text.
func IsProof(b []byte) bool { return bytes.HasPrefix(b, []byte(proofHeader+"\n")) }

// Text writes the proof as a C2SP tlog-proof.
func (p Proof) Text() []byte {
	var b bytes.Buffer
	extra := append([]byte(p.Verifier+"\n"), p.Salted...)
	fmt.Fprintf(&b, "%s\nextra %s\nindex %d\n", proofHeader, base64.StdEncoding.EncodeToString(extra), p.Index)
	for _, h := range p.Hashes {
		b.WriteString(h.String() + "\n")
	}
	b.WriteString("\n" + p.Checkpoint)
	return b.Bytes()
}

// ParseProof reads what Text wrote. Nothing is checked before Check.
func ParseProof(text []byte) (Proof, error) {
	bad := func(what string) (Proof, error) {
		return Proof{}, holdfast.Errorf(holdfast.Invalid, "the proof can't be read: %s", what)
	}
	head, signed, ok := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 3 || lines[0] != proofHeader {
		return bad("it is not a tlog-proof with extra data, an index and a checkpoint")
	}
	extra64, ok := strings.CutPrefix(lines[1], "extra ")
	extra, err := base64.StdEncoding.DecodeString(extra64)
	verifier, salted, cut := strings.Cut(string(extra), "\n")
	if !ok || err != nil || !cut {
		return bad("its extra data are not those of a Holdfast ledger")
	}
	index64, ok := strings.CutPrefix(lines[2], "index ")
	index, err := checkpoint.Size(index64)
	if !ok || err != nil {
		return bad("it has no index")
	}
	p := Proof{Index: index, Verifier: verifier, Salted: []byte(salted), Checkpoint: signed}
	sum := commit(p.Salted)
	p.Commitment = sum[:]
	for _, line := range lines[3:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			return bad("a line of it is not a hash in base64")
		}
		p.Hashes = append(p.Hashes, h)
	}
	return p, nil
}

// Consistency proves that the tree of the published checkpoint over to leaves, or
// of the newest if to is 0, begins with the first from leaves.
func (l *Ledger) Consistency(ctx context.Context, from, to uint64) (checkpoint.Consistency, error) {
	out := checkpoint.Consistency{Old: from}
	c := l.head()
	err := l.db.Read(ctx, func(tx *sql.Tx) error {
		if to != 0 && to != c.Size {
			var text string
			err := tx.QueryRowContext(ctx, `SELECT note FROM ledger_checkpoint WHERE size = $1 AND published = 1 AND size <= $2`, int64(to), int64(c.Size)).Scan(&text)
			if errors.Is(err, sql.ErrNoRows) {
				return holdfast.Errorf(holdfast.Invalid, "no checkpoint was published over %d leaves: leave --to out for the newest, over %d", to, c.Size)
			} else if err != nil {
				return err
			}
			c, err = checkpoint.Unverified([]byte(text))
			if err != nil {
				return err
			}
		}
		if from > c.Size {
			return holdfast.Errorf(holdfast.Invalid, "the checkpoint has %d leaves, fewer than %d: a proof goes from the smaller to the larger size", c.Size, from)
		}
		var err error
		if out.Note, err = withCosignatures(ctx, tx, c); err != nil {
			return err
		}
		out.Hashes, err = l.grownSince(ctx, tx, from, c.Size)
		return err
	})
	if err != nil {
		return out, fmt.Errorf("prove consistency: %w", err)
	}
	return out, nil
}

// grownSince returns the hashes that prove the growth from one size to another.
func (l *Ledger) grownSince(ctx context.Context, tx *sql.Tx, from, to uint64) ([]tlog.Hash, error) {
	if from == 0 || from == to {
		return nil, nil
	}
	return tlog.ProveTree(int64(to), int64(from), l.reader(ctx, tx, to))
}
