package series

import (
	"context"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
	"github.com/holdfast-iot/holdfast/internal/seal"
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
	if err := u.open(ctx, o, r.at, r.size, r.chunkPlace(r.extent.rows)); err != nil {
		return err
	}
	if err := chunk.Decode(u.plain, cols); err != nil {
		return r.damaged(err)
	}
	if cols.Len() != int(r.extent.rows) {
		return r.damaged(errRows)
	}
	return nil
}

// minutes decodes a chunk's summary, which there is, into m.
func (u *unsealer) minutes(ctx context.Context, o openChunk, m *chunk.Minutes) error {
	r := o.row
	if err := u.open(ctx, o, r.at+int64(r.size), r.summary, r.summaryPlace()); err != nil {
		return err
	}
	if err := chunk.DecodeMinutes(u.plain, m); err != nil {
		return r.damaged(err)
	}
	if m.Rows() != int(r.extent.rows) {
		return r.damaged(errRows)
	}
	return nil
}

var errRows = holdfast.Errorf(holdfast.Invalid, "it has another number of rows than its extent says")

// open opens a box of a chunk's segment into u.plain.
func (u *unsealer) open(ctx context.Context, o openChunk, at int64, size int, place seal.Place) (err error) {
	r := o.row
	if cap(u.box) < size {
		u.box = make([]byte, size)
	}
	u.box = u.box[:size]
	if err := u.s.blobs.ReadAt(ctx, r.blob, u.box, at); err != nil {
		return u.s.unreadable(ctx, r, err)
	}
	if u.plain, err = o.cipher.Open(u.plain[:0], u.box, place); err != nil {
		return u.s.unreadable(ctx, r, err)
	}
	return nil
}
