package bundle

import (
	"encoding/json"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// The records of the NDJSON files: one JSON object a line. Ids are the hub's, so
// that files refer to each other and a bundle can return home. Times are RFC 3339
// in UTC.

// Device is a line of devices.ndjson.
type Device struct {
	ID             holdfast.DeviceID     `json:"id"`
	Name           string                `json:"name"`
	Assignment     holdfast.AssignmentID `json:"assignment"`
	Profile        string                `json:"profile,omitempty"`
	ProfileVersion int                   `json:"profile_version,omitempty"`
	Gateway        holdfast.DeviceID     `json:"gateway,omitzero"`
	Child          string                `json:"child,omitempty"` // what the gateway calls it
	State          string                `json:"state"`
	Added          time.Time             `json:"added,omitzero"`
}

// Stream is a line of streams.ndjson.
type Stream struct {
	ID            holdfast.StreamID     `json:"id"`
	Device        holdfast.DeviceID     `json:"device"`
	Assignment    holdfast.AssignmentID `json:"assignment"`
	Name          string                `json:"name"`
	Type          string                `json:"type"`
	Unit          string                `json:"unit,omitempty"`
	Category      string                `json:"category,omitempty"` // W3C DPV IRI
	Sensitivity   string                `json:"sensitivity,omitempty"`
	Purposes      []holdfast.Purpose    `json:"purposes,omitempty"`
	RetentionDays int                   `json:"retention_days,omitempty"`
}

// Assignment is a line of assignments.ndjson.
type Assignment struct {
	ID      holdfast.AssignmentID `json:"id"`
	Device  holdfast.DeviceID     `json:"device"`
	Owner   holdfast.PartyID      `json:"owner"`
	Subject holdfast.PartyID      `json:"subject,omitzero"`
	Basis   string                `json:"basis,omitempty"`
	Period  bool                  `json:"period,omitempty"` // told apart by time from the device's own
	State   string                `json:"state"`
	From    time.Time             `json:"from,omitzero"`
	To      time.Time             `json:"to,omitzero"` // not in it

	Hours          string `json:"hours,omitempty"` // of the week between the two
	Zone           string `json:"zone,omitempty"`
	EraseAfterDays int    `json:"erase_after_days,omitempty"`
}

// Purpose is a line of purposes.ndjson.
type Purpose struct {
	Name          holdfast.Purpose `json:"name"`
	IRI           string           `json:"iri"` // W3C DPV
	LegalBasis    string           `json:"legal_basis"`
	RetentionDays int              `json:"retention_days,omitempty"`
	Text          string           `json:"text"`
	Ended         time.Time        `json:"ended,omitzero"`
}

// Grant is a line of grants.ndjson: one that the owner made.
type Grant struct {
	ID            holdfast.GrantID        `json:"id"`
	Recipient     holdfast.PartyID        `json:"recipient"`
	RecipientName string                  `json:"recipient_name,omitempty"`
	Purpose       holdfast.Purpose        `json:"purpose"`
	AllDevices    bool                    `json:"all_devices,omitempty"`
	Devices       []holdfast.DeviceID     `json:"devices,omitempty"`
	Assignments   []holdfast.AssignmentID `json:"assignments,omitempty"` // none: any
	AllStreams    bool                    `json:"all_streams,omitempty"`
	Streams       []string                `json:"streams,omitempty"`
	DataFrom      time.Time               `json:"data_from,omitzero"` // times of the readings it covers; left out: without bound
	DataTo        time.Time               `json:"data_to,omitzero"`
	Made          time.Time               `json:"made"`
	Until         time.Time               `json:"until"`
	Ended         time.Time               `json:"ended,omitzero"`
}

// Disclosure is a line of disclosures.ndjson: that readings left.
type Disclosure struct {
	ID            holdfast.DisclosureID `json:"id"`
	Recipient     holdfast.PartyID      `json:"recipient"`
	RecipientName string                `json:"recipient_name,omitempty"`
	Reader        holdfast.CredentialID `json:"reader"`
	Purpose       holdfast.Purpose      `json:"purpose"`
	Grant         holdfast.GrantID      `json:"grant,omitzero"`
	Permission    holdfast.PermissionID `json:"permission,omitzero"` // of staff
	Role          string                `json:"role,omitempty"`      // of the reader's credential
	Reason        string                `json:"reason,omitempty"`    // why it was allowed
	Policies      []string              `json:"policies,omitempty"`
	Streams       []holdfast.StreamID   `json:"streams,omitempty"`
	Opened        time.Time             `json:"opened"`
	Last          time.Time             `json:"last"`
	Reads         uint64                `json:"reads"`
	Rows          uint64                `json:"rows"`
	Complete      bool                  `json:"complete"` // false: at least so many rows
	First         time.Time             `json:"first,omitzero"`
	Final         time.Time             `json:"final,omitzero"`
}

// Event is a line of events.ndjson: what an entry of ledger.ndjson says, in the
// clear. Those lines are of internal/ledger: a slice.
type Event struct {
	Index uint64          `json:"index"`
	Seq   uint64          `json:"seq"` // on the owner's record, from 0
	Kind  string          `json:"kind"`
	Time  time.Time       `json:"time"`
	Data  json.RawMessage `json:"data,omitempty"`
}
