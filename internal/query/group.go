package query

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// Keys says which streams make a group: those that are alike in all of them. Streams
// of different units or types never do.
type Keys uint8

const (
	Together  Keys = 1 << iota // in any case: streams in groups; alone, all that are of one unit and type
	ByDevice                   // the device, with its label
	ByStream                   // the stream's name
	ByOwner                    // the party that owns the device
	ByProfile                  // the device's profile
	ByUnit                     // the unit, which is a key in any case
)

var keyNames = [...]string{"none", "device", "stream", "owner", "profile", "unit"}

// ParseKeys reads names with commas; none is the key of one group.
func ParseKeys(text string) (Keys, error) {
	var all Keys
	for name := range strings.SplitSeq(text, ",") {
		i := slices.Index(keyNames[:], strings.TrimSpace(name))
		if i < 0 || i == 0 && text != keyNames[0] {
			return 0, holdfast.Errorf(holdfast.Invalid, "windows are grouped by %s, with commas, or by none for one group of all", strings.Join(keyNames[1:], ", "))
		}
		all |= Together | 1<<i
	}
	return all, nil
}

// group is some streams whose windows are put together.
type group struct {
	source  Source
	id      holdfast.StreamID
	streams []*candidate
	opened  []*opened // their disclosures
	under   []int     // of each stream, in opened
	spans   []holdfast.Span
	mark    uint64 // the last erasure before it was read
}

// group puts the streams together, in an order that is the same on every page.
func (r *run) group() ([]*group, error) {
	of := map[Source]*group{}
	var all []*group
	for i := range r.streams {
		c := &r.streams[i]
		key := r.req.By.of(c.face())
		g := of[key]
		if g == nil {
			g = &group{source: key}
			sum := sha256.Sum256(fmt.Appendf(nil, "%s %q %q %q %d %s", key.Device, key.Stream, key.Unit, key.Profile, key.Type, key.Owner))
			copy(g.id[:], sum[:])
			of[key] = g
			all = append(all, g)
		}
		g.streams = append(g.streams, c)
	}
	for _, g := range all {
		g.source.Streams = len(g.streams)
		g.spans = union(g.streams)
	}
	slices.SortStableFunc(all, func(a, b *group) int {
		x, y := &a.source, &b.source
		return cmp.Or(cmp.Compare(x.DeviceName, y.DeviceName), slices.Compare(x.Device[:], y.Device[:]), cmp.Compare(x.Stream, y.Stream),
			slices.Compare(x.Owner[:], y.Owner[:]), cmp.Compare(x.Profile, y.Profile), cmp.Compare(x.Unit, y.Unit), cmp.Compare(x.Type, y.Type))
	})
	if at := r.at.stream; !at.IsZero() && !slices.ContainsFunc(all, func(g *group) bool { return g.id == at }) {
		return nil, holdfast.Errorf(holdfast.Conflict, "the group at which the cursor stands is gone: ask again from the start")
	}
	return all, nil
}

// of returns what a stream has of the keys.
func (k Keys) of(s *Source) Source {
	out := Source{Unit: s.Unit, Type: s.Type}
	if k&ByDevice != 0 {
		out.Device, out.DeviceName = s.Device, s.DeviceName
	}
	if k&ByStream != 0 {
		out.Stream = s.Stream
	}
	if k&ByOwner != 0 {
		out.Owner = s.Owner
	}
	if k&ByProfile != 0 {
		out.Profile = s.Profile
	}
	return out
}

// union is what may be read of any of the streams.
func union(streams []*candidate) []holdfast.Span {
	all := make([]holdfast.Span, len(streams))
	for i, c := range streams {
		all[i] = c.Span
	}
	slices.SortFunc(all, func(a, b holdfast.Span) int { return cmp.Compare(a.From, b.From) })
	n := 1
	for _, s := range all[1:] {
		if last := &all[n-1]; last.To == math.MaxInt64 || s.From <= last.To+1 {
			last.To = max(last.To, s.To)
		} else {
			all[n] = s
			n++
		}
	}
	return all[:n]
}

// ofGroups gives the windows of each group, one group after the other.
func (r *run) ofGroups(yield func(Row, error) bool) (step, error) {
	begun := r.at.stream.IsZero()
	for _, g := range r.groups {
		o := &outlet{r: r, key: g.id, source: &g.source, spans: g.spans, yield: yield,
			still: func() error { return r.stillAll(g.streams) }, erased: func(reach holdfast.Span) bool { return r.hiddenFrom(g, reach) }}
		o.account = func(w *Window) { g.account(w) }
		whole := holdfast.Span{From: g.spans[0].From, To: g.spans[len(g.spans)-1].To}
		if g.id == r.at.stream {
			if begun = true; r.at.given == wholeStream {
				continue
			}
			whole.From = max(whole.From, r.at.back)
			o.resume(r.at)
		}
		if !begun {
			continue
		}
		g.register(r)
		if how, err := r.ofGroup(g, whole, o); how != onward || err != nil {
			return how, err
		}
	}
	return onward, nil
}

// register finds the disclosures under which a group's streams are.
func (g *group) register(r *run) {
	at := map[*opened]int{}
	for _, c := range g.streams {
		o := r.of(c)
		i, ok := at[o]
		if !ok {
			i, at[o] = len(g.opened), len(g.opened)
			g.opened = append(g.opened, o)
		}
		g.under = append(g.under, i)
	}
}

func (g *group) account(w *Window) {
	if len(g.opened) == 1 {
		g.opened[0].amount.add(w.Count, w.firstAt, w.lastAt)
		return
	}
	for i, s := range w.shares {
		if s.rows > 0 {
			g.opened[i].amount.add(s.rows, s.first, s.last)
		}
	}
}

