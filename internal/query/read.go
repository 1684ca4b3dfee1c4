package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// Options tunes a Query; the zero value works.
type Options struct {
	Now func() time.Time // default time.Now
	// Recheck is how long rows are given out on one decision before it is made
	// again; default 1 s.
	Recheck time.Duration
	// Slow is how long the reader of a feed may take for one item; default 30 s.
	Slow     time.Duration
	Erasures Erasures // default: there are none
	// Permissions of staff to read others' data; default: there are none.
	Permissions Permissions
	// Alarm is told which policies could not be evaluated: that must never be, and
	// denies. Default: nobody is told.
	Alarm  func(policies []string)
	Budget Budget
}

// Erasures is what is being erased: package erasure.
type Erasures interface {
	// Hides and Touches report whether an erasure that is under way covers a
	// reading, or any of a span.
	Hides(a holdfast.AssignmentID, s holdfast.StreamID, at int64) bool
	Touches(a holdfast.AssignmentID, s holdfast.StreamID, span holdfast.Span) bool
	// Begun numbers the last erasure that was asked for; BegunSince reports whether
	// one after that number covers any of a span.
	Begun() uint64
	BegunSince(n uint64, a holdfast.AssignmentID, s holdfast.StreamID, span holdfast.Span) bool
}

// Permissions says which approved permission staff have now to read a party's data
// for a purpose: package access. It is asked again with each decision.
type Permissions interface {
	Permission(ctx context.Context, staff access.Principal, whose holdfast.PartyID, p holdfast.Purpose) (policy.Permission, bool, error)
	// AnyPermission is one that any of the staff has, for Explain.
	AnyPermission(ctx context.Context, whose holdfast.PartyID, p holdfast.Purpose) (policy.Permission, bool, error)
	// Permitted returns the parties about whom staff have an approved permission.
	Permitted(ctx context.Context, staff access.Principal) ([]holdfast.PartyID, error)
}

// noPermissions is a hub whose staff read nobody's data.
type noPermissions struct{}

func (noPermissions) Permission(context.Context, access.Principal, holdfast.PartyID, holdfast.Purpose) (policy.Permission, bool, error) {
	return policy.Permission{}, false, nil
}

func (noPermissions) AnyPermission(context.Context, holdfast.PartyID, holdfast.Purpose) (policy.Permission, bool, error) {
	return policy.Permission{}, false, nil
}

func (noPermissions) Permitted(context.Context, access.Principal) ([]holdfast.PartyID, error) {
	return nil, nil
}

// noErasures is a hub where nothing is erased.
type noErasures struct{}

func (noErasures) Hides(holdfast.AssignmentID, holdfast.StreamID, int64) bool           { return false }
func (noErasures) Touches(holdfast.AssignmentID, holdfast.StreamID, holdfast.Span) bool { return false }
func (noErasures) Begun() uint64                                                        { return 0 }
func (noErasures) BegunSince(uint64, holdfast.AssignmentID, holdfast.StreamID, holdfast.Span) bool {
	return false
}

// Query is the way out. It is safe for concurrent use.
type Query struct {
	custody  *custody.Custody
	grants   *grant.Register
	series   *series.Series
	now      func() time.Time
	recheck  time.Duration
	erasures Erasures
	permits  Permissions
	purse    *purse
	alarm    func([]string)
	feeds    *feeds
	slow     time.Duration
}

// New makes a Query over its keepers.
func New(c *custody.Custody, g *grant.Register, s *series.Series, o Options) *Query {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Recheck <= 0 {
		o.Recheck = time.Second
	}
	if o.Slow <= 0 {
		o.Slow = 30 * time.Second
	}
	if o.Permissions == nil {
		o.Permissions = noPermissions{}
	}
	if o.Alarm == nil {
		o.Alarm = func([]string) {}
	}
	if o.Erasures == nil {
		o.Erasures = noErasures{}
	}
	return &Query{custody: c, grants: g, series: s, now: o.Now, recheck: o.Recheck, erasures: o.Erasures, alarm: o.Alarm, permits: o.Permissions, purse: newPurse(o.Budget), feeds: newFeeds(), slow: o.Slow}
}

