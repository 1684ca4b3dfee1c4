package erasure

// An erasure comes to these steps, each of which is durable: after a crash at any of
// them it goes on from the last, with at most one rotation more, and its certificate
// says the same.
//
//	asked       it is written down, with its bars; refused on every path
//	barred      no journal key of before is in use
//	resealed    in part: what survives is sealed again, under keys not in force yet
//	rotated     the keys are dead: the commit point
//	destroyed   that they are is written down
//	NAME        a place has let go of its part: see Places
//	purged      all have
//	recorded    the ledger has the entry
//	certified   the certificate is written down
//
// Steps lists them in that order.
func (g *Gate) Steps() []string {
	out := []string{"asked", "barred", "resealed", "rotated", "destroyed"}
	for _, p := range g.Places.purge() {
		out = append(out, p.name)
	}
	out = append(out, "purged")
	for _, p := range g.Places.shared() {
		out = append(out, p.name)
	}
	return append(out, "recorded", "certified")
}

// step marks a point at which a crash must do no harm.
func (g *Gate) step(name string) error {
	if g.Fault == nil {
		return nil
	}
	return g.Fault(name)
}
