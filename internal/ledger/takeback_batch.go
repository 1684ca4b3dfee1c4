package ledger

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast"
)

// takeBackHeader is the first line of a batch.
const takeBackHeader = "holdfast take-backs 1"

// batchSize is how many take-backs a batch has, at most. The last batch is signed
// anew with each that comes to it.
const batchSize = 1000

// batchBytes is how long its lines are together when nothing more comes to it. Most
// take-backs have some hundred bytes; those that name many streams have a MB.
const batchBytes = 4 << 20

// takeBackPrefix begins the names of batches among the files of a keyring's copy;
// the number of the first take-back follows.
const takeBackPrefix = "takebacks-"

func batchName(first uint64) string { return fmt.Sprintf("%s%020d", takeBackPrefix, first) }

// TakeBackBatch is take-backs as they are signed together: docs/format/takeback.md.
type TakeBackBatch struct {
	Origin     string
	First      uint64
	Last       uint64 // First-1: nothing was taken back yet
	Generation uint64 // of the keyring: all that was taken back before it came into force is here or in the batches before
	At         time.Time
	Before     [sha256.Size]byte // the chain's hash before the first
	lines      []string
}

// full reports whether no take-back comes to the batch any more.
func (b *TakeBackBatch) full() bool { return len(b.lines) >= batchSize || b.size() >= batchBytes }

func (b *TakeBackBatch) size() (n int) {
	for _, line := range b.lines {
		n += len(line)
	}
	return n
}

// chain is the hash after the batch's last take-back.
func (b *TakeBackBatch) chain() [sha256.Size]byte {
	h := b.Before
	for _, line := range b.lines {
		h = chainOn(h, line)
	}
	return h
}

func chainOn(before [sha256.Size]byte, line string) [sha256.Size]byte {
	return sha256.Sum256(append(append(before[:], line...), '\n'))
}

// text is what is signed.
func (b *TakeBackBatch) text() string {
	after := b.chain()
	var s strings.Builder
	fmt.Fprintf(&s, "%s\n%s\n%d %d\n%d\n%s\n%s\n%s\n", takeBackHeader, b.Origin, b.First, b.Last, b.Generation, b.At.UTC().Format(time.RFC3339),
		base64.StdEncoding.EncodeToString(b.Before[:]), base64.StdEncoding.EncodeToString(after[:]))
	for _, line := range b.lines {
		s.WriteString(line)
		s.WriteByte('\n')
	}
	return s.String()
}

// TakeBacks returns those of the batch.
func (b *TakeBackBatch) TakeBacks() ([]TakeBack, error) {
	out := make([]TakeBack, len(b.lines))
	for i, line := range b.lines {
		if err := json.Unmarshal([]byte(line), &out[i]); err != nil || out[i].Number != b.First+uint64(i) {
			return nil, errBatch("take-back %d can't be read", b.First+uint64(i))
		}
	}
	return out, nil
}

// ParseTakeBacks reads a batch that one of the verifier keys has signed.
func ParseTakeBacks(signed []byte, verifiers ...string) (TakeBackBatch, error) {
	keys := make([]note.Verifier, 0, len(verifiers))
	for _, text := range verifiers {
		v, err := note.NewVerifier(text)
		if err != nil {
			return TakeBackBatch{}, holdfast.Errorf(holdfast.Invalid, "not a verifier key: %w", err)
		}
		keys = append(keys, v)
	}
	n, err := note.Open(signed, note.VerifierList(keys...))
	if err != nil {
		return TakeBackBatch{}, holdfast.Errorf(holdfast.Invalid, "a batch of take-backs is not signed by this hub, or was altered")
	}
	b, err := readBatch(n.Text)
	if err != nil {
		return b, err
	}
	if b.Origin != n.Sigs[0].Name {
		return b, errBatch("it says another name than it is signed by")
	}
	return b, nil
}

func errBatch(format string, args ...any) error {
	return holdfast.Errorf(holdfast.Invalid, "a batch of take-backs is damaged: "+format, args...)
}

