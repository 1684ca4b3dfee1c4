package ledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast"
)

// TakenBack is what the copies of a keyring have of take-backs that the catalog does
// not know, after ReadTakeBacks has held them against the catalog.
type TakenBack struct {
	Fresh      []TakeBack // in their order, from the catalog's last on
	Last       uint64     // number of the last that the copies have
	Generation uint64     // of the keyring: all that was taken back before it came into force is there
	At         time.Time  // when the last batch was signed: up to then nothing is missing
	// Short says why more may have been taken back than is here; empty: nothing does.
	Short   string
	batches []signedBatch
}

type signedBatch struct {
	TakeBackBatch
	signed string
}

// unsigned cuts the signatures off a note.
func unsigned(signed string) string {
	text, _, _ := strings.Cut(signed, "\n\n")
	return text + "\n"
}

// ReadTakeBacks reads the batches among the files of one copy of the keyring, whose
// newest head is of a generation, for a catalog that was put back: the receiver's.
// A batch by a later name of the ledger is believed if a batch before tells of that
// name, by both keys.
//
// It is Invalid for batches that are not this hub's or were altered, and Conflict
// for those of another history than the catalog's.
func (l *Ledger) ReadTakeBacks(ctx context.Context, files map[string][]byte, generation uint64) (t TakenBack, err error) {
	verifiers, err := l.verifierKeys(ctx)
	if err != nil {
		return t, err
	}
	var chain [sha256.Size]byte
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasPrefix(name, takeBackPrefix) {
			continue
		}
		b, err := l.readSigned(files[name], &verifiers)
		if err != nil {
			return t, fmt.Errorf("%s: %w", name, err)
		}
		if batchName(b.First) != name {
			return t, fmt.Errorf("%s: %w", name, errBatch("its name and its numbers differ"))
		}
		if n := len(t.batches); n > 0 && (b.First != t.Last+1 || b.Before != chain) {
			return t, fmt.Errorf("%s: %w", name, errBatch("it does not go on from the batch before: one is missing, or is of another history, as when two hubs of one keyring have written there. "+
				"Stop the one that still writes. Restore from another copy of the keyring, if there is one. Else move this file and the batches behind it to another folder, keep them, and restore again: what only they tell of is not carried out, revoke and withdraw it anew"))
		}
		chain = b.chain()
		t.batches = append(t.batches, b)
		t.Last, t.At, t.Generation = b.Last, b.At, max(t.Generation, b.Generation)
	}
	known, err := l.heldAgainst(ctx, t.batches)
	if err != nil {
		return t, err
	}
	for i := range t.batches {
		all, err := t.batches[i].TakeBacks()
		if err != nil {
			return t, err
		}
		for _, b := range all {
			if b.Number > known {
				t.Fresh = append(t.Fresh, b)
			}
		}
	}
	switch {
	case len(t.batches) == 0:
		t.Short = "the copy has no take-backs"
	case t.batches[0].First > known+1:
		return t, holdfast.Errorf(holdfast.Conflict, "the copy's take-backs begin at %d, the catalog's end at %d: those between are missing", t.batches[0].First, known)
	case t.Last < known:
		t.Short = fmt.Sprintf("the copy's take-backs end at %d, the catalog has %d", t.Last, known)
	case t.Generation < generation:
		t.Short = fmt.Sprintf("the copy's take-backs are of generation %d, its keyring is of %d", t.Generation, generation)
	}
	return t, nil
}

func (l *Ledger) verifierKeys(ctx context.Context) ([]string, error) {
	all, err := l.origins(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, o := range all {
		out = append(out, o.Verifier)
	}
	return out, nil
}

// readSigned checks a batch, and one by a key that is not known yet against what it
// tells of that key itself.
func (l *Ledger) readSigned(signed []byte, verifiers *[]string) (signedBatch, error) {
	b, err := ParseTakeBacks(signed, *verifiers...)
	if err == nil {
		return signedBatch{b, string(signed)}, nil
	}
	claimed, rerr := readBatch(unsigned(string(signed)))
	if rerr != nil {
		return signedBatch{}, err
	}
	all, rerr := claimed.TakeBacks()
	if rerr != nil {
		return signedBatch{}, err
	}
	for _, t := range all {
		if t.Kind != OriginRenewed {
			continue
		}
		if key, ok := renewedKey(t.Data, *verifiers); ok {
			*verifiers = append(*verifiers, key)
		}
	}
	b, err = ParseTakeBacks(signed, *verifiers...)
	return signedBatch{b, string(signed)}, err
}

// renewedKey returns the key that a renewal's statement is about, if one of the keys
// that are known has signed it.
func renewedKey(data []byte, verifiers []string) (string, bool) {
	var statement string
	if json.Unmarshal(data, &statement) != nil {
		return "", false
	}
	var keys []note.Verifier
	for _, text := range verifiers {
		if v, err := note.NewVerifier(text); err == nil {
			keys = append(keys, v)
		}
	}
	n, err := note.Open([]byte(statement), note.VerifierList(keys...))
	if err != nil {
		return "", false
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || lines[0] != renewalHeader || lines[1] != n.Sigs[0].Name {
		return "", false
	}
	return lines[3], true
}

// heldAgainst checks that the catalog's take-backs are those of the batches, as far
// as both go, and returns the number of the catalog's last.
func (l *Ledger) heldAgainst(ctx context.Context, batches []signedBatch) (known uint64, err error) {
	err = l.db.Read(ctx, func(tx *sql.Tx) error {
		var last int64
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(number), 0) FROM take_back`).Scan(&last); err != nil {
			return err
		}
		known = uint64(last)
		for i := range batches {
			b := &batches[i]
			if b.First > known {
				return nil
			}
			have, _, err := readLines(ctx, tx, b.First, len(b.lines))
			if err != nil {
				return err
			}
			for j, line := range have {
				if line != b.lines[j] {
					return errOther(b.First + uint64(j))
				}
			}
		}
		return nil
	})
	return known, err
}

// KeepTakeBacks takes what ReadTakeBacks found into the catalog, before the keepers
// carry it out again: what they take back doing so gets the numbers behind. It is a
// Conflict, and changes nothing, if the catalog has another take-back under a number.
func (l *Ledger) KeepTakeBacks(ctx context.Context, t TakenBack) error {
	err := l.db.Write(ctx, func(tx *sql.Tx) error {
		for i := range t.batches {
			b := &t.batches[i]
			for j, line := range b.lines {
				if err := keepLine(ctx, tx, b.First+uint64(j), line); err != nil {
					return err
				}
			}
			if err := putBatch(ctx, tx, &b.TakeBackBatch, b.signed); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep take-backs: %w", err)
	}
	return nil
}

func keepLine(ctx context.Context, tx *sql.Tx, number uint64, line string) error {
	done, err := tx.ExecContext(ctx, `INSERT INTO take_back (number, line) VALUES ($1, $2) ON CONFLICT (number) DO NOTHING`, int64(number), line)
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n == 1 {
		return err
	}
	var have string
	if err := tx.QueryRowContext(ctx, `SELECT line FROM take_back WHERE number = $1`, int64(number)).Scan(&have); err != nil {
		return err
	}
	if have != line {
		return errOther(number)
	}
	return nil
}

func errOther(number uint64) error {
	return holdfast.Errorf(holdfast.Conflict, "take-back %d is another in the catalog than in the copy: they are of two hubs, or of two histories of one", number)
}
