package query

import (
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/policy"
)

// Explained is what would be decided about one stream, and why.
type Explained struct {
	Source // without a StreamID: of whatever has this name
	Whose  holdfast.PartyID
	policy.Decision
	Texts map[string]string // of the Decision's Policies, as Cedar, by id
}

// Explain says what Read would decide now for the reader of a request, stream by
// stream; it reads nothing and discloses nothing. About is the party whose data is
// asked about, so that one party's decisions are not told to another; zero: any.
// Who may ask that is for the caller to check.
func (q *Query) Explain(ctx context.Context, req Request, about holdfast.PartyID) ([]Explained, error) {
	if err := req.Selection.check(); err != nil {
		return nil, err
	}
	p, err := purpose(req.Who, req.Purpose)
	if err != nil {
		return nil, err
	}
	j, err := q.judge(ctx, req, p)
	if err != nil {
		return nil, err
	}
	j.all = true
	all, _, err := q.resolve(ctx, j, req.Selection)
	if err != nil {
		return nil, fmt.Errorf("find streams: %w", err)
	}
	var out []Explained
	for i := range all {
		c := &all[i]
		if c.Device.IsZero() || !about.IsZero() && c.whose() != about {
			continue
		}
		d, err := j.decide(ctx, c, req.Span)
		if err != nil {
			return nil, err
		}
		e := Explained{Source: c.Source, Whose: c.whose(), Decision: d, Texts: map[string]string{}}
		st, err := j.standing(ctx, c.whose())
		if err != nil {
			return nil, err
		}
		for _, id := range d.Policies {
			e.Texts[id] = st.set.Text(id)
		}
		out = append(out, e)
	}
	if len(out) == 0 {
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no such stream of this owner's")
	}
	return slices.Clip(out), nil
}
