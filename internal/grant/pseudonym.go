package grant

import (
	"context"

	"github.com/holdfast-iot/holdfast"
)

// Pseudonym is what stands for a stream and its device, under one grant, to a
// recipient who may not know them: 32 bytes that are the same each time, and that
// nobody can make of ids without the hub's key.
func (r *Register) Pseudonym(ctx context.Context, recipient holdfast.PartyID, g holdfast.GrantID, s holdfast.StreamID) ([]byte, error) {
	return r.keys.Hash(ctx, "pseudonym", recipient.String()+" "+g.String()+" "+s.String())
}

// FeedKey is the key that cursors of live feeds are sealed with which name this salt.
func (r *Register) FeedKey(ctx context.Context, salt [16]byte) ([]byte, error) {
	return r.keys.Hash(ctx, "feed cursor", string(salt[:]))
}
