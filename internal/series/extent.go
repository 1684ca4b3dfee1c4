package series

import (
	"encoding/binary"
	"sync"

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

const (
	extentVersion = 1
	extentSize    = 1 + 4 + 4*8
)

// place is where the extent of r stands. Its row count is inside, so that the
// catalog does not tell it.
func (r *chunkRow) extentPlace() seal.Place {
	return seal.SummaryPlace(r.Assignment, r.Stream, r.Bucket, r.id, 0)
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

// openExtent opens the extent of r with the key of its cell.
func (s *Series) openExtent(r *chunkRow, c *seal.Cipher) (extent, error) {
	if e, ok := s.extents.get(r.id); ok {
		return e, nil
	}
	var buf [extentSize]byte
	plain, err := c.Open(buf[:0], r.extent, r.extentPlace())
	if err != nil {
		return extent{}, r.damaged(err)
	}
	e, err := parseExtent(plain)
	if err != nil {
		return extent{}, r.damaged(err)
	}
	s.extents.put(r.id, e)
	return e, nil
}

// damaged says which chunk can't be read, by where it stands.
func (r *chunkRow) damaged(err error) error {
	return holdfast.Errorf(holdfast.Internal, "read chunk of %d bytes at offset %d of segment %s: %w", r.size, r.at, r.blob, err)
}

// extentCache keeps opened extents, so that a query over thousands of chunks does
// not open thousands of boxes again. It keeps between half of extentsMax and all of
// it: the newer half and what of the older was used since.
type extentCache struct {
	mu         sync.Mutex
	young, old map[[16]byte]extent
}

const extentsMax = 1 << 17

func (c *extentCache) get(id [16]byte) (extent, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.young[id]; ok {
		return e, true
	}
	e, ok := c.old[id]
	if ok {
		c.add(id, e)
	}
	return e, ok
}

func (c *extentCache) put(id [16]byte, e extent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(id, e)
}

func (c *extentCache) add(id [16]byte, e extent) {
	if c.young == nil || len(c.young) >= extentsMax/2 {
		c.old, c.young = c.young, map[[16]byte]extent{}
	}
	c.young[id] = e
}

func (c *extentCache) forget(rows []chunkRow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range rows {
		delete(c.young, rows[i].id)
		delete(c.old, rows[i].id)
	}
}
