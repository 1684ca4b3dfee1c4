package series

import (
	"encoding/binary"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// extent is what is known of a chunk without opening it. The catalog holds it
// sealed under the chunk's own key, so that it dies with the chunk.
type extent struct {
	rows    uint32
	times   holdfast.Span
	arrival holdfast.Span // bounds: those of the readings it was made from
}

// arrived is when a reading of the chunk counts as arrived. Chunks keep no arrival of
// a reading, only the first and the last: within these, a reading arrived when it
// says that it was taken, or later. So none counts as arrived later than it did, but
// for what a device's clock ran ahead by less than would have been marked.
func (e *extent) arrived(r *holdfast.Reading) int64 {
	if r.Mark&holdfast.Clock != 0 { // its time says nothing
		return e.arrival.From
	}
	return min(max(r.Time, e.arrival.From), e.arrival.To)
}

// expired reports whether all of the chunk arrived before since.
func (e *extent) expired(since int64) bool { return e.arrival.To < since }

// straddles reports whether a part of the chunk may have arrived before since.
func (e *extent) straddles(since int64) bool { return e.arrival.From < since }

const (
	extentVersion = 1
	extentSize    = 1 + 4 + 4*8
)

// place is where the extent of r stands. Its row count is inside, so that the
// catalog does not tell it.
func (r *chunkRow) extentPlace() seal.Place {
	return seal.SummaryPlace(r.Assignment, r.Stream, r.Bucket, r.id, 0)
}

// summaryPlace is where the summary of r stands.
func (r *chunkRow) summaryPlace() seal.Place {
	return seal.SummaryPlace(r.Assignment, r.Stream, r.Bucket, r.id, r.extent.rows)
}

func (r *chunkRow) chunkPlace(rows uint32) seal.Place {
	return seal.ChunkPlace(r.Assignment, r.Stream, r.Bucket, r.id, rows)
}

func appendExtent(dst []byte, e extent) []byte {
	dst = append(dst, extentVersion)
	dst = binary.BigEndian.AppendUint32(dst, e.rows)
	for _, v := range [...]int64{e.times.From, e.times.To, e.arrival.From, e.arrival.To} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(v))
	}
	return dst
}

func parseExtent(b []byte) (e extent, err error) {
	if len(b) != extentSize || b[0] != extentVersion {
		return e, holdfast.Errorf(holdfast.Invalid, "the extent of a chunk is damaged or of a newer version")
	}
	e.rows = binary.BigEndian.Uint32(b[1:])
	for i, v := range [...]*int64{&e.times.From, &e.times.To, &e.arrival.From, &e.arrival.To} {
		*v = int64(binary.BigEndian.Uint64(b[5+8*i:]))
	}
	if e.rows == 0 || e.times.From > e.times.To {
		return e, holdfast.Errorf(holdfast.Invalid, "the extent of a chunk is damaged")
	}
	return e, nil
}

// openExtent returns the extent of r, opened with the key of its cell.
func (r *chunkRow) openExtent(c *seal.Cipher) (extent, error) {
	if r.opened {
		return r.extent, nil
	}
	var buf [extentSize]byte
	plain, err := c.Open(buf[:0], r.box, r.extentPlace())
	if err != nil {
		return extent{}, r.damaged(err)
	}
	e, err := parseExtent(plain)
	if err != nil {
		return extent{}, r.damaged(err)
	}
	return e, nil
}

// damaged says which chunk can't be read, by where it stands.
func (r *chunkRow) damaged(err error) error {
	return holdfast.Errorf(holdfast.Internal, "read chunk of %d bytes at offset %d of segment %s: %w", r.size, r.at, r.blob, err)
}
