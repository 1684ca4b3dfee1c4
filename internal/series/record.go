package series

import (
	"encoding/binary"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// RecordType says what a journal record is for. The numbers are part of the
// format.
type RecordType uint8

const (
	// Readings carries readings of one assignment and, for QoS 2, the packet ids
	// that were received with them.
	Readings RecordType = 1
	// Release carries only packet ids: the end of QoS 2 exchanges.
	Release RecordType = 2
)

func (t RecordType) valid() bool { return t == Readings || t == Release }

// recordVersion is the first byte of every journal record.
const recordVersion = 1

// HeaderSize is the length of a record's clear header.
const HeaderSize = 1 + 1 + 16 + 8 + 16 + 4 + 16 + 8

// Header is the clear part of a journal record: what it takes to find the key
// and to drop the record without opening it.
type Header struct {
	Type       RecordType
	Writer     [16]byte // random per process
	Counter    uint64   // of the writer's records
	Assignment holdfast.AssignmentID
	Bucket     seal.Bucket
	Key        seal.KeyID // the journal key of (Assignment, Bucket)
	Arrival    int64      // ns since 1970; repeated inside the box, where it can't be changed
}

// Place is where the record's box stands.
func (h Header) Place() seal.Place { return seal.JournalPlace(h.Assignment, h.Writer, h.Counter) }

// AppendHeader appends the header's bytes. The record's box follows them.
func AppendHeader(dst []byte, h Header) []byte {
	dst = append(dst, recordVersion, byte(h.Type))
	dst = append(dst, h.Writer[:]...)
	dst = binary.BigEndian.AppendUint64(dst, h.Counter)
	dst = append(dst, h.Assignment[:]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.Bucket))
	dst = append(dst, h.Key[:]...)
	return binary.BigEndian.AppendUint64(dst, uint64(h.Arrival))
}

// ParseHeader reads a record's header and returns its box, which shares data.
func ParseHeader(data []byte) (h Header, box []byte, err error) {
	if len(data) > 0 && data[0] > recordVersion {
		return h, nil, holdfast.Errorf(holdfast.Conflict,
			"the journal record is of version %d, this program knows up to %d: start the newer holdfast that wrote it", data[0], recordVersion)
	}
	if len(data) < HeaderSize+seal.Overhead || data[0] != recordVersion || !RecordType(data[1]).valid() {
		return h, nil, holdfast.Errorf(holdfast.Invalid, "not a journal record")
	}
	h.Type = RecordType(data[1])
	p := data[2:]
	p = p[copy(h.Writer[:], p):]
	h.Counter = binary.BigEndian.Uint64(p)
	p = p[8:]
	p = p[copy(h.Assignment[:], p):]
	h.Bucket = seal.Bucket(binary.BigEndian.Uint32(p))
	p = p[4:]
	p = p[copy(h.Key[:], p):]
	h.Arrival = int64(binary.BigEndian.Uint64(p))
	return h, data[HeaderSize:], nil
}

// AppendRecord appends a whole record: header, and content sealed by c. The
// content is encoded into scratch, which is returned grown for the next call. It
// holds plaintext. It fails if the key was destroyed meanwhile.
func AppendRecord(dst, scratch []byte, h Header, content *Content, c *seal.Cipher) (record, plain []byte, err error) {
	h.Key = c.ID()
	plain = AppendContent(scratch[:0], h, content)
	record, err = c.Seal(AppendHeader(dst, h), plain, h.Place())
	return record, plain, err
}

// OpenRecord opens the box of the record with header h and decodes its content.
// The plaintext goes through scratch, which is returned grown for the next call.
func OpenRecord(scratch []byte, h Header, box []byte, c *seal.Cipher, into *Content) ([]byte, error) {
	plain, err := c.Open(scratch[:0], box, h.Place())
	if err != nil {
		return scratch, err
	}
	return plain, DecodeContent(plain, h, into)
}
