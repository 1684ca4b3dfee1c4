package checkpoint

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
)

// Consistency is a proof that the log of a checkpoint still begins with the leaves
// that it had when there were Old of them.
type Consistency struct {
	Old    uint64
	Hashes []tlog.Hash // RFC 6962, section 2.1.2; none if Old is 0 or the checkpoint's own size
	Note   []byte      // the newer checkpoint, signed
}

// MaxText bounds the text of a Consistency: 63 hashes and a checkpoint with many
// cosignatures.
const MaxText = 64 << 10

// maxHashes is how many lines a proof may have.
const maxHashes = 63

// MarshalText writes the proof as a witness takes it.
func (c Consistency) MarshalText() ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", c.Old)
	for _, h := range c.Hashes {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteByte('\n')
	b.Write(c.Note)
	return b.Bytes(), nil
}

// UnmarshalText reads what MarshalText wrote; the checkpoint is not looked at.
func (c *Consistency) UnmarshalText(text []byte) error {
	head, rest, ok := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	old, found := strings.CutPrefix(lines[0], "old ")
	size, err := Size(old)
	if !ok || !found || err != nil || len(lines) > 1+maxHashes {
		return holdfast.Errorf(holdfast.Invalid, "not a consistency proof: it begins with \"old SIZE\", then has up to %d hashes, an empty line and a checkpoint", maxHashes)
	}
	read := Consistency{Old: size, Note: []byte(rest)}
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			return holdfast.Errorf(holdfast.Invalid, "a line of the consistency proof is not a hash in base64")
		}
		read.Hashes = append(read.Hashes, h)
	}
	*c = read
	return nil
}

// IsConsistency reports whether b looks like the text of a Consistency.
func IsConsistency(b []byte) bool { return bytes.HasPrefix(b, []byte("old ")) }

// Grown checks that a tree with root newRoot over newSize leaves begins with the one
// that has root oldRoot over oldSize.
func Grown(hashes []tlog.Hash, oldSize uint64, oldRoot tlog.Hash, newSize uint64, newRoot tlog.Hash) error {
	switch {
	case newSize > MaxSize:
		return holdfast.Errorf(holdfast.Invalid, "no tree has %d leaves", newSize)
	case oldSize > newSize:
		return holdfast.Errorf(holdfast.Invalid, "the newer tree has %d leaves, the older one %d: the log was put back", newSize, oldSize)
	case oldSize == newSize && oldRoot != newRoot:
		return holdfast.Errorf(holdfast.Invalid, "two trees of %d leaves have different roots: the log was changed", oldSize)
	case oldSize == 0 || oldSize == newSize:
		if len(hashes) > 0 {
			return holdfast.Errorf(holdfast.Invalid, "a consistency proof from %d to %d leaves has no hashes", oldSize, newSize)
		}
		return nil
	}
	if tlog.CheckTree(hashes, int64(newSize), newRoot, int64(oldSize), oldRoot) != nil {
		return holdfast.Errorf(holdfast.Invalid, "the tree of %d leaves does not begin with the one of %d: the log was changed", newSize, oldSize)
	}
	return nil
}