// stillAll is still for all that has gone into a group's windows.
func (r *run) stillAll(streams []*candidate) error {
	if !r.old() {
		return nil
	}
	if err := r.j.refresh(r.ctx); err != nil {
		return err
	}
	for _, c := range streams {
		if err := r.again(r.ctx, r.j, c); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) hiddenFrom(g *group, reach holdfast.Span) bool {
	for _, c := range g.streams {
		if r.q.hidden(g.mark, c, reach) {
			return true
		}
	}
	return false
}

// ofGroup reads all streams of a group for as many windows at a time as the memory
// that the read has taken is for; for more where few of them have readings, since
// each part of the span costs a look at every stream.
func (r *run) ofGroup(g *group, span holdfast.Span, o *outlet) (step, error) {
	most := r.windowsAtOnce(g)
	n := most
	if r.req.Limit > 0 {
		n = min(n, max(r.req.Limit-r.given, firstWindows)) // more if these are not enough
	}
	carry := make([]before, len(g.streams))
	g.mark = r.q.erasures.Begun() // once: what comes later may carry on from what came first
	for span.From <= span.To {
		part := holdfast.Span{From: span.From, To: min(span.To, r.plan.ruler.after(span.From, n))}
		kept := slices.Clone(carry)
		all, err := r.gather(g, part, carry, most)
		if err == errOutgrown && n > most { // more of them have readings than before
			n, carry = most, kept
			continue
		}
		if err == errOutgrown && n > 1 { // sketches may be larger than they were taken for
			n, carry, most = max(1, n/4), kept, max(1, n/4)
			continue
		}
		if err == errOutgrown {
			err = r.q.purse.tooLarge()
		}
		if err != nil {
			return onward, err
		}
		for _, w := range all {
			if !o.window(w) {
				return o.how, o.err
			}
		}
		if part.To == math.MaxInt64 {
			break
		}
		span.From = part.To + 1
		if len(all) < n/sparse {
			n = min(sparse*n, MaxWindows)
		} else {
			n = min(2*n, most)
		}
	}
	o.end()
	return o.how, o.err
}

// sparse is how many windows there are for one with readings, where a part of the
// span may hold so many times more.
const sparse = 16

// firstWindows is how many windows of a group a page begins with.
const firstWindows = 1024

// after returns the last instant of the n-th window from the one that t lies in, or
// of one a little before.
func (r ruler) after(t int64, n int) int64 {
	_, _, last := r.around(t)
	if n > 1 {
		if far := last + (int64(n)-1)*int64(r.length()); int64(r.length()) <= (math.MaxInt64-max(last, 0))/int64(n) {
			_, _, last = r.around(far)
		} else {
			last = math.MaxInt64
		}
	}
	return last
}

// errOutgrown says that the windows of a group took more memory than was taken of
// the budget.
var errOutgrown = holdfast.Errorf(holdfast.TooLarge, "the windows outgrow their memory")

// gather reads a span of all streams of a group and puts their windows together, in
// the order of streams, so that sums don't vary. carry is of each stream the last
// reading before the span. It fails with errOutgrown as soon as there are more than
// most.
func (r *run) gather(g *group, span holdfast.Span, carry []before, most int) ([]*Window, error) {
	var tasks []task
	var of []int
	for i, c := range g.streams {
		s := holdfast.Span{From: max(span.From, c.Span.From), To: min(span.To, c.Span.To)}
		if s.From <= s.To {
			tasks = append(tasks, task{c: c, span: s, before: &carry[i]})
			of = append(of, i)
		}
	}
	if len(tasks) == 0 {
		return nil, nil
	}
	all := table{r: r, g: g, at: map[int64]*Window{}}
	outgrown := false
	err := r.fold(tasks, func(i int, w *Window) bool {
		all.put(w, of[i])
		outgrown = len(all.list) > most
		return !outgrown
	}, func(int) bool {
		outgrown = outgrown || all.size() > r.memory
		return !outgrown
	})
	if outgrown {
		return nil, errOutgrown
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all.list, func(a, b *Window) int { return cmp.Compare(a.Start, b.Start) })
	return all.list, nil
}

// table is the windows of a group.
type table struct {
	r    *run
	g    *group
	at   map[int64]*Window
	list []*Window
	hint int // in list: where the next window of a stream is, if the one before it had them too
}

// put takes in a window of a stream of the group.
func (t *table) put(w *Window, stream int) {
	var to *Window
	if t.hint < len(t.list) && t.list[t.hint].Start == w.Start {
		to = t.list[t.hint]
		t.hint++
	} else if to = t.at[w.Start]; to == nil {
		to = &Window{plan: w.plan, typ: w.typ, Start: w.Start, End: w.End, last: w.last}
		if w.sketch != nil {
			to.sketch = t.r.plan.newSketch()
		}
		if len(t.g.opened) > 1 {
			to.shares = make([]amount, len(t.g.opened))
		}
		if t.r.req.crowd != nil {
			to.tally = &tally{}
		}
		t.at[w.Start] = to
		t.list = append(t.list, to)
	}
	to.merge(w)
	if to.tally != nil {
		to.tally.add(t.g.streams[stream].whose(), w)
	}
	if to.shares != nil {
		to.shares[t.g.under[stream]].add(w.Count, w.firstAt, w.lastAt)
	}
}

// size is about the memory that the windows take.
func (t *table) size() int64 {
	t.hint = 0 // a stream has ended
	n := int64(len(t.list)) * windowBytes(len(t.g.opened))
	if t.r.plan.needs&sketches != 0 {
		for _, w := range t.list {
			n += w.sketch.size()
		}
	}
	return n
}
