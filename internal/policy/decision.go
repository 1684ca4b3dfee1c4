package policy

import "github.com/holdfast-iot/holdfast"

// Decision is the answer. A denial's Reason is for the reader and tells nothing
// about the data or about whether they exist; Policies and Failed are for the one
// whose data it is and for who runs the hub.
type Decision struct {
	Allow      bool
	Reason     string                // which rule allowed, or what is missing
	Grant      holdfast.GrantID      // under which grant; zero: none was needed
	Permission holdfast.PermissionID // under which permission; zero: none was needed
	Span       holdfast.Span         // what may be read: the request's, clipped by the grant
	Obligations
	// Policies are the ids of those that allowed or forbade; none where nothing did.
	Policies []string
	// Failed are those that could not be evaluated. There must be none: it denies,
	// and the caller sounds the alarm.
	Failed []string
}

// The reasons. They are stable: disclosures and tests hold them.
const (
	ByOwner      = "own data"
	ByActing     = "data of one for whom the reader acts"
	ByRole       = "the operating organisation's own device"
	ByPermission = "permission of staff"
	ByGrant      = "grant of the owner"
	NoPurpose    = "a purpose is needed that the reader's credential holds"
	NotLive      = "the purpose does not exist or has ended"
	NotOwn       = "own-access is for an owner's own data"
	NoGrant      = "a live grant of the owner is needed"
	Stopped      = "the one whose data it is has stopped this use"
	NoReader     = "the reader belongs to no party"
	NobodysData  = "the data belong to nobody"
	NotDecided   = "the decision could not be made"
)
