package blob

import (
	"context"
	"iter"

	"github.com/holdfast-iot/holdfast"
)

// Store keeps blobs. All methods are safe for concurrent use. Errors have the
// kinds named here, or Unavailable for what may work later.
type Store interface {
	// Put stores data under a new id; it is durable and whole at return. The same
	// bytes once more are a success, so that work can be run again after a
	// crash; others are a Conflict.
	Put(ctx context.Context, id holdfast.BlobID, data []byte) error

	// ReadAt fills all of p with the blob's bytes from off, or fails: NotFound, or
	// Invalid if the range does not lie in the blob.
	ReadAt(ctx context.Context, id holdfast.BlobID, p []byte, off int64) error

	// Size returns the blob's length in bytes, or NotFound. Punch does not change it.
	Size(ctx context.Context, id holdfast.BlobID) (int64, error)

	// Delete removes a blob, durably at return. A missing one is a success.
	Delete(ctx context.Context, id holdfast.BlobID) error

	// Punch makes n bytes from off zero, durably at return, and gives their space
	// back where the driver can. Doing it again is a success. NotFound, or
	// Invalid if the range does not lie in the blob.
	Punch(ctx context.Context, id holdfast.BlobID, off, n int64) error

	// List yields the ids of all blobs, in no promised order. What is put or
	// deleted meanwhile may be there or not. It ends after the first error.
	List(ctx context.Context) iter.Seq2[holdfast.BlobID, error]
}
