package holdfast

import (
	"crypto/rand"
	"database/sql/driver"
	"encoding/base32"
	"fmt"
)

// IDSize is the length of an ID in bytes.
const IDSize = 16

// ID is a random 128-bit name of one kind of thing. The type parameter keeps a
// device's id from being passed for a party's; it has no other use.
//
// Ids are random so that they say nothing about whom they name: they may stand
// in clear catalog columns, in certificates and in the ledger's take-backs.
type ID[kind any] [IDSize]byte

type (
	party      struct{}
	unit       struct{}
	device     struct{}
	assignment struct{}
	stream     struct{}
	grant      struct{}
	disclosure struct{}
	erasure    struct{}
	credential struct{}
	blob       struct{}
	hold       struct{}
	group      struct{}
	permission struct{}
	transfer   struct{}
	membership struct{}
	notice     struct{}
	joint      struct{}
	webhook    struct{}
	delivery   struct{}
	alarm      struct{}
	command    struct{}
	retraction struct{}
)

// The ids of the word list.
type (
	PartyID      = ID[party]
	UnitID       = ID[unit]
	DeviceID     = ID[device]
	AssignmentID = ID[assignment]
	StreamID     = ID[stream]
	GrantID      = ID[grant]
	DisclosureID = ID[disclosure]
	ErasureID    = ID[erasure]
	CredentialID = ID[credential] // a person's or program's certificate or token
	BlobID       = ID[blob]       // a segment or another stored object
	HoldID       = ID[hold]       // a restriction, an objection or a legal hold
	GroupID      = ID[group]      // devices declared to be asked about together
	PermissionID = ID[permission] // of staff to read an owner's data for a while
	TransferID   = ID[transfer]   // of a unit from one owner to the next
	MembershipID = ID[membership] // of a party in a household or an organisation
	NoticeID     = ID[notice]     // that a device is to be released
	JointID      = ID[joint]      // an erasure that waits for the word of several
	WebhookID    = ID[webhook]    // an address that is told what happens
	DeliveryID   = ID[delivery]   // a message on its way to a webhook or by mail
	AlarmID      = ID[alarm]      // a rule that warns
	CommandID    = ID[command]    // something that a device is to do
	RetractionID = ID[retraction] // word to a recipient that what he was given is erased
)

var idText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewID returns a fresh random id: NewID[PartyID]().
func NewID[I ~[IDSize]byte]() I {
	var b [IDSize]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return I(b)
}

// ParseID reads the 26 characters that ID.String writes: ParseID[PartyID](text).
func ParseID[I ~[IDSize]byte](s string) (I, error) {
	var id [IDSize]byte
	if len(s) != idText.EncodedLen(IDSize) {
		return I(id), Errorf(Invalid, "an id has %d characters, not %d", idText.EncodedLen(IDSize), len(s))
	}
	b, err := idText.DecodeString(s)
	if err != nil {
		return I(id), Errorf(Invalid, "an id has letters a-z and digits 2-7 only")
	}
	copy(id[:], b)
	if idText.EncodeToString(id[:]) != s { // the last character carries unused bits: one text per id
		return I{}, Errorf(Invalid, "not an id")
	}
	return I(id), nil
}

// String returns the id as 26 lower-case base32 characters (RFC 4648, unpadded).
func (id ID[kind]) String() string {
	var b [26]byte
	idText.Encode(b[:], id[:])
	return string(b[:])
}

// IsZero reports whether id names nothing.
func (id ID[kind]) IsZero() bool { return id == ID[kind]{} }

// MarshalText is String, for JSON.
func (id ID[kind]) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseID; the empty text is the zero id.
func (id *ID[kind]) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*id = ID[kind]{}
		return nil
	}
	v, err := ParseID[ID[kind]](string(b))
	if err == nil {
		*id = v
	}
	return err
}

// Value stores the id as 16 bytes, the zero id as NULL.
func (id ID[kind]) Value() (driver.Value, error) {
	if id.IsZero() {
		return nil, nil
	}
	return id[:], nil
}

// Scan reads what Value stored.
func (id *ID[kind]) Scan(src any) error {
	switch b := src.(type) {
	case nil:
		*id = ID[kind]{}
		return nil
	case []byte:
		if len(b) == IDSize {
			copy(id[:], b)
			return nil
		}
	}
	return fmt.Errorf("scan id: want %d bytes, have %T", IDSize, src)
}
