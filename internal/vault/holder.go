package vault

import (
	"context"

	"github.com/holdfast-iot/holdfast/internal/seal"
)

// Grade says what a holder's destruction of a root key is worth (NIST SP
// 800-88r2).
type Grade string

const (
	// Clear: overwritten as far as the operating system lets one.
	Clear Grade = "clear"
	// Purge: destroyed in hardware that does not give copies.
	Purge Grade = "purge"
)

// Holder holds the root key, one generation or, in the middle of a rotation,
// two. Several may hold the same: any one opens, all must destroy.
//
// A holder promises that what Prepare made survives a power cut before Prepare
// returns, and that after Destroy(n) has returned nil no box of generation n
// opens again, whatever copies of the box exist. Destroying a generation it does
// not hold is success. Methods are called by one process at a time.
type Holder interface {
	// Name tells the holder from others, for certificates and messages.
	Name() string
	Grade() Grade
	// Generations returns those that boxes can still be opened of, ascending.
	Generations(ctx context.Context) ([]uint64, error)
	// Prepare makes the holder able to seal and open generation n.
	Prepare(ctx context.Context, n uint64) error
	// Seal wraps the root key of generation n; the box is kept in the keyring.
	Seal(ctx context.Context, n uint64, root seal.Key) ([]byte, error)
	// Open unwraps it.
	Open(ctx context.Context, n uint64, box []byte) (seal.Key, error)
	// Destroy makes generation n unopenable for good and returns evidence of it, if
	// the holder can give any. After an error n is destroyed for good, or not for
	// good, or not at all; if not at all, it is among Generations. Called again, it
	// makes sure.
	Destroy(ctx context.Context, n uint64) (evidence []byte, err error)
}
