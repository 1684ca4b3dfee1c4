package server

import (
	"context"
	"errors"

	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Reveal returns every key of a stopped hub, in the clear: what its root key opens.
// It is for the drill alone, which looks for them after an erasure.
func Reveal(ctx context.Context, c Config) (all []vault.Revealed, err error) {
	s, err := openKeyring(ctx, c.withDefaults())
	if err != nil {
		return nil, err
	}
	all, err = s.vault.Reveal(ctx)
	return all, errors.Join(err, s.close())
}
