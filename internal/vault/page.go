package vault

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// PageEntries is how many owner keys a page takes before the next one begins. A
// rotation that destroys one of a million owners writes a page and a head, which
// lists the pages: together they are smallest at about this number.
const PageEntries = 1000

// page wraps owner keys under a key of its own. A page only grows until it is
// full; one that must lose an entry is replaced by a page with a fresh key. Its
// entries stay in the file.
type page struct {
	id      [16]byte
	cipher  *seal.Cipher // holds the page's key
	entries int          // in its file
	torn    int          // where the file has an entry that can't be read, -1 if it has none
}

// slot is where an owner's entry stands: the page's number and, in it, the
// entry's.
type slot uint32

func slotAt(page, entry int) slot { return slot(page*PageEntries + entry) }

func (s slot) page() int     { return int(s) / PageEntries }
func (s slot) entry() int    { return int(s) % PageEntries }
func (s slot) offset() int64 { return entryOffset(s.entry()) }

func entryOffset(i int) int64 { return pageHeaderSize + int64(i)*entrySize }

// entry is one owner key, still wrapped.
type entry struct {
	owner Owner
	id    seal.KeyID
	box   []byte // of the page's bytes
}

const wrappedKey = 32 + seal.Overhead

func newPage() *page {
	return &page{id: holdfast.NewID[[16]byte](), cipher: seal.NewCipher(seal.NewKey()), torn: -1}
}

// wrapKey appends the page's key, wrapped by the root key of generation n.
func (p *page) wrapKey(b []byte, root *seal.Cipher, n uint64) ([]byte, error) {
	var room [len(seal.Key{})]byte
	k, err := p.cipher.AppendKey(room[:0])
	defer clear(k)
	if err != nil {
		return b, err
	}
	return root.Seal(b, k, seal.PagePlace(p.id, n))
}

func (p *page) name() string { return "page-" + hex.EncodeToString(p.id[:]) }

// The file, version 1; docs/format/keyring.md draws it.
const (
	pageMagic      = "HFKP\x01"
	pageHeaderSize = 5 + 16 + 16
	entrySize      = 16 + 16 + wrappedKey + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (p *page) header(ring [16]byte) []byte {
	b := make([]byte, 0, pageHeaderSize+PageEntries*entrySize)
	b = append(b, pageMagic...)
	b = append(b, ring[:]...)
	return append(b, p.id[:]...)
}

// append wraps the key of o, called id, and appends its entry to b.
func (p *page) append(b []byte, o Owner, k *seal.Key, id seal.KeyID) ([]byte, error) {
	start := len(b)
	b = append(b, o[:]...)
	b = append(b, id[:]...)
	b, err := p.cipher.Seal(b, k[:], seal.EntryPlace(o, p.id, id))
	if err != nil {
		return b, err
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli)), nil
}

// unwrap puts the key of an entry into k.
func (p *page) unwrap(k *seal.Key, e *entry) error {
	if err := p.cipher.UnwrapInto(k, e.box, e.id, seal.EntryPlace(e.owner, p.id, e.id)); err != nil {
		return fmt.Errorf("unwrap owner key of %s in %s: %w", e.owner, p.name(), err)
	}
	return nil
}

// parseEntry reads one entry; it is false for one that is short or damaged.
func parseEntry(b []byte) (e entry, ok bool) {
	if len(b) < entrySize || crc32.Checksum(b[:entrySize-4], castagnoli) != binary.BigEndian.Uint32(b[entrySize-4:]) {
		return e, false
	}
	copy(e.owner[:], b)
	copy(e.id[:], b[16:])
	e.box = b[32 : 32+wrappedKey : 32+wrappedKey]
	return e, true
}

// read calls f with the entries of p's file, in order, and returns where it met
// something that can't be read, -1 if it did not.
func (p *page) read(ring [16]byte, b []byte, f func(i int, e *entry) error) (bad int, err error) {
	if len(b) < pageHeaderSize || string(b[:pageHeaderSize]) != string(p.header(ring)) {
		return 0, nil
	}
	var e entry // one for all: f does not keep it
	for i, at := 0, pageHeaderSize; at < len(b); i, at = i+1, at+entrySize {
		var ok bool
		if e, ok = parseEntry(b[at:min(at+entrySize, len(b))]); !ok {
			return at, nil
		}
		if err := f(i, &e); err != nil {
			return -1, err
		}
	}
	return -1, nil
}
