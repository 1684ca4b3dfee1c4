package vault

import (
	"context"
	"time"

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
// returns, and that after Destroy(n) has returned nil no box of a generation
// before n opens again, whatever copies of the box exist. The vault does not take
// its word for that: it tries. A number of a generation is used once: the vault
// never prepares one again that a rotation gave up.
//
// A method that can't be done now is Unavailable, and returns soon after its
// context has ended. Methods are called by one process, one at a time.
type Holder interface {
	// Name tells the holder from others, for certificates and messages.
	Name() string
	// Kind is what it is: "file", "tpm" or "exec".
	Kind() string
	Grade() Grade
	// Generations returns those that boxes can be sealed and opened of, ascending. A
	// rotation that was given up leaves one above that in force.
	Generations(ctx context.Context) ([]uint64, error)
	// Prepare makes the holder able to seal and open generation n. If it is already,
	// that is success, and what was sealed still opens.
	Prepare(ctx context.Context, n uint64) error
	// Seal wraps the root key of generation n; the box is kept in the keyring, at most
	// 65,535 bytes.
	Seal(ctx context.Context, n uint64, root seal.Key) ([]byte, error)
	// Open unwraps it. It is NotFound for a generation that the holder does not hold,
	// and Denied for a box that is not its own.
	Open(ctx context.Context, n uint64, box []byte) (seal.Key, error)
	// Destroy makes every generation before below unopenable for good and returns
	// evidence of it, if the holder can give any. After an error each of them is
	// destroyed for good, or not for good, or not at all; if not at all, it is among
	// Generations. Called again, it makes sure; of what it does not hold it is success.
	Destroy(ctx context.Context, below uint64) (evidence []byte, err error)
}

// Fenced is a holder that is not asked any more, and may still open what it held
// when it was last asked: certificates name it as pending.
type Fenced struct {
	Name, Kind string
	Grade      Grade
	Vouched    string
	Since      time.Time
}

// The states of a holder in a certificate.
const (
	HolderDestroyed = "destroyed" // it has said so, and its box does not open
	HolderPending   = "pending"   // it is fenced: nobody has asked it
)

// HolderEvidence is what one holder says of a destruction.
type HolderEvidence struct {
	Holder string `json:"holder"`
	Kind   string `json:"kind,omitempty"`
	Grade  Grade  `json:"grade"`
	// Vouched is who answers for the grade, where the holder can't show it.
	Vouched  string    `json:"vouched,omitempty"`
	State    string    `json:"state,omitempty"`
	At       time.Time `json:"at,omitzero"` // of its answer; of a pending one, since when it is fenced
	Evidence []byte    `json:"evidence,omitempty"`
}

// Registered gives a holder the name under which it is registered. vouched is who
// answers for its grade being Purge; empty: the grade is the holder's own.
func Registered(h Holder, name, vouched string) Holder { return registered{h, name, vouched} }

type registered struct {
	Holder
	name, vouched string
}

func (r registered) Name() string { return r.name }

func (r registered) Grade() Grade {
	if r.vouched != "" {
		return Purge
	}
	return r.Holder.Grade()
}

func (r registered) vouchedBy() string { return r.vouched }

// evidence is what h says now.
func evidence(h Holder, state string, said []byte) HolderEvidence {
	e := HolderEvidence{Holder: h.Name(), Kind: h.Kind(), Grade: h.Grade(), State: state, At: time.Now().UTC(), Evidence: said}
	if r, ok := h.(interface{ vouchedBy() string }); ok {
		e.Vouched = r.vouchedBy()
	}
	return e
}
