package backup

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"hash"
	"slices"
	"strings"
)

// Kinds of pieces.
const (
	KindCatalog = "catalog" // the next PieceSize bytes of the catalog
	KindSegment = "segment" // what the catalog names of a segment
	KindTally   = "tally"   // how many chunks and readings there are of each stream
)

// PieceSize is how long the pieces of a catalog are: a page that changed costs so
// much in the next backup.
const PieceSize = 256 << 10

// Part is a piece as the hub offers it. What has a Tag is named by its content, what
// has none by ID, which says what the content is.
type Part struct {
	Kind string `json:"kind"`
	ID   string `json:"id,omitempty"`
	Size int64  `json:"size"`
	Tag  string `json:"tag,omitempty"`
}

// Done is what whoever ran a backup tells the hub at its end.
type Done struct {
	List       string   `json:"list"`       // SHA-256 of the list of pieces, in hex
	Written    int64    `json:"written"`    // bytes of the pieces that were not there yet
	Recipients []string `json:"recipients"` // whom the pieces are encrypted to
}

const letters32 = "abcdefghijklmnopqrstuvwxyz234567"

var text32 = base32.NewEncoding(letters32).WithPadding(base32.NoPadding)

// tagger makes the tag of a part from its content: a keyed hash, so that nobody
// without the backup can tell whether he knows the content, or make another with
// the same tag.
func tagger(key []byte, p Part) hash.Hash {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("holdfast backup piece\x00" + p.Kind + "\x00" + p.ID + "\x00"))
	return h
}

func tagText(h hash.Hash) string { return text32.EncodeToString(h.Sum(nil)) }

// name is what a piece is stored under, without its tag. Other recipients make
// other names: what is encrypted to somebody who is not meant any more, or not to
// one who is now, is not used again.
func name(key []byte, recipients []string, p Part) string {
	sorted := slices.Sorted(slices.Values(recipients))
	h := hmac.New(sha256.New, key)
	h.Write([]byte("holdfast backup name\x00" + strings.Join(slices.Compact(sorted), "\n") + "\x00" + p.Kind + "\x00"))
	if p.Tag != "" {
		h.Write([]byte("tag\x00" + p.Tag))
	} else {
		h.Write([]byte("id\x00" + p.ID))
	}
	return text32.EncodeToString(h.Sum(nil)[:16])
}

// stateOf is a segment's ID: the same bytes as long as the same of it is named.
func stateOf(blob string, ranges []byte) string {
	sum := sha256.Sum256(ranges)
	return blob + "." + hex.EncodeToString(sum[:12])
}
