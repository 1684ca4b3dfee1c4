package chunk

import (
	"encoding/binary"

	"github.com/holdfast-iot/holdfast"
)

// reader walks over the bytes of a chunk. After the first error every read gives
// zero, so that a column is read in straight lines and checked at its end.
type reader struct {
	b   []byte
	err error
}

func damaged(what string) error {
	return holdfast.Errorf(holdfast.Invalid, "damaged: %s", what)
}

// fail records the first thing found wrong.
func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = damaged(what)
		r.b = nil
	}
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("it ends early")
		return 0
	}
	b := r.b[0]
	r.b = r.b[1:]
	return b
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("variable-length number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// varint reads a zigzag number: 0, -1, 1, -2, ...
func (r *reader) varint() int64 { return unzigzag(r.uvarint()) }

// take returns the next n bytes, nil if there are fewer.
func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail("it ends early")
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// appendVarint appends v as reader.varint reads it.
func appendVarint(dst []byte, v int64) []byte {
	return binary.AppendUvarint(dst, zigzag(v))
}
