package vault

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

func headName(n uint64) string { return fmt.Sprintf("head-%020d", n) }

// The file, version 1; docs/format/keyring.md draws it.
const (
	headMagic    = "HFKH\x01"
	pageRefSize  = 16 + 16 + wrappedKey
	generationAt = 5 + 16
)

// writeHead writes the head of this generation: who opens the root key, which
// wraps the key of each page. A last box over nothing authenticates the rest.
func (r *keyring) writeHead(place Place) (err error) {
	b := make([]byte, 0, generationAt+8+1+(len(r.boxes)+1)*400+4+len(r.pages)*pageRefSize+seal.Overhead)
	b = append(b, headMagic...)
	b = append(b, r.id[:]...)
	b = binary.BigEndian.AppendUint64(b, r.generation)
	boxes := r.boxes
	if r.escrow != nil {
		boxes = append(slices.Clip(boxes), *r.escrow)
	}
	b = append(b, byte(len(boxes)))
	for _, h := range boxes {
		b = append(b, byte(len(h.name)))
		b = append(b, h.name...)
		b = binary.BigEndian.AppendUint16(b, uint16(len(h.box)))
		b = append(b, h.box...)
	}
	var root *seal.Cipher
	seal.Quiet(func() { root = seal.NewCipher(r.root) })
	defer root.Wipe()
	count := len(b)
	b = binary.BigEndian.AppendUint32(b, 0)
	var n uint32
	for _, p := range r.pages {
		if p == nil {
			continue
		}
		n++
		id := p.cipher.ID()
		b = append(b, p.id[:]...)
		b = append(b, id[:]...)
		if b, err = p.wrapKey(b, root, r.generation); err != nil {
			return err
		}
	}
	binary.BigEndian.PutUint32(b[count:], n)
	if b, err = root.Seal(b, nil, seal.FieldPlace(r.id, "keyring", b, "head")); err != nil {
		return err
	}
	return place.Write(headName(r.generation), b)
}

// head is a parsed head file, not yet opened.
type head struct {
	ring       [16]byte
	generation uint64
	boxes      []holderBox // of holders
	escrow     *holderBox
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
	h.boxes, h.escrow = splitEscrow(h.boxes)
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

// HeadParts is what a head's file says without a key.
type HeadParts struct {
	Ring       [16]byte // tells one hub's keyring from another's
	Generation uint64
	Boxes      map[string][]byte // what each holder of the root key has to open, by name
	Escrow     bool              // it is wrapped to shareholders, too
}

// Parts reads a head's file. Whether it was altered shows when it is opened.
func Parts(file []byte) (HeadParts, error) {
	h, err := parseHead(file)
	if err != nil {
		return HeadParts{}, err
	}
	p := HeadParts{Ring: h.ring, Generation: h.generation, Boxes: map[string][]byte{}, Escrow: h.escrow != nil}
	for _, b := range h.boxes {
		p.Boxes[b.name] = b.box
	}
	return p, nil
}

// Escrowed reports whether a keyring's newest root key is wrapped to shareholders, too.
func Escrowed(place Place) (bool, error) {
	heads, err := readHeads(place)
	if err != nil || len(heads) == 0 {
		return false, err
	}
	return slices.MaxFunc(heads, func(a, b head) int { return cmp.Compare(a.generation, b.generation) }).escrow != nil, nil
}
