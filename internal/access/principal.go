package access

import (
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Role is what a credential lets its holder be. The numbers stand in the catalog.
type Role uint8

const (
	// Administrator runs the hub for the operating organisation.
	Administrator Role = 1
	// Owner is a party in person: only an owner makes grants and reads by
	// own-access.
	Owner Role = 2
	// Program reads for the purposes its credential names.
	Program Role = 3
	// Auditor sees the hub's records for the operating organisation: its ledger,
	// purposes, credentials, permissions and erasures. He reads nobody's readings and
	// changes nothing, but that he approves permissions of administrators.
	Auditor Role = 4
)

var roleNames = [...]string{"", "administrator", "owner", "program", "auditor"}

func (r Role) String() string {
	if r.valid() {
		return roleNames[r]
	}
	return "unknown"
}

func (r Role) valid() bool { return r >= Administrator && r <= Auditor }

// staff reports whether r is of who works for the operating organisation in person.
func (r Role) staff() bool { return r == Administrator || r == Auditor }

// MarshalText is String, for JSON.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseRole.
func (r *Role) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRole(string(b))
	return err
}

// ParseRole reads the name that String writes.
func ParseRole(s string) (Role, error) {
	if i := slices.Index(roleNames[1:], s); i >= 0 {
		return Role(i + 1), nil
	}
	return 0, holdfast.Errorf(holdfast.Invalid, "a role is administrator, owner, program or auditor")
}

// Scopes is a set of what a credential may be used for, within its role. The
// bits stand in the catalog.
type Scopes uint8

const (
	ScopeRead    Scopes = 1 << iota // readings and whatever else is shown
	ScopeWrite                      // everything that changes something
	ScopeMetrics                    // the hub's own metrics
)

const allScopes = ScopeRead | ScopeWrite | ScopeMetrics

var scopeNames = [...]string{"read", "write", "metrics"}

// String returns the names of the scopes, with commas.
func (s Scopes) String() string {
	var names []string
	for i, n := range scopeNames {
		if s&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, ",")
}

// MarshalText is String, for JSON.
func (s Scopes) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is ParseScopes.
func (s *Scopes) UnmarshalText(b []byte) (err error) {
	*s, err = ParseScopes(string(b))
	return err
}

// ParseScopes reads names with commas.
func ParseScopes(text string) (s Scopes, err error) {
	for name := range strings.SplitSeq(text, ",") {
		i := slices.Index(scopeNames[:], name)
		if i < 0 {
			return 0, holdfast.Errorf(holdfast.Invalid, "scopes are read, write and metrics, with commas")
		}
		s |= 1 << i
	}
	return s, nil
}

// Principal is who makes a request.
type Principal struct {
	Credential holdfast.CredentialID
	Party      holdfast.PartyID
	Actor      holdfast.PartyID // who acts in Party's place with his own credential; zero: the party itself
	Role       Role
	Purposes   []holdfast.Purpose // a program's; must not be modified
	Scopes     Scopes
	NotAfter   time.Time // of the credential, or of the word of the issuer that it was shown with

	Grants  []holdfast.GrantID    // a program's, if its credential is bound to some; must not be modified
	Settled bool                  // may do what can't be undone: MustBeSettled
	Issuer  string                // whose word this is; "": the hub's own authority
	Holder  holdfast.CredentialID // the first credential of the same holder
	Leaving bool                  // the party's erasure waits: it may look at that and take it back, no more
}

// inPerson refuses who asks in another's place. What one comes in with is one's own:
// made in another's place it would outlive the standing there.
func (p Principal) inPerson() error {
	if !p.Actor.IsZero() {
		return holdfast.Errorf(holdfast.Denied, "credentials are everybody's own: this can't be asked in another's place")
	}
	return nil
}

// Can reports whether p's credential has all of s.
func (p Principal) Can(s Scopes) bool { return s != 0 && p.Scopes&s == s }

// Person returns the party whose credential it is: who acts, if for another.
func (p Principal) Person() holdfast.PartyID {
	if p.Actor.IsZero() {
		return p.Party
	}
	return p.Actor
}

// MayName reports whether p may give purpose u as the reason of a request. It is
// a first gate, not a permission: that is policy's to decide.
func (p Principal) MayName(u holdfast.Purpose) bool {
	switch p.Role {
	case Owner:
		return u == holdfast.OwnAccess
	case Administrator:
		return u != holdfast.OwnAccess && u != ""
	case Program:
		return slices.Contains(p.Purposes, u)
	}
	return false
}
