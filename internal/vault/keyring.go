package vault

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// PageEntries is how many owner keys a page takes before the next one begins.
const PageEntries = 1000

// keyring is the owner keys of one generation, as the place has them.
type keyring struct {
	id         [16]byte
	generation uint64
	root       seal.Key
	boxes      []holderBox // the root key, once per holder
	pages      []*page
	owners     map[Owner]entry
}

type holderBox struct {
	name string
	box  []byte
}

// page wraps owner keys under a key of its own. A page only grows until it is
// full; one that must lose an entry is replaced by a page with a fresh key.
type page struct {
	id     [16]byte
	key    seal.Key
	cipher *seal.Cipher
	owners []Owner // in file order
	torn   int     // where the file has a last entry that can't be read, 0 if it has none
}

// entry is one owner key, still wrapped.
type entry struct {
	page *page
	id   seal.KeyID
	box  [wrappedKey]byte
}

const wrappedKey = 32 + seal.Overhead

func newPage() *page {
	p := &page{id: holdfast.NewID[[16]byte](), key: seal.NewKey()}
	p.cipher = seal.NewCipher(p.key)
	return p
}

func (p *page) name() string { return "page-" + hex.EncodeToString(p.id[:]) }

func headName(n uint64) string { return fmt.Sprintf("head-%020d", n) }

// wrap makes the entry of an owner key in this page.
func (p *page) wrap(o Owner, k seal.Key) entry {
	e := entry{page: p, id: k.ID()}
	p.cipher.Wrap(e.box[:0], k, seal.EntryPlace(o, p.id, e.id))
	return e
}

// key unwraps the owner key of o.
func (r *keyring) key(o Owner) (seal.Key, seal.KeyID, error) {
	e, ok := r.owners[o]
	if !ok {
		return seal.Key{}, seal.KeyID{}, holdfast.Errorf(holdfast.NotFound, "owner %s has no key: it was erased or never made", o)
	}
	k, err := e.page.cipher.Unwrap(e.box[:], e.id, seal.EntryPlace(o, e.page.id, e.id))
	if err != nil {
		return seal.Key{}, seal.KeyID{}, fmt.Errorf("unwrap owner key of %s in %s: %w", o, e.page.name(), err)
	}
	return k, e.id, nil
}

// seal makes a fresh root key and has every holder wrap it.
func (r *keyring) seal(ctx context.Context, holders []Holder) error {
	r.root, r.boxes = seal.NewKey(), nil
	for _, h := range holders {
		if err := h.Prepare(ctx, r.generation); err != nil {
			return fmt.Errorf("prepare root key %d in holder %s: %w", r.generation, h.Name(), err)
		}
		box, err := h.Seal(ctx, r.generation, r.root)
		if err != nil {
			return fmt.Errorf("seal root key %d in holder %s: %w", r.generation, h.Name(), err)
		}
		back, err := h.Open(ctx, r.generation, box)
		if err != nil || back != r.root {
			return fmt.Errorf("holder %s does not give back root key %d: %w", h.Name(), r.generation, err)
		}
		back.Wipe()
		r.boxes = append(r.boxes, holderBox{h.Name(), box})
	}
	return nil
}

// add appends one owner key to the open page, or to a new one.
func (r *keyring) add(place Place, o Owner, k seal.Key) error {
	var p *page
	if n := len(r.pages); n > 0 && len(r.pages[n-1].owners) < PageEntries {
		p = r.pages[n-1]
	} else {
		p = newPage()
		if err := place.Write(p.name(), r.pageHeader(p)); err != nil {
			return err
		}
		r.pages = append(r.pages, p)
		if err := r.writeHead(place); err != nil {
			r.pages = r.pages[:n]
			return err
		}
	}
	e := p.wrap(o, k)
	at := int64(pageHeaderSize + len(p.owners)*entrySize)
	if err := place.Append(p.name(), at, appendEntry(nil, o, e)); err != nil {
		return err
	}
	p.owners, p.torn = append(p.owners, o), 0
	r.owners[o] = e
	return nil
}

