package twin

import (
	"context"
	"fmt"

	"github.com/holdfast-iot/holdfast"
)

// Caller is a person or program that has shown a credential.
type Caller struct {
	Credential holdfast.CredentialID
	Party      holdfast.PartyID // whose device it says it is; another's in whose place it acts
	Owner      bool             // a party in person, or who acts in its place
	Staff      bool             // of the operating organisation, for the purpose operation
}

// may decides whether a caller may command a device, and see what came of it. It
// returns for which purpose.
func (s *Store) may(ctx context.Context, c Caller, st Standing) (holdfast.Purpose, error) {
	switch {
	case st.Whose.IsZero():
		return "", holdfast.Errorf(holdfast.Denied, "the device has no owner: its claim code must be used first")
	case c.Owner && c.Party == st.Whose:
		return holdfast.OwnAccess, nil
	case c.Staff:
		operating, err := s.house.Operating(ctx)
		if err != nil {
			return "", fmt.Errorf("find operating organisation: %w", err)
		}
		if c.Party != operating || st.Whose != operating {
			break
		}
		if !s.house.Live(ctx, holdfast.Operation) {
			return "", holdfast.Errorf(holdfast.Denied, "the purpose %q has ended", holdfast.Operation)
		}
		return holdfast.Operation, nil
	}
	return "", holdfast.Errorf(holdfast.Denied, "commands and state are for the one whose data the device gives, with his own credential; staff have those of the operating organisation's own devices")
}

// standing returns how a device stands that a caller may command.
func (s *Store) standing(ctx context.Context, c Caller, d holdfast.DeviceID) (Standing, holdfast.Purpose, error) {
	st, err := s.house.Standing(ctx, d)
	if err != nil {
		return st, "", err
	}
	p, err := s.may(ctx, c, st)
	if err == nil && st.Ending != nil {
		err = holdfast.Errorf(holdfast.Conflict, "an erasure of the device is under way: nothing of its commands and state is shown or changed, unless it is undone")
	}
	return st, p, err
}
