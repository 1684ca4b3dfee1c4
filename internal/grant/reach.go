package grant

import (
	"context"

	"github.com/holdfast-iot/holdfast"
)

// Holdings tells whose devices are: package custody.
type Holdings interface {
	// Held reports whether readings of a device are or were a party's.
	Held(ctx context.Context, party holdfast.PartyID, device holdfast.DeviceID) (bool, error)
	// HeldAs reports whether the data of each of some assignments are a party's.
	HeldAs(ctx context.Context, party holdfast.PartyID, assignments []holdfast.AssignmentID) (bool, error)
	// Employs reports whether a party has given the other a device for his work.
	Employs(ctx context.Context, employer, worker holdfast.PartyID) (bool, error)
}

// noHoldings is a hub where nobody has anything.
type noHoldings struct{}

func (noHoldings) Held(context.Context, holdfast.PartyID, holdfast.DeviceID) (bool, error) {
	return false, nil
}
func (noHoldings) HeldAs(context.Context, holdfast.PartyID, []holdfast.AssignmentID) (bool, error) {
	return false, nil
}
func (noHoldings) Employs(context.Context, holdfast.PartyID, holdfast.PartyID) (bool, error) {
	return false, nil
}

// checkReach refuses a grant of what is not its grantor's, and one that stands on the
// consent of somebody who can't well say no to whom he works for.
func (r *Register) checkReach(ctx context.Context, grantor holdfast.PartyID, s *Spec) error {
	for _, d := range s.Devices {
		switch ok, err := r.holdings.Held(ctx, grantor, d); {
		case err != nil:
			return err
		case !ok:
			return holdfast.Errorf(holdfast.Denied, "the data of a named device is somebody else's to grant")
		}
	}
	if len(s.Assignments) > 0 {
		switch ok, err := r.holdings.HeldAs(ctx, grantor, s.Assignments); {
		case err != nil:
			return err
		case !ok:
			return holdfast.Errorf(holdfast.Denied, "the data of a named assignment are somebody else's to grant")
		}
	}
	if p, err := r.Purpose(ctx, s.Purpose); err != nil || p.LegalBasis != Consent {
		return err
	}
	employed, err := r.holdings.Employs(ctx, s.Recipient, grantor)
	if err == nil && employed {
		err = holdfast.Errorf(holdfast.Denied, "consent given to an employer is not free: name a purpose with another legal basis")
	}
	return err
}