// Read answers a request. When it returns without an error, disclosures are open
// and durable, and the caller ranges over the result's Rows or closes it; ctx
// must live as long. Nothing of the selection being allowed is Denied, with the
// reason and what would help; a stream that its reader could read is NotFound if
// it does not exist.
func (q *Query) Read(ctx context.Context, req Request) (*Result, error) {
	if !req.Group.IsZero() {
		if err := q.declare(ctx, &req); err != nil {
			return nil, err
		}
	}
	p, err := req.check()
	if err != nil {
		return nil, err
	}
	at := place{span: req.Span}
	if req.Cursor != "" {
		if at, err = decodeCursor(req.Cursor, req.bind(p)); err != nil {
			return nil, err
		}
	}
	if err := req.checkWindows(at.span); err != nil {
		return nil, err
	}
	j, err := q.judge(ctx, req, p)
	if err != nil {
		return nil, err
	}
	allowed, withheld, err := q.allowed(ctx, j, &req, at)
	if err != nil {
		return nil, err
	}
	if err := req.checkTypes(allowed); err != nil {
		return nil, err
	}
	r := &run{q: q, j: j, ctx: ctx, req: req, bind: req.bind(p), at: at, streams: allowed, began: q.now().UnixNano(), first: *j, mark: q.erasures.Begun()}
	r.result = &Result{
		Rows: r.rows, Purpose: p, Aggregates: slices.Clone(req.Aggregates), By: req.By, Fill: req.Fill, Zone: req.Zone, Withheld: withheld, Span: at.span, finish: r.finish, still: r.stands, unerased: r.unerased,
	}
	if err := r.prepare(); err != nil {
		return nil, err
	}
	if err := r.disclose(); err != nil {
		return nil, errors.Join(err, r.finish())
	}
	return r.result, nil
}

// check refuses what is wrong with a request itself.
func (req Request) check() (holdfast.Purpose, error) {
	if !req.Who.Can(access.ScopeRead) {
		return "", holdfast.Errorf(holdfast.Denied, "the credential may not read: its scopes lack %s", access.ScopeRead)
	}
	if err := req.Selection.check(); err != nil {
		return "", err
	}
	switch {
	case req.Cursor == "" && req.Span.From > req.Span.To:
		return "", holdfast.Errorf(holdfast.Invalid, "the time asked for ends before it begins")
	case req.All && (req.Limit > 0 || req.Cursor != ""), !req.All && req.Only != nil:
		return "", holdfast.Errorf(holdfast.Invalid, "all that may be read has no pages, and of nothing else are streams picked by their ids")
	case req.Limit < 0:
		return "", holdfast.Errorf(holdfast.Invalid, "a limit is not negative")
	case req.Every < 0, req.windows() != (len(req.Aggregates) > 0), req.Every > 0 && !req.Calendar.zero():
		return "", holdfast.Errorf(holdfast.Invalid, "windows need a length and at least one aggregate")
	case !req.windows() && req.By != 0:
		return "", holdfast.Errorf(holdfast.Invalid, "only windows are grouped: how long are they?")
	case !req.windows() && req.Fill != NoFill:
		return "", holdfast.Errorf(holdfast.Invalid, "only windows are filled: how long are they?")
	}
	if err := req.Calendar.check(); err != nil {
		return "", err
	}
	for _, a := range req.Aggregates {
		if !a.valid() {
			return "", holdfast.Errorf(holdfast.Invalid, "an aggregate is not known")
		}
	}
	return purpose(req.Who, req.Purpose)
}

