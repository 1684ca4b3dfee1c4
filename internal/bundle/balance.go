package bundle

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/bits"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Balance is the balance sheet of a stream: what must be there, whatever form it
// takes and in whatever order. It finds loss, not fraud: against that stands the
// signature.
type Balance struct {
	Stream holdfast.StreamID `json:"stream"`
	Rows   uint64            `json:"rows"`
	First  time.Time         `json:"first,omitzero"` // the earliest time of a reading
	Last   time.Time         `json:"last,omitzero"`
	Digest string            `json:"digest"`
}

// Tally adds up a balance. The zero value is empty.
//
// The digest is the sum of the SHA-256 hashes of all rows (AppendRow), each read
// as a big-endian number, modulo 2^256. A sum does not depend on the order, and
// unlike an exclusive or it sees a row that is there twice.
type Tally struct {
	rows        uint64
	first, last int64
	sum         [4]uint64 // the lowest 64 bits first
	row         []byte
}

// Add takes in a reading.
func (t *Tally) Add(stream holdfast.StreamID, r holdfast.Reading) {
	if t.rows == 0 {
		t.first, t.last = r.Time, r.Time
	}
	t.first, t.last = min(t.first, r.Time), max(t.last, r.Time)
	t.rows++
	t.row = AppendRow(t.row[:0], stream, r)
	h := sha256.Sum256(t.row)
	var carry uint64
	for i := range t.sum {
		t.sum[i], carry = bits.Add64(t.sum[i], binary.BigEndian.Uint64(h[24-8*i:]), carry)
	}
}

// Balance returns the sheet so far.
func (t *Tally) Balance(stream holdfast.StreamID) Balance {
	b := Balance{Stream: stream, Rows: t.rows}
	if t.rows > 0 {
		b.First, b.Last = time.Unix(0, t.first).UTC(), time.Unix(0, t.last).UTC()
	}
	var sum []byte
	for i := range t.sum {
		sum = binary.BigEndian.AppendUint64(sum, t.sum[len(t.sum)-1-i])
	}
	b.Digest = "sha256-sum:" + hex.EncodeToString(sum)
	return b
}

// AppendRow appends a reading's canonical bytes, all numbers big-endian:
//
//	stream id (16) ‖ time (8) ‖ sequence (8) ‖ marks (1) ‖ type (1) ‖ value
//
// and the value is 8 bytes IEEE 754 of a number; 8 bytes two's complement of an
// integer; 1 byte, 0 or 1, of a boolean; the bytes of a text (UTF-8) or of bytes;
// 3 times 8 bytes IEEE 754 of a location's latitude, longitude and altitude.
func AppendRow(dst []byte, stream holdfast.StreamID, r holdfast.Reading) []byte {
	dst = append(dst, stream[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Time))
	dst = binary.BigEndian.AppendUint64(dst, r.Seq)
	dst = append(dst, byte(r.Mark), byte(r.Value.Type()))
	switch v := r.Value; v.Type() {
	case holdfast.Number:
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(v.Number()))
	case holdfast.Integer:
		return binary.BigEndian.AppendUint64(dst, uint64(v.Integer()))
	case holdfast.Boolean:
		if v.Boolean() {
			return append(dst, 1)
		}
		return append(dst, 0)
	case holdfast.Text, holdfast.Bytes:
		return append(dst, v.Text()...)
	case holdfast.Location:
		p := v.Position()
		for _, f := range []float64{p.Latitude, p.Longitude, p.Altitude} {
			dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(f))
		}
	}
	return dst
}
