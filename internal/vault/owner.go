package vault

import (
	"crypto/sha256"

	"github.com/holdfast-iot/holdfast"
)

// Owner is whoever has an owner key: a party, an assignment, or the hub.
type Owner [16]byte

// Hub is the owner of what belongs to nobody: the hub's own keys, profiles,
// units that nobody has claimed.
var Hub = hub()

func hub() Owner {
	sum := sha256.Sum256([]byte("holdfast hub"))
	return Owner(sum[:16])
}

// OfParty returns the owner whose key seals what is known about a party.
func OfParty(id holdfast.PartyID) Owner { return Owner(id) }

// OfAssignment returns the owner whose key seals an assignment's data.
func OfAssignment(id holdfast.AssignmentID) Owner { return Owner(id) }

func (o Owner) String() string { return holdfast.PartyID(o).String() }
