package erasure

import (
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// Kept is what a hold keeps of an assignment whose rest is erased.
type Kept struct {
	Assignment holdfast.AssignmentID `json:"assignment"`
	Streams    []holdfast.StreamID   `json:"streams,omitempty"` // none: all of it
	Why        grant.HoldKind        `json:"why"`
	Hold       holdfast.HoldID       `json:"hold,omitzero"` // none: the law forbids naming it
}

// withoutHeld takes out of a scope what holds keep, and says what that is. A party
// of which anything is kept stays, with its credentials and grants.
func (g *Gate) withoutHeld(ctx context.Context, s holdfast.Scope, ownWord bool) (rest holdfast.Scope, kept []Kept, err error) {
	rest = s
	if !g.Grants.AnyHold() {
		return rest, nil, nil
	}
	rest.Assignments, rest.Streams = nil, nil
	var streams []holdfast.StreamID // of the assignments in rest
	some := false                   // of an assignment in rest, streams are kept
	for _, id := range s.Assignments {
		a, err := g.Custody.Assignment(ctx, id)
		if err != nil {
			return s, nil, fmt.Errorf("look for holds: %w", err)
		}
		of, err := g.Custody.StreamsOfAssignment(ctx, a)
		if err != nil {
			return s, nil, fmt.Errorf("look for holds: %w", err)
		}
		if len(s.Streams) > 0 {
			of = slices.DeleteFunc(slices.Clone(of), func(x *custody.Stream) bool { return !slices.Contains(s.Streams, x.ID) })
		}
		left, here := g.unheld(a, of, ownWord, len(s.Streams) == 0)
		kept = append(kept, here...)
		if len(here) > 0 && len(left) == 0 {
			continue
		}
		some = some || len(here) > 0
		rest.Assignments = append(rest.Assignments, id)
		streams = append(streams, left...)
	}
	if len(kept) == 0 {
		return s, nil, nil
	}
	rest.Whole = false
	if some || len(s.Streams) > 0 {
		rest.Streams = streams
	}
	return rest, kept, nil
}

// unheld returns the streams of an assignment that no hold keeps, and what the holds
// keep: all of it, or some streams.
func (g *Gate) unheld(a custody.Assignment, of []*custody.Stream, ownWord, all bool) (left []holdfast.StreamID, kept []Kept) {
	first, held := g.Grants.Keeps(a.ID, "", ownWord, a.Owner, a.Subject)
	if !held {
		for _, s := range of {
			left = append(left, s.ID)
		}
		return left, nil
	}
	if all && len(first.Streams) == 0 || len(of) == 0 {
		return nil, []Kept{keptBy(first, a.ID)}
	}
	for _, s := range of {
		h, held := g.Grants.Keeps(a.ID, s.Name, ownWord, a.Owner, a.Subject)
		if !held {
			left = append(left, s.ID)
			continue
		}
		k := keptBy(h, a.ID)
		k.Streams = []holdfast.StreamID{s.ID}
		kept = append(kept, k)
	}
	return left, kept
}

func keptBy(h grant.Hold, a holdfast.AssignmentID) Kept {
	k := Kept{Assignment: a, Why: h.Kind}
	if !h.Secret {
		k.Hold = h.ID
	}
	return k
}

// refuseHeld is the answer to who asks for all of what holds keep a part of.
func refuseHeld(kept []Kept, rest holdfast.Scope) error {
	why := whyHeld(kept[0])
	if len(rest.Assignments) == 0 {
		return holdfast.Errorf(holdfast.Denied, "%s: nothing was erased", why)
	}
	return holdfast.Errorf(holdfast.Denied, "%s, or some of them: nothing was erased; ask for the rest to have all others erased", why)
}

// whyHeld names the hold, where it may be named.
func whyHeld(k Kept) string {
	why := map[grant.HoldKind]string{
		grant.Claim: "a claim at law needs these data", grant.Law: "the law keeps these data", grant.Restriction: "the owner wants these data kept: he has restricted them",
	}[k.Why]
	if !k.Hold.IsZero() {
		why += fmt.Sprintf(" (hold %s)", k.Hold)
	}
	return why
}
