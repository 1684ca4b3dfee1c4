package seal

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/holdfast-iot/holdfast"
)

// formatVersion is the first byte of all associated data.
const formatVersion = 1

// kind says what a box holds. The numbers are part of the format.
type kind uint8

const (
	kindChunk   kind = 1 // an encoded chunk in a segment
	kindSummary kind = 2 // a chunk's summary
	kindJournal kind = 3 // a journal record's content
	kindList    kind = 4 // a key list
	kindEntry   kind = 5 // an owner key in a keyring page
	kindPage    kind = 6 // a page key in the keyring's head
	kindField   kind = 7 // a catalog column
	kindRoot    kind = 8 // a root key as a holder keeps it
	kindArrival kind = 9 // where a chunk's readings stood in the journal
)

const (
	placeMax = 44
	adMax    = 1 + 1 + 16 + 16 + placeMax
)

// Place says what a box is and where it stands. It becomes the associated data:
//
//	format version (1) ‖ kind (1) ‖ key id (16) ‖ owner or assignment (16) ‖ place
//
// Each kind's place has one fixed length, so no two places share their bytes.
type Place struct {
	kind  kind
	owner [16]byte
	n     int
	at    [placeMax]byte
}

func (p Place) associated(dst []byte, id KeyID) []byte {
	dst = append(dst, formatVersion, byte(p.kind))
	dst = append(dst, id[:]...)
	dst = append(dst, p.owner[:]...)
	return append(dst, p.at[:p.n]...)
}

func (p *Place) bytes(b []byte) { p.n += copy(p.at[p.n:], b) }
func (p *Place) u32(v uint32)   { binary.BigEndian.PutUint32(p.at[p.n:], v); p.n += 4 }
func (p *Place) u64(v uint64)   { binary.BigEndian.PutUint64(p.at[p.n:], v); p.n += 8 }

// ChunkPlace is where a chunk stands: stream, bucket, random chunk id, rows.
func ChunkPlace(a holdfast.AssignmentID, s holdfast.StreamID, b Bucket, chunk [16]byte, rows uint32) Place {
	return streamPlace(kindChunk, a, s, b, chunk, rows)
}

// SummaryPlace is where the summary of a chunk stands.
func SummaryPlace(a holdfast.AssignmentID, s holdfast.StreamID, b Bucket, chunk [16]byte, rows uint32) Place {
	return streamPlace(kindSummary, a, s, b, chunk, rows)
}

// ArrivalPlace is where it stands in which order a chunk's readings arrived.
func ArrivalPlace(a holdfast.AssignmentID, s holdfast.StreamID, b Bucket, chunk [16]byte, rows uint32) Place {
	return streamPlace(kindArrival, a, s, b, chunk, rows)
}

func streamPlace(k kind, a holdfast.AssignmentID, s holdfast.StreamID, b Bucket, chunk [16]byte, rows uint32) Place {
	p := Place{kind: k, owner: a}
	p.bytes(s[:])
	p.u32(uint32(b))
	p.bytes(chunk[:])
	p.u32(rows)
	return p
}

// JournalPlace is where a journal record stands: the writing process and its
// count.
func JournalPlace(a holdfast.AssignmentID, writer [16]byte, counter uint64) Place {
	p := Place{kind: kindJournal, owner: a}
	p.bytes(writer[:])
	p.u64(counter)
	return p
}

// ListPlace is where a key list stands. The owner key that seals it is in the
// associated data by its id.
func ListPlace(owner [16]byte, b Bucket) Place {
	p := Place{kind: kindList, owner: owner}
	p.u32(uint32(b))
	return p
}

// EntryPlace is where an owner key stands in the keyring: its page and its own
// id.
func EntryPlace(owner, page [16]byte, key KeyID) Place {
	p := Place{kind: kindEntry, owner: owner}
	p.bytes(page[:])
	p.bytes(key[:])
	return p
}

// PagePlace is where a page key stands in the head of generation n.
func PagePlace(page [16]byte, n uint64) Place {
	p := Place{kind: kindPage, owner: page}
	p.u64(n)
	return p
}

// RootPlace is where a holder keeps root key n of the keyring called ring.
func RootPlace(ring [16]byte, n uint64) Place {
	p := Place{kind: kindRoot, owner: ring}
	p.u64(n)
	return p
}

// FieldPlace is where a sealed catalog column stands. Table, row and column may
// have any length; their place is the SHA-256 of each behind its length.
func FieldPlace(owner [16]byte, table string, row []byte, column string) Place {
	h := sha256.New()
	var n [4]byte
	for _, part := range [][]byte{[]byte(table), row, []byte(column)} {
		binary.BigEndian.PutUint32(n[:], uint32(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	p := Place{kind: kindField, owner: owner}
	var sum [sha256.Size]byte
	p.bytes(h.Sum(sum[:0]))
	return p
}
