package grant

import (
	"context"
	"maps"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/policy"
)

// What others ask about holds. They are answered from memory, which has those that
// stand, without a lock and without allocation.

// standing is every hold that stands, by whose data it is on. It is replaced whole.
type standing map[holdfast.PartyID][]Hold

func (r *Register) loadHolds(ctx context.Context) error {
	all, err := r.readHolds(ctx, `state = 'active'`)
	if err != nil {
		return err
	}
	now := standing{}
	for _, h := range all {
		h.Reason = ""
		now[h.Whose] = append(now[h.Whose], h)
	}
	r.holds.Store(&now)
	return nil
}

// keepHold puts a hold into memory as it is now. The caller has r.holding.
func (r *Register) keepHold(h Hold) {
	next := maps.Clone(*r.holds.Load())
	mine := slices.DeleteFunc(slices.Clone(next[h.Whose]), func(have Hold) bool { return have.ID == h.ID })
	if h.Reason = ""; h.Ended.IsZero() {
		mine = append(mine, h)
	}
	if len(mine) > 0 {
		next[h.Whose] = mine
	} else {
		delete(next, h.Whose)
	}
	r.holds.Store(&next)
	r.changed(h.Whose)
}

// dropHolds forgets those on the data of a party that was erased.
func (r *Register) dropHolds(whose holdfast.PartyID) {
	r.holding.Lock()
	defer r.holding.Unlock()
	next := maps.Clone(*r.holds.Load())
	delete(next, whose)
	r.holds.Store(&next)
}

// Covers reports whether h is on a stream; "" is any one of the assignment.
func (h *Hold) Covers(a holdfast.AssignmentID, stream string) bool {
	return (len(h.Assignments) == 0 || slices.Contains(h.Assignments, a)) &&
		(len(h.Streams) == 0 || stream == "" || slices.Contains(h.Streams, stream))
}

// find returns the first hold of some kinds on a stream of any of the parties.
func (r *Register) find(a holdfast.AssignmentID, stream string, kinds func(*Hold) bool, whose ...holdfast.PartyID) *Hold {
	all := *r.holds.Load()
	if len(all) == 0 {
		return nil
	}
	for _, p := range whose {
		mine := all[p]
		for i := range mine {
			if h := &mine[i]; kinds(h) && h.Covers(a, stream) {
				return h
			}
		}
	}
	return nil
}

// forbids returns what a party's holds stop, for policy to weigh.
func (r *Register) forbids(whose holdfast.PartyID) (out []policy.Forbid) {
	for _, h := range (*r.holds.Load())[whose] {
		if h.Kind == Restriction || h.Kind == Objection {
			out = append(out, policy.Forbid{ID: h.ID, Whose: h.Whose, Assignments: h.Assignments, Streams: h.Streams, Purpose: h.Purpose})
		}
	}
	return out
}

func pauses(h *Hold) bool  { return h.Kind == Restriction || h.Kind.legal() }
func legal(h *Hold) bool   { return h.Kind.legal() }
func stopped(h *Hold) bool { return h.Kind == CollectionStop }

// againstHub is what keeps an administrator from erasing: the owner has said that
// he wants the data kept.
func againstHub(h *Hold) bool { return h.Kind.legal() || h.Kind == Restriction && h.OwnWord }

// Stopped reports whether the one whose data it is has stopped a stream from being
// collected.
func (r *Register) Stopped(whose holdfast.PartyID, a holdfast.AssignmentID, stream string) bool {
	return r.find(a, stream, stopped, whose) != nil
}

// Pauses reports whether a restriction or a legal hold keeps readings of a stream
// ("": of any stream) from being deleted by age, or by an end that was agreed
// beforehand. whose are the owner and the data subject of the assignment.
func (r *Register) Pauses(a holdfast.AssignmentID, stream string, whose ...holdfast.PartyID) bool {
	return r.find(a, stream, pauses, whose...) != nil
}

// Keeps returns the hold that keeps readings of a stream ("": of any stream) from
// being erased: a legal one does whoever asks, a restriction by the owner when he
// did not ask himself. False if there is none.
func (r *Register) Keeps(a holdfast.AssignmentID, stream string, ownWord bool, whose ...holdfast.PartyID) (Hold, bool) {
	kinds := againstHub
	if ownWord {
		kinds = legal
	}
	if h := r.find(a, stream, kinds, whose...); h != nil {
		return *h, true
	}
	return Hold{}, false
}

// AnyHold reports whether there is a hold at all.
func (r *Register) AnyHold() bool { return len(*r.holds.Load()) > 0 }