// readBatch reads what text writes, and nothing else. No signature was looked at.
func readBatch(text string) (b TakeBackBatch, err error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 7 || lines[0] != takeBackHeader {
		if len(lines) > 0 && strings.HasPrefix(lines[0], "holdfast take-backs ") && lines[0] != takeBackHeader {
			return b, holdfast.Errorf(holdfast.Conflict, "these take-backs are of a newer holdfast: start that one")
		}
		return b, errBatch("its head is not as it is written")
	}
	first, last, _ := strings.Cut(lines[2], " ")
	var errs [4]error
	b.Origin = lines[1]
	b.First, errs[0] = strconv.ParseUint(first, 10, 63)
	b.Last, errs[1] = strconv.ParseUint(last, 10, 63)
	b.Generation, errs[2] = strconv.ParseUint(lines[3], 10, 63)
	b.At, errs[3] = time.Parse(time.RFC3339, lines[4])
	for _, e := range errs {
		if e != nil {
			return b, errBatch("its head is not as it is written")
		}
	}
	before, err := base64.StdEncoding.Strict().DecodeString(lines[5])
	if err != nil || len(before) != sha256.Size {
		return b, errBatch("its head is not as it is written")
	}
	b.Before, b.lines = [sha256.Size]byte(before), lines[7:]
	if b.First == 0 || b.First+uint64(len(b.lines)) != b.Last+1 {
		return b, errBatch("it says %d to %d and has %d", b.First, b.Last, len(b.lines))
	}
	if b.text() != text {
		return b, errBatch("what it has is not what its hash is of")
	}
	return b, nil
}

// OwnsTakeBacks reports whether a file of this name in a keyring's copy is a batch.
func OwnsTakeBacks(name string) bool { return strings.HasPrefix(name, takeBackPrefix) }

// TakeBacksFollow says why ours may not take the place of theirs, a copy's file of the
// same name: theirs is not where ours begins. One that is damaged, so that nobody has
// written it, is replaced if what can be read of it is of ours. No signature is looked
// at.
func TakeBacksFollow(ours, theirs []byte) error {
	o, err := readBatch(unsigned(string(ours)))
	if err != nil {
		return err
	}
	t, err := readBatch(unsigned(string(theirs)))
	switch {
	case holdfast.KindOf(err) == holdfast.Conflict: // of a newer version
		return err
	case err != nil && !o.wrote(unsigned(string(theirs))):
		return holdfast.Errorf(holdfast.Conflict, "is damaged, and what can be read of it is of another history")
	case err != nil:
		return nil
	case t.First != o.First || t.Before != o.Before:
		return holdfast.Errorf(holdfast.Conflict, "begins elsewhere")
	case len(t.lines) > len(o.lines) && slices.Equal(t.lines[:len(o.lines)], o.lines):
		return holdfast.Errorf(holdfast.Conflict, "goes on to number %d, here it ends at %d", t.Last, o.Last)
	case len(t.lines) > len(o.lines) || !slices.Equal(t.lines, o.lines[:len(t.lines)]):
		return holdfast.Errorf(holdfast.Conflict, "has another history")
	case t.Generation > o.Generation:
		return holdfast.Errorf(holdfast.Conflict, "is of generation %d of the keyring, here it is of %d", t.Generation, o.Generation)
	}
	return nil
}

// wrote reports whether a damaged text was written by who has b: its head says the
// chain of b up to the number where it ends, or all its lines are of b.
func (b *TakeBackBatch) wrote(damaged string) bool {
	lines := strings.Split(strings.TrimSuffix(damaged, "\n"), "\n")
	if len(lines) < 8 {
		return true // no take-back is in it
	}
	_, last, _ := strings.Cut(lines[2], " ")
	if n, err := strconv.ParseUint(last, 10, 63); err == nil && n+1 >= b.First && n <= b.Last {
		begun := TakeBackBatch{Before: b.Before, lines: b.lines[:n+1-b.First]}
		if after := begun.chain(); lines[6] == base64.StdEncoding.EncodeToString(after[:]) {
			return true
		}
	}
	for i, line := range lines[7:] {
		if i >= len(b.lines) || line != b.lines[i] && (i < len(lines)-8 || !strings.HasPrefix(b.lines[i], line)) {
			return false
		}
	}
	return true
}
