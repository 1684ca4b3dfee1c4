package query

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/policy"
)

// crowd is what a read of a declared group has to keep to where grants of its members
// ask for a least number of data subjects. Its windows are made whole, weighed, put on
// record and only then given out.
type crowd struct {
	least int // data subjects, in the group and in each window
	parts map[string][]grant.Member
}

// mostCrowded is how many windows an answer about a crowd has at most.
const mostCrowded = 10_000

// dominant is what part of a window one data subject may be, by readings and by their
// sum, so that the window tells of more than him.
const dominant = 0.75

// declare completes a request about a declared group: whose it is, its devices, and
// its windows if none are asked for.
func (q *Query) declare(ctx context.Context, req *Request) error {
	none := holdfast.Errorf(holdfast.NotFound, "there is no such group of this party: declare it first")
	g, err := q.grants.Group(ctx, req.Group)
	switch {
	case holdfast.KindOf(err) == holdfast.NotFound:
		return none
	case err != nil:
		return fmt.Errorf("find group: %w", err)
	case g.Party != req.Who.Party || !g.Ended.IsZero():
		return none
	}
	req.declared = &g
	if !req.windows() {
		if req.Every, req.Calendar, err = fixedWindows(g); err != nil {
			return err
		}
	}
	if req.By == 0 {
		req.By = Together
	}
	if req.By&^(Together|ByStream|ByUnit) != 0 {
		return holdfast.Errorf(holdfast.Invalid, "a declared group is asked about as one: by none, or by stream or unit")
	}
	if req.Zone == nil {
		req.Zone = req.Calendar.Zone
	}
	return nil
}

// fixedWindows reads the windows that a group was declared with.
func fixedWindows(g grant.Group) (every time.Duration, c Calendar, err error) {
	if c.Zone, err = ParseZone(g.Zone); err != nil {
		return 0, c, err
	}
	switch g.Every {
	case "1d":
		c.Days = 1
	case "1w":
		c.Weeks = 1
	case "1mo":
		c.Months = 1
	default:
		every, err = time.ParseDuration(g.Every)
		c.Zone = nil
	}
	return every, c, err
}

// ofDeclared returns the streams of a name of the devices of a group. What does not
// concern the reader is not looked up.
func (q *Query) ofDeclared(ctx context.Context, j *judge, g *grant.Group, stream string) (all []candidate, err error) {
	for _, d := range g.Devices {
		some, _, err := q.ofDevice(ctx, j, d, stream)
		switch {
		case holdfast.KindOf(err) == holdfast.NotFound:
			continue
		case err != nil:
			return nil, err
		}
		all = append(all, some...)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { // one data subject after the other
		x, y := a.whose(), b.whose()
		return slices.Compare(x[:], y[:])
	})
	return all, nil
}

// gatherCrowd finds whether grants of the members ask for a least number of data
// subjects, and if so, makes of the streams those that count: the others are not
// allowed any more. Who lets himself be read alone is not among them, since he could be
// taken away again and hides nobody.
func (j *judge) gatherCrowd(ctx context.Context, req *Request, all []candidate) (*crowd, error) {
	k := &crowd{parts: map[string][]grant.Member{}}
	var delay time.Duration
	for i := range all {
		if c := &all[i]; c.Allow && c.MinGroup > 0 {
			k.least, delay = max(k.least, c.MinGroup), max(delay, c.Delay)
		}
	}
	if k.least == 0 {
		return nil, nil
	}
	if err := k.check(req); err != nil {
		return nil, err
	}
	span := holdfast.Span{From: req.Span.From, To: min(req.Span.To, j.q.now().UnixNano()-int64(delay))}
	if span.From <= span.To {
		span = req.ruler().whole(span)
	}
	if req.manyWindows(span) > mostCrowded && span.From <= span.To {
		return nil, holdfast.Errorf(holdfast.TooLarge, "an answer about this group has at most %d windows: ask for a shorter time", mostCrowded)
	}
	counts := func(c *candidate) bool {
		return c.Allow && c.MinGroup > 0 && !c.StreamID.IsZero() && (span.From > span.To || c.Span.Covers(span))
	}
	for i := range all {
		if c := &all[i]; counts(c) {
			k.member(c)
		}
	}
	maps.DeleteFunc(k.parts, func(_ string, members []grant.Member) bool { return len(members) < k.least })
	for i := range all {
		c := &all[i]
		if counts(c) && k.parts[partKey(&c.Source)] != nil {
			c.Span = span
		} else {
			c.Decision = policy.Decision{Reason: policy.NoGrant}
		}
	}
	if len(k.parts) == 0 {
		return nil, holdfast.Errorf(holdfast.Denied, "too few data subjects of the group let you have windows of these streams for all of this time")
	}
	return k, j.q.grants.MayAnswer(ctx, k.answer(req, nil))
}

// check refuses what an answer about a crowd can't be.
func (k *crowd) check(req *Request) error {
	every, calendar, err := fixedWindows(*req.declared)
	if err != nil {
		return err
	}
	asked := req.ruler()
	fixed := (&Request{Every: every, Calendar: calendar}).ruler()
	switch {
	case asked.every != fixed.every, fixed.every == 0 && (asked.calendar.Days != fixed.calendar.Days || asked.calendar.Weeks != fixed.calendar.Weeks ||
		asked.calendar.Months != fixed.calendar.Months || asked.zone.String() != fixed.zone.String()):
		return holdfast.Errorf(holdfast.Denied, "this group has windows of %s in %s, and no other: leave every and tz out", req.declared.Every, req.declared.Zone)
	case req.Fill != NoFill:
		return holdfast.Errorf(holdfast.Denied, "windows of this group are not filled: which are withheld would not be seen")
	case req.Limit > 0 || req.Cursor != "":
		return holdfast.Errorf(holdfast.Denied, "an answer about this group comes whole: leave limit and cursor out, or ask for a shorter time")
	}
	for _, a := range req.Aggregates {
		if a != Count && a != Sum && a != Mean {
			return holdfast.Errorf(holdfast.Denied, "windows of this group have count, sum and mean, not %s, which can be of single readings", a)
		}
	}
	return nil
}

