package erasure

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// What may be asked for, and whether there is any of it.

// check refuses a scope that makes no sense.
func (g *Gate) check(ctx context.Context, s holdfast.Scope, w Wish) error {
	switch {
	case len(s.Assignments) == 0 && !s.Whole:
		return holdfast.Errorf(holdfast.NotFound, "nothing is in this scope")
	case s.Span.From > s.Span.To:
		return holdfast.Errorf(holdfast.Invalid, "the range ends before it begins")
	case len(s.Streams) > MaxItems || len(s.Assignments) > MaxItems && s.InPart():
		return holdfast.Errorf(holdfast.TooLarge, "an erasure in part covers at most %d assignments and streams: ask for it device by device", MaxItems)
	case w.Undo < 0 || w.Undo > MaxUndo:
		return holdfast.Errorf(holdfast.Invalid, "an erasure can be undone for at most %d days", MaxUndo/(24*time.Hour))
	case s.Month != 0 && (s.Partial() || s.Whole):
		return holdfast.Errorf(holdfast.Invalid, "what arrived in a month is erased of devices and streams, whatever the time of its readings: leave out the range")
	}
	if s.Month != 0 {
		if err := g.checkMonth(s.Month); err != nil {
			return err
		}
	}
	if !w.Guarded || !s.Partial() && s.Month == 0 {
		return nil
	}
	some, err := g.any(ctx, s)
	if err == nil && !some {
		err = g.nothing(s)
	}
	return err
}

// checkMonth refuses a month that is not over: its keys still seal what comes in.
func (g *Gate) checkMonth(month int) error {
	if b := seal.Bucket(month); month%100 < 1 || month%100 > 12 || month < 197001 || month > 999912 {
		return holdfast.Errorf(holdfast.Invalid, "a month looks like 2026-03")
	} else if b.Ends() > g.Arrival()-int64(leaseSlack) {
		return holdfast.Errorf(holdfast.Invalid, "%s is not over: a month goes as a whole when it is; until then erase a range of time", monthText(month))
	}
	return nil
}

// any reports whether there is a reading in a scope.
func (g *Gate) any(ctx context.Context, s holdfast.Scope) (bool, error) {
	for _, a := range s.Assignments {
		of, err := g.streamsIn(ctx, a, s)
		if err != nil {
			return false, err
		}
		for _, x := range of {
			if w, err := g.Series.Weigh(ctx, a, x.ID, s.Span, s.Month); err != nil || w.Rows > 0 {
				return err == nil, err
			}
		}
	}
	return false, nil
}

func (g *Gate) nothing(s holdfast.Scope) error {
	if s.Month != 0 {
		return holdfast.Errorf(holdfast.NotFound, "nothing of this arrived in %s", monthText(s.Month))
	}
	t := scopeText(s)
	return holdfast.Errorf(holdfast.NotFound, "no reading of this was taken from %s to %s", edge(t.From, "the beginning"), edge(t.To, "now"))
}

// edge writes an end of a range, by its name if it is open.
func edge(t *time.Time, open string) string {
	if ns := t.UnixNano(); ns == math.MinInt64 || ns == math.MaxInt64 {
		return open
	}
	return t.Format(time.RFC3339)
}

// streamsIn returns the streams of an assignment that are in a scope.
func (g *Gate) streamsIn(ctx context.Context, id holdfast.AssignmentID, s holdfast.Scope) ([]*custody.Stream, error) {
	a, err := g.Custody.Assignment(ctx, id)
	if err != nil {
		return nil, err
	}
	all, err := g.Custody.StreamsOfAssignment(ctx, a)
	if err != nil || len(s.Streams) == 0 {
		return all, err
	}
	return slices.DeleteFunc(slices.Clone(all), func(x *custody.Stream) bool { return !slices.Contains(s.Streams, x.ID) }), nil
}

// streamsByAssignment tells apart the streams of a scope with several assignments.
func (g *Gate) streamsByAssignment(ctx context.Context, s holdfast.Scope) ([][]holdfast.StreamID, error) {
	if len(s.Assignments) < 2 || len(s.Streams) == 0 {
		return nil, nil
	}
	in := newOpened(s, false)
	out := make([][]holdfast.StreamID, len(s.Assignments))
	for i, id := range s.Assignments {
		of, err := g.streamsIn(ctx, id, holdfast.Scope{})
		if err != nil {
			return nil, err
		}
		for _, x := range of {
			if in.has(x.ID) {
				out[i] = append(out[i], x.ID)
			}
		}
	}
	return out, nil
}