func (r *keyring) close() error {
	r.root.Wipe()
	for _, p := range r.pages {
		p.key.Wipe()
	}
	return nil
}

// The files, version 1; docs/format/keyring.md draws them.

const (
	headMagic      = "HFKH\x01"
	pageMagic      = "HFKP\x01"
	pageHeaderSize = 5 + 16 + 16
	entrySize      = 16 + 16 + wrappedKey + 4
	pageRefSize    = 16 + 16 + wrappedKey
	generationAt   = 5 + 16 // in a head
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r *keyring) pageHeader(p *page) []byte {
	b := append([]byte(pageMagic), r.id[:]...)
	return append(b, p.id[:]...)
}

func appendEntry(b []byte, o Owner, e entry) []byte {
	start := len(b)
	b = append(b, o[:]...)
	b = append(b, e.id[:]...)
	b = append(b, e.box[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// pageFile is a whole page, for one that replaces another.
func (r *keyring) pageFile(p *page) []byte {
	b := r.pageHeader(p)
	for _, o := range p.owners {
		b = appendEntry(b, o, r.owners[o])
	}
	return b
}

// writeHead writes the head of this generation: who opens the root key, which
// wraps the key of each page. A last box over nothing authenticates the rest.
func (r *keyring) writeHead(place Place) error {
	b := append([]byte(headMagic), r.id[:]...)
	b = binary.BigEndian.AppendUint64(b, r.generation)
	b = append(b, byte(len(r.boxes)))
	for _, h := range r.boxes {
		b = append(b, byte(len(h.name)))
		b = append(b, h.name...)
		b = binary.BigEndian.AppendUint16(b, uint16(len(h.box)))
		b = append(b, h.box...)
	}
	root := seal.NewCipher(r.root)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.pages)))
	for _, p := range r.pages {
		id := p.key.ID()
		b = append(b, p.id[:]...)
		b = append(b, id[:]...)
		b = root.Wrap(b, p.key, seal.PagePlace(p.id, r.generation))
	}
	b = root.Seal(b, nil, seal.FieldPlace(r.id, "keyring", b, "head"))
	return place.Write(headName(r.generation), b)
}

// head is a parsed head file, not yet opened.
type head struct {
	ring       [16]byte
	generation uint64
	boxes      []holderBox
	pages      []pageRef
	body, tag  []byte // what the last box authenticates, and that box
}

type pageRef struct {
	id  [16]byte
	key seal.KeyID
	box []byte
}

func parseHead(b []byte) (h head, err error) {
	damaged := holdfast.Errorf(holdfast.Invalid, "the keyring's head is damaged")
	r := reader{b: b}
	if magic := r.take(len(headMagic)); string(magic) != headMagic {
		if len(magic) == len(headMagic) && string(magic[:4]) == headMagic[:4] {
			return h, holdfast.Errorf(holdfast.Conflict, "the keyring has format %d, this program knows %d: start the newer holdfast", magic[4], headMagic[4])
		}
		return h, damaged
	}
	copy(h.ring[:], r.take(16))
	h.generation = r.u64()
	for range int(r.u8()) {
		name := string(r.take(int(r.u8())))
		h.boxes = append(h.boxes, holderBox{name, r.take(int(r.u16()))})
	}
	n := int(r.u32())
	if n > len(r.b)/pageRefSize {
		return h, damaged
	}
	for range n {
		var p pageRef
		copy(p.id[:], r.take(16))
		copy(p.key[:], r.take(16))
		p.box = r.take(wrappedKey)
		h.pages = append(h.pages, p)
	}
	h.body = b[:len(b)-len(r.b)]
	h.tag = r.take(seal.Overhead)
	if r.short || len(r.b) > 0 {
		return h, damaged
	}
	return h, nil
}

// reader takes bytes off the front and remembers when there were too few.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.short, r.b = true, nil
		return make([]byte, min(n, 1<<16))
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() uint8   { return r.take(1)[0] }
func (r *reader) u16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
