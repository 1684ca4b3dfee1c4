package ledger

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// A slice is all entries of one record with their proofs, as lines of JSON: a head,
// the entries in order, an end. It is made and checked line by line.

// sliceFormat is the version of a slice.
const sliceFormat = 1

// SliceHead is the first line of a slice.
type SliceHead struct {
	Format      int         `json:"holdfast-ledger-slice"`
	Record      string      `json:"record"`
	Checkpoint  string      `json:"checkpoint"` // signed note, with cosignatures
	Verifier    string      `json:"verifier"`
	Since       uint64      `json:"since,omitzero"`       // size of an older tree
	Consistency []tlog.Hash `json:"consistency,omitzero"` // that it is the beginning of this one
}

// SliceEntry is an entry: Opening and audit path.
type SliceEntry struct {
	Opening
	Hashes []tlog.Hash `json:"hashes"`
}

// sliceEnd is the last line: a slice without it broke off.
type sliceEnd struct {
	Entries *uint64 `json:"entries"`
}

// slicePage is how many entries are in memory while a slice is made.
const slicePage = 500

// Slice hands put, line by line, all entries about o with proofs against one
// checkpoint, and the proof that its tree begins with the first since leaves.
// Entries that nothing published has yet are in it: then the checkpoint is one that
// ends with the newest of them. What put gets is one line of JSON each.
func (l *Ledger) Slice(ctx context.Context, o vault.Owner, since uint64, put func(line any) error) error {
	c, err := l.coveringAll(ctx, o)
	if err != nil {
		return err
	}
	if since > c.Size {
		return holdfast.Errorf(holdfast.Invalid, "the ledger has no %d leaves to show you: what you kept is of another ledger, or this one was put back", since)
	}
	head := SliceHead{Format: sliceFormat, Record: o.String(), Checkpoint: string(c.Note), Verifier: l.verifier, Since: since}
	err = l.db.Read(ctx, func(tx *sql.Tx) (err error) {
		head.Consistency, err = l.grownSince(ctx, tx, since, c.Size)
		return err
	})
	if err != nil {
		return fmt.Errorf("prove consistency: %w", err)
	}
	if err := put(head); err != nil {
		return err
	}
	entries := uint64(0)
	for from := uint64(0); ; {
		found, err := l.readBoxed(ctx, o, from, c.Size, slicePage)
		if err != nil {
			return err
		}
		if err := l.slicePage(ctx, o, c.Size, found, put); err != nil {
			return err
		}
		entries += uint64(len(found))
		if len(found) < slicePage {
			break
		}
		from = found[len(found)-1].index + 1
	}
	return put(sliceEnd{&entries})
}

