package custody

import "github.com/holdfast-iot/holdfast"

// Whose returns the one whose data the readings are: the data subject of the
// assignment if it has one, else its owner.
func (r *Route) Whose() holdfast.PartyID { return r.whose }