// partKey names the streams that are put together.
func partKey(s *Source) string { return s.Type.String() + " " + s.Unit }

// member takes in a stream; those of one data subject follow one another.
func (k *crowd) member(c *candidate) {
	key := partKey(&c.Source)
	all := k.parts[key]
	if n := len(all); n == 0 || all[n-1].Subject != c.whose() {
		all = append(all, grant.Member{Subject: c.whose()})
	}
	m := &all[len(all)-1]
	m.Streams = append(m.Streams, c.StreamID)
	k.parts[key] = all
}

// answer is what is to be remembered of windows that are told, by part.
func (k *crowd) answer(req *Request, windows map[string][]grant.Cell) grant.Answer {
	a := grant.Answer{Recipient: req.Who.Party, Stream: req.Stream, Group: req.Group, Least: k.least}
	for key, members := range k.parts {
		for i := range members {
			slices.SortFunc(members[i].Streams, func(a, b holdfast.StreamID) int { return slices.Compare(a[:], b[:]) })
		}
		a.Parts = append(a.Parts, grant.AnswerPart{Key: key, Members: members, Windows: windows[key]})
	}
	slices.SortFunc(a.Parts, func(a, b grant.AnswerPart) int { return strings.Compare(a.Key, b.Key) })
	return a
}

// told is a window with its group.
type told struct {
	g *group
	w *Window
}

// ofCrowd gives the windows of a crowd: all are made, those that tell of too few are
// left out, the rest is on record, and then they go.
func (r *run) ofCrowd(yield func(Row, error) bool) (step, error) {
	var all []told
	cells := map[string][]grant.Cell{}
	for _, g := range r.groups {
		key := partKey(&g.source)
		g.register(r)
		o := &outlet{r: r, key: g.id, source: &g.source, spans: g.spans, account: func(*Window) {},
			still: func() error { return r.stillAll(g.streams) }, erased: func(reach holdfast.Span) bool { return r.hiddenFrom(g, reach) }}
		o.yield = func(row Row, _ error) bool {
			if w := row.Window; w.tally.enough(r.req.crowd.least) {
				all = append(all, told{g, w})
				cells[key] = append(cells[key], grant.Cell{Start: w.Start, Sum: w.digest()})
			}
			return true
		}
		if _, err := r.ofGroup(g, g.spans[0], o); err != nil {
			return onward, err
		}
	}
	r.j.refresh(r.ctx) // who is in the group is on record as it is now
	for i := range r.streams {
		if err := r.again(r.ctx, r.j, &r.streams[i]); err != nil {
			return onward, err
		}
	}
	if err := r.q.grants.Told(r.ctx, r.req.crowd.answer(&r.req, cells)); err != nil {
		return onward, err
	}
	for _, t := range all {
		if r.hiddenFrom(t.g, t.w.reach()) {
			return onward, erasedMeanwhile()
		}
		t.g.account(t.w)
		if !yield(Row{Source: &t.g.source, Window: t.w}, nil) {
			return stopped, nil
		}
	}
	return onward, r.ctx.Err()
}

// digest stands for all that can be told of a window.
func (w *Window) digest() (sum [8]byte) {
	b := binary.BigEndian.AppendUint64(nil, w.Count)
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(w.total()))
	b = binary.BigEndian.AppendUint64(b, uint64(w.whole.Hi))
	b = binary.BigEndian.AppendUint64(b, w.whole.Lo)
	h := sha256.Sum256(b)
	copy(sum[:], h[:])
	return sum
}

// tally weighs the data subjects of a window, whose streams come one subject after the
// other.
type tally struct {
	subjects            int
	last                holdfast.PartyID
	rows, most, all     uint64  // readings of the last, most of one, of all
	sum, largest, total float64 // of values, the last two without sign
	unfathomed          bool    // a sum is no finite number
}

func (t *tally) add(subject holdfast.PartyID, w *Window) {
	if t.subjects == 0 || subject != t.last {
		t.close()
		t.subjects++
		t.last = subject
	}
	t.rows += w.Count
	switch w.typ {
	case holdfast.Number:
		t.sum += w.total()
	case holdfast.Integer, holdfast.Boolean:
		t.sum += wholeNumber(w.whole)
	}
}

// close ends what is counted of one subject.
func (t *tally) close() {
	t.most, t.all = max(t.most, t.rows), t.all+t.rows
	part := math.Abs(t.sum)
	t.unfathomed = t.unfathomed || math.IsNaN(part) || math.IsInf(part, 0)
	t.largest, t.total = max(t.largest, part), t.total+part
	t.rows, t.sum = 0, 0
}

// enough reports whether a window tells of at least so many data subjects, none of
// whom is most of it.
func (t *tally) enough(least int) bool {
	t.close()
	return t.subjects >= least && !t.unfathomed && float64(t.most) <= dominant*float64(t.all) && t.largest <= dominant*t.total
}