// coveringAll returns a checkpoint over all entries about o.
func (l *Ledger) coveringAll(ctx context.Context, o vault.Owner) (checkpoint.Checkpoint, error) {
	var last sql.NullInt64
	err := l.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT max(idx) FROM ledger_entry WHERE owner = $1`, o[:]).Scan(&last)
	})
	if err != nil {
		return checkpoint.Checkpoint{}, fmt.Errorf("read ledger: %w", err)
	}
	if !last.Valid {
		return l.Published(ctx)
	}
	return l.covering(ctx, uint64(last.Int64))
}

func (l *Ledger) slicePage(ctx context.Context, o vault.Owner, size uint64, found []boxed, put func(line any) error) error {
	lines := make([]SliceEntry, len(found))
	for i, r := range found {
		salted, err := l.open(ctx, o, r)
		if err != nil {
			return err
		}
		lines[i].Opening = Opening{Index: r.index, Salted: salted}
	}
	err := l.db.Read(ctx, func(tx *sql.Tx) (err error) {
		t := l.reader(ctx, tx, size)
		for i := range lines {
			if lines[i].Hashes, err = tlog.ProveRecord(int64(size), int64(lines[i].Index), t); err != nil {
				return fmt.Errorf("prove ledger entry: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, line := range lines {
		if err := put(line); err != nil {
			return err
		}
	}
	return nil
}

// Older is what a reader kept from before: a checkpoint, and of a slice the entries.
type Older struct {
	Checkpoint checkpoint.Checkpoint
	record     string
	entries    []commitment // in order of their sequence
}

// ReadOlder reads a checkpoint, a proof or a slice that was kept, and checks its
// signature under trusted, or under the key in it if trusted is of another name.
func ReadOlder(b []byte, trusted string) (Older, error) {
	var old Older
	var err error
	switch {
	case IsSlice(b):
		key, signed, err := signerOf(b, trusted)
		if err != nil {
			return old, err
		}
		old.Checkpoint = signed
		r, err := CheckSlice(bytes.NewReader(b), key, nil, func(o Opening, _ Event) error {
			old.entries = append(old.entries, commit(o.Salted))
			return nil
		})
		old.record = r.Record
		return old, err
	case IsProof(b):
		p, err := ParseProof(b)
		if err != nil {
			return old, err
		}
		key := keyFor(p.Checkpoint, trusted, p.Verifier)
		if _, err = p.Check(key); err != nil {
			return old, err
		}
		old.Checkpoint, err = checkpoint.Parse([]byte(p.Checkpoint), key)
		return old, err
	case checkpoint.IsConsistency(b):
		var c checkpoint.Consistency
		if err = c.UnmarshalText(b); err != nil {
			return old, err
		}
		b = c.Note
	}
	if trusted == "" {
		return old, holdfast.Errorf(holdfast.Invalid, "an older checkpoint does not carry the key that signed it: give the hub's with --key")
	}
	old.Checkpoint, err = checkpoint.Parse(b, trusted)
	return old, err
}

// keyFor is trusted, unless the checkpoint is by another name of the log.
func keyFor(signed, trusted, inside string) string {
	if v, err := note.NewVerifier(trusted); err == nil {
		if c, err := checkpoint.Unverified([]byte(signed)); err != nil || c.Origin == v.Name() {
			return trusted
		}
	}
	return inside
}

func signerOf(slice []byte, trusted string) (key string, c checkpoint.Checkpoint, err error) {
	var head SliceHead
	line, _, _ := bytes.Cut(slice, []byte("\n"))
	if err := json.Unmarshal(line, &head); err != nil {
		return "", c, holdfast.Errorf(holdfast.Invalid, "the slice can't be read")
	}
	key = keyFor(head.Checkpoint, trusted, head.Verifier)
	c, err = checkpoint.Parse([]byte(head.Checkpoint), key)
	return key, c, err
}

// SizeOf returns how many leaves the tree of a kept slice, proof or checkpoint has.
// Nothing is checked.
func SizeOf(b []byte) (uint64, error) {
	signed := b
	var c checkpoint.Consistency
	switch {
	case IsSlice(b):
		var head SliceHead
		line, _, _ := bytes.Cut(b, []byte("\n"))
		if err := json.Unmarshal(line, &head); err != nil {
			return 0, holdfast.Errorf(holdfast.Invalid, "the slice can't be read")
		}
		signed = []byte(head.Checkpoint)
	case IsProof(b):
		p, err := ParseProof(b)
		if err != nil {
			return 0, err
		}
		signed = []byte(p.Checkpoint)
	case checkpoint.IsConsistency(b):
		if err := c.UnmarshalText(b); err != nil {
			return 0, err
		}
		signed = c.Note
	}
	kept, err := checkpoint.Unverified(signed)
	return kept.Size, err
}

// IsSlice reports whether b looks like a slice.
func IsSlice(b []byte) bool { return bytes.HasPrefix(b, []byte(`{"holdfast-ledger-slice":`)) }

// SliceReport is what a slice was found to be.
type SliceReport struct {
	Record     string `json:"record"`
	Entries    uint64 `json:"entries"`
	Size       uint64 `json:"size"` // leaves of the checkpoint's tree
	Verifier   string `json:"verifier"`
	Checkpoint string `json:"checkpoint"`
	Since      uint64 `json:"since,omitzero"` // grown from a tree of so many leaves, which was checked
}

// maxSliceLine bounds a line of a slice.
const maxSliceLine = 4 << 20

// CheckSlice checks a slice without a hub: the checkpoint's signature under trusted
// (empty: the key in the slice, which then must be compared by hand), that every
// entry is in its tree, that their sequence has no gap and no repeat, and, with an
// older one, that its tree is the beginning of this one and its entries are still
// there. each, if given, gets every entry that was checked.
func CheckSlice(r io.Reader, trusted string, older *Older, each func(Opening, Event) error) (SliceReport, error) {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxSliceLine)
	var report SliceReport
	if !in.Scan() {
		return report, holdfast.Errorf(holdfast.Invalid, "the slice is empty")
	}
	var head SliceHead
	if err := json.Unmarshal(in.Bytes(), &head); err != nil || head.Format != sliceFormat {
		return report, holdfast.Errorf(holdfast.Invalid, "the slice can't be read: it was altered, or is of a newer version")
	}
	if trusted == "" {
		trusted = head.Verifier
	}
	c, err := checkpoint.Parse([]byte(head.Checkpoint), trusted)
	if err != nil {
		return report, err
	}
	report = SliceReport{Record: head.Record, Size: c.Size, Verifier: trusted, Checkpoint: head.Checkpoint}
	if older != nil {
		if err := older.begins(head, c); err != nil {
			return report, err
		}
		report.Since = older.Checkpoint.Size
	}
	last := int64(-1)
	for in.Scan() {
		if strings.HasPrefix(in.Text(), `{"entries":`) {
			return report, endSlice(in, report, older)
		}
		var line SliceEntry
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			return report, holdfast.Errorf(holdfast.Invalid, "line %d of the slice can't be read", report.Entries+2)
		}
		if int64(line.Index) <= last {
			return report, holdfast.Errorf(holdfast.Invalid, "entry %d of the slice is out of order", line.Index)
		}
		last = int64(line.Index)
		e, err := line.check(c, report.Entries, older)
		if err != nil {
			return report, err
		}
		report.Entries++
		if each != nil {
			if err := each(line.Opening, e); err != nil {
				return report, err
			}
		}
	}
	if err := in.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return report, fmt.Errorf("read slice: %w", err)
	}
	return report, holdfast.Errorf(holdfast.Invalid, "the slice breaks off after %d entries", report.Entries)
}

func endSlice(in *bufio.Scanner, report SliceReport, older *Older) error {
	var end sliceEnd
	if json.Unmarshal(in.Bytes(), &end) != nil || end.Entries == nil || *end.Entries != report.Entries {
		return holdfast.Errorf(holdfast.Invalid, "the slice ends with another number of entries than it has")
	}
	if in.Scan() {
		return holdfast.Errorf(holdfast.Invalid, "the slice goes on after its end")
	}
	if older != nil && report.Entries < uint64(len(older.entries)) {
		return holdfast.Errorf(holdfast.Invalid, "the record has %d entries, the older slice has %d: entries were taken away", report.Entries, len(older.entries))
	}
	return nil
}

// check checks an entry that is to be number seq of its record.
func (s SliceEntry) check(c checkpoint.Checkpoint, seq uint64, older *Older) (Event, error) {
	sum := commit(s.Salted)
	e, err := Proof{Index: s.Index, Commitment: sum[:], Salted: s.Salted, Hashes: s.Hashes}.within(c)
	if err != nil {
		return e, err
	}
	if e.Seq != seq {
		return e, holdfast.Errorf(holdfast.Invalid, "entry %d is number %d of the record, number %d is due: entries are missing or repeated", s.Index, e.Seq, seq)
	}
	if older != nil && seq < uint64(len(older.entries)) && older.entries[seq] != sum {
		return e, holdfast.Errorf(holdfast.Invalid, "entry number %d of the record is another one than in the older slice", seq)
	}
	return e, nil
}

// begins checks that the older tree is the beginning of the one of c.
func (o *Older) begins(head SliceHead, c checkpoint.Checkpoint) error {
	if o.record != "" && o.record != head.Record {
		return holdfast.Errorf(holdfast.Invalid, "the older slice is of another record")
	}
	if head.Since != o.Checkpoint.Size {
		return holdfast.Errorf(holdfast.Invalid, "the slice has no proof from the %d leaves of the older checkpoint: ask for it with --since", o.Checkpoint.Size)
	}
	return checkpoint.Grown(head.Consistency, o.Checkpoint.Size, o.Checkpoint.Root, c.Size, c.Root)
}
