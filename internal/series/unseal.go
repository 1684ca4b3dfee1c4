package series

import (
	"context"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// unsealer reads chunks from their segments. It uses its memory again, so each
// goroutine has its own.
type unsealer struct {
	s          *Series
	box, plain []byte
}

// columns decodes a chunk into cols.
func (u *unsealer) columns(ctx context.Context, o openChunk, cols *chunk.Columns) error {
	r := o.row
	if cap(u.box) < r.size {
		u.box = make([]byte, r.size)
	}
	u.box = u.box[:r.size]
	if err := u.s.blobs.ReadAt(ctx, r.blob, u.box, r.at); err != nil {
		return u.s.unreadable(ctx, r, err)
	}
	plain, err := o.cipher.Open(u.plain[:0], u.box, r.chunkPlace(r.extent.rows))
	if err != nil {
		return u.s.unreadable(ctx, r, err)
	}
	u.plain = plain
	if err := chunk.Decode(plain, cols); err != nil {
		return r.damaged(err)
	}
	if cols.Len() != int(r.extent.rows) {
		return r.damaged(holdfast.Errorf(holdfast.Invalid, "it has another number of rows than its extent says"))
	}
	return nil
}
