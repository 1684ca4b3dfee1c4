// Package checkpoint is the text forms in which a transparency log meets the
// world: signed tree heads (C2SP tlog-checkpoint), cosignatures of witnesses (C2SP
// tlog-cosignature, Ed25519), and consistency proofs as witnesses take them (the
// body of C2SP tlog-witness add-checkpoint).
//
// It promises that what it returns as checked was signed by the key that the
// caller named, and that nothing of a text is believed before. It knows no ledger,
// no file and no network.
package checkpoint

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
)

// Checkpoint is a signed tree head: the log's name, the number of its leaves and
// the root hash over them.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   tlog.Hash
	Note   []byte // as it was signed, cosignatures included
}

// Text returns what is signed.
func Text(origin string, size uint64, root tlog.Hash) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(root[:]))
}

// Parse checks the signature of a checkpoint under a verifier key, whose name must
// be the origin, and reads it.
func Parse(signed []byte, verifierKey string) (Checkpoint, error) {
	v, err := note.NewVerifier(verifierKey)
	if err != nil {
		return Checkpoint{}, holdfast.Errorf(holdfast.Invalid, "not a verifier key: %w", err)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, holdfast.Errorf(holdfast.Invalid, "the checkpoint's signature does not verify: %w", err)
	}
	c, err := read(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != v.Name() {
		return Checkpoint{}, holdfast.Errorf(holdfast.Invalid, "not a checkpoint of %s", v.Name())
	}
	c.Note = signed
	return c, nil
}

// Unverified reads a checkpoint of which no signature was checked: to learn whose
// it claims to be, and for nothing else.
func Unverified(signed []byte) (Checkpoint, error) {
	text, _, ok := strings.Cut(string(signed), "\n\n")
	if !ok {
		return Checkpoint{}, holdfast.Errorf(holdfast.Invalid, "not a signed checkpoint")
	}
	c, err := read(text + "\n")
	c.Note = signed
	return c, err
}

func read(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[0] == "" {
		return Checkpoint{}, holdfast.Errorf(holdfast.Invalid, "the checkpoint has too few lines")
	}
	size, err := Size(lines[1])
	if err != nil {
		return Checkpoint{}, holdfast.Errorf(holdfast.Invalid, "the checkpoint has no size")
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return Checkpoint{}, holdfast.Errorf(holdfast.Invalid, "the checkpoint has no root hash")
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: root}, nil
}

// MaxSize is how many leaves a tree has at most. Package tlog does not come to an
// end with more, and a checkpoint may be anybody's.
const MaxSize = 1 << 62

// Size reads a size as these texts write it: decimal, without leading zeroes.
func Size(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err == nil && (n > MaxSize || strconv.FormatUint(n, 10) != s) {
		err = strconv.ErrSyntax
	}
	return n, err
}
