package custody

import "github.com/holdfast-iot/holdfast"

// Whose returns the one whose data the readings are: the data subject of the
// assignment if it has one, else its owner.
func (r *Route) Whose() holdfast.PartyID {
	if !r.device.Subject.IsZero() {
		return r.device.Subject
	}
	return r.Owner
}