func (req *Request) checkWindows(s holdfast.Span) error {
	if req.windows() && req.manyWindows(s) >= MaxWindows {
		return holdfast.Errorf(holdfast.TooLarge, "the time asked for has more than %d windows: ask for longer windows or a shorter time", MaxWindows)
	}
	return nil
}

// manyWindows is about how many windows a span has.
func (req *Request) manyWindows(s holdfast.Span) uint64 {
	return (uint64(s.To)-uint64(s.From))/uint64(req.ruler().length()) + 1
}

// checkTypes refuses the sum of texts where streams of one name are asked for. In a
// wider selection a stream has the aggregates that its type has.
func (req *Request) checkTypes(streams []candidate) error {
	if req.Stream == "" || len(streams) == 0 {
		return nil
	}
	for _, a := range req.Aggregates {
		if slices.ContainsFunc(streams, func(c candidate) bool { return a.of(c.Type) }) {
			continue
		}
		if t := streams[0].Type; Sum.of(t) {
			return holdfast.Errorf(holdfast.Invalid, "the stream's values are of type %s: they have no %s", t, a)
		} else {
			return holdfast.Errorf(holdfast.Invalid, "the stream's values are of type %s: they have count, first and last only", t)
		}
	}
	return nil
}

// allowed returns the streams of a selection that may be read, from the cursor's
// on, and counts the others of devices that are the reader's party's.
func (q *Query) allowed(ctx context.Context, j *judge, req *Request, at place) (out []candidate, withheld int, err error) {
	s := req.Selection
	if s.All {
		out, err = q.readable(ctx, j, req, at.span)
		return out, 0, err
	}
	all, exists, err := q.resolve(ctx, j, s)
	if err != nil {
		return nil, 0, fmt.Errorf("find streams: %w", err)
	}
	for i := range all {
		if all[i].Decision, err = j.decide(ctx, &all[i], at.span); err != nil {
			return nil, 0, err
		}
	}
	why, err := j.obey(ctx, req, all)
	if err != nil {
		return nil, 0, err
	}
	may := slices.ContainsFunc(all, func(c candidate) bool { return c.Allow })
	if !may && exists && j.who.Role == access.Owner && s == (Selection{Party: j.who.Party}) {
		// All that he has is about others. It is his to ask all the same, and to export.
		his := candidate{Source: Source{Owner: s.Party}}
		if his.Decision, err = j.decide(ctx, &his, at.span); err != nil {
			return nil, 0, err
		}
		may = his.Allow
	}
	switch {
	case !exists && j.who.Role == access.Administrator:
		return nil, 0, holdfast.Errorf(holdfast.NotFound, "there is no such party or device")
	case !may && why != nil:
		return nil, 0, why
	case !may:
		return nil, 0, j.refusal(&all[0], s, at.span)
	case s.Stream != "" && !s.Device.IsZero() && !slices.ContainsFunc(all, func(c candidate) bool { return c.Allow && !c.StreamID.IsZero() }):
		return nil, 0, holdfast.Errorf(holdfast.NotFound, "the device has no stream of this name")
	case s.Stream != "" && !slices.ContainsFunc(all, func(c candidate) bool { return !c.StreamID.IsZero() }):
		return nil, 0, holdfast.Errorf(holdfast.NotFound, "no device of this selection has a stream of this name")
	}
	begun := at.stream.IsZero() || req.By != 0 // a group has all of its streams on every page
	for _, c := range all {
		begun = begun || c.key() == at.stream
		switch {
		case c.StreamID.IsZero():
		case !c.Allow:
			if c.Owner == j.who.Party { // how many another owner has is not the reader's to know
				withheld++
			}
		case begun && c.Span.From <= c.Span.To:
			out = append(out, c)
		}
	}
	if !begun {
		return nil, 0, holdfast.Errorf(holdfast.Conflict, "the stream at which the cursor stands is gone: ask again from the start")
	}
	q.expire(out)
	return out, withheld, nil
}
