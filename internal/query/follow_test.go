package query_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// reader takes the items of a feed one by one.
type reader struct {
	t      testing.TB
	feed   *query.Feed
	next   func() (query.Item, error, bool)
	stop   func()
	cursor string
	resets int
}

func follow(t testing.TB, h *querytest.House, f query.Follow) *reader {
	t.Helper()
	feed, err := h.Query.Follow(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, feed: feed}
	r.next, r.stop = iter.Pull2(feed.Items)
	t.Cleanup(r.close)
	return r
}

func (r *reader) close() {
	r.stop()
	if err := r.feed.Close(); err != nil && r.t.Context().Err() == nil {
		r.t.Error(err)
	}
}

// rows takes n readings.
func (r *reader) rows(n int) (all []string) {
	r.t.Helper()
	for tries := 0; len(all) < n; tries++ {
		item, err, ok := r.next()
		if err != nil || !ok || tries > 2000+n {
			r.t.Fatalf("the feed ended after %q: %v", all, err)
		}
		r.cursor = item.Cursor
		if item.Reset != "" {
			r.resets++
		}
		if item.Row != nil {
			all = append(all, say(item.Row))
		}
	}
	return all
}

func say(r *query.Row) string {
	return fmt.Sprintf("%s %d %v", r.Stream, r.Time, r.Value)
}

// quiet takes items until one comes without a reading.
func (r *reader) quiet() (all []string) {
	r.t.Helper()
	for {
		item, err, ok := r.next()
		if err != nil || !ok {
			r.t.Fatalf("the feed ended after %q: %v", all, err)
		}
		r.cursor = item.Cursor
		if item.Row == nil {
			return all
		}
		all = append(all, say(item.Row))
	}
}

// ends takes items until the feed ends with an error.
func (r *reader) ends() error {
	r.t.Helper()
	for range 1000 {
		if _, err, ok := r.next(); err != nil || !ok {
			return err
		}
	}
	r.t.Fatal("the feed does not end")
	return context.Canceled
}

func TestFollow(t *testing.T) {
	h := querytest.Build(t)
	anna := h.Party("Anna Kowalska")
	d := h.Device(custody.DeviceSpec{Label: "thermo", Owner: anna.Party})
	zero := h.Now()
	send := func(n int) string {
		h.Send(d, querytest.At("temp", zero.Add(time.Duration(n)*time.Second), holdfast.NumberValue(float64(n))))
		return fmt.Sprintf("temp %d %v", zero.Add(time.Duration(n)*time.Second).UnixNano(), holdfast.NumberValue(float64(n)))
	}
	send(0)
	r := follow(t, h, query.Follow{Who: anna, Selection: query.Selection{Party: anna.Party}, Idle: time.Second})
	for n := 1; n < 5; n++ {
		want := send(n)
		if got := r.rows(1); got[0] != want {
			t.Errorf("got %s, want %s", got[0], want)
		}
		send(n) // again: it has come
	}
	r.close()
	want := []string{send(5), send(6)}
	send(6)
	r = follow(t, h, query.Follow{Who: anna, Selection: query.Selection{Party: anna.Party}, After: r.cursor, Idle: 100 * time.Millisecond})
	if got := r.quiet(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after the cursor came %q, want %q", got, want)
	}
	r = follow(t, h, query.Follow{Who: anna, Selection: query.Selection{Party: anna.Party}, From: zero.UnixNano(), Idle: 100 * time.Millisecond})
	if got := r.quiet(); len(got) != 7 {
		t.Errorf("from the beginning came %q", got)
	}
}

func TestFollowersSeeWhatJoins(t *testing.T) {
	h := querytest.Build(t)
	anna := h.Party("Anna Kowalska")
	one := h.Device(custody.DeviceSpec{Label: "one", Owner: anna.Party})
	at := h.Now()
	h.Send(one, querytest.At("temp", at, holdfast.NumberValue(0)))
	r := follow(t, h, query.Follow{Who: anna, Selection: query.Selection{Party: anna.Party}, Idle: 20 * time.Millisecond})
	for n := range 5 {
		d := h.Device(custody.DeviceSpec{Label: fmt.Sprint("more ", n), Owner: anna.Party})
		h.Send(d, querytest.At("first", at, holdfast.NumberValue(1)))
		h.Send(one, querytest.At(fmt.Sprint("fresh ", n), at, holdfast.NumberValue(2)))
		if got := r.rows(2); len(r.feed.Sources()) != 3+2*n {
			t.Errorf("after %q there are %d sources", got, len(r.feed.Sources()))
		}
	}
	if got := r.quiet(); len(got) != 0 {
		t.Errorf("then came %q", got)
	}
	if len(r.feed.Disclosures()) != 1 {
		t.Errorf("disclosures %v", r.feed.Disclosures())
	}
}

func TestFollowRefuses(t *testing.T) {
	h := lend(t, policy.Obligations{Every: 15 * time.Minute})
	d := h.device("meter")
	h.Send(d, h.at(0, "power", holdfast.NumberValue(1)))
	other := h.Party("Bo Nilsson")
	all := query.Selection{Party: h.anna.Party}
	cursor := func() string {
		r := follow(t, h.House, query.Follow{Who: h.anna, Selection: all, Idle: time.Millisecond})
		r.quiet()
		return r.cursor
	}()
	forged := []byte(cursor)
	forged[len(forged)/2] ^= 1
	for name, c := range map[string]struct {
		f    query.Follow
		kind holdfast.Kind
		says string
	}{
		"windows":          {query.Follow{Who: h.lab, Selection: all}, holdfast.Denied, "windows of 15m0s"},
		"a stranger":       {query.Follow{Who: other, Selection: all}, holdfast.Denied, ""},
		"a group":          {query.Follow{Who: h.anna, Selection: query.Selection{Group: holdfast.NewID[holdfast.GroupID](), Stream: "power"}}, holdfast.Invalid, "by a read"},
		"a forged cursor":  {query.Follow{Who: h.anna, Selection: all, After: string(forged)}, holdfast.Invalid, "cursor"},
		"a short cursor":   {query.Follow{Who: h.anna, Selection: all, After: cursor[:40]}, holdfast.Invalid, "cursor"},
		"another question": {query.Follow{Who: h.anna, Selection: query.Selection{Device: d.ID}, After: cursor}, holdfast.Invalid, "cursor"},
		"another reader":   {query.Follow{Who: other, Selection: query.Selection{Party: other.Party}, After: cursor}, holdfast.Invalid, "cursor"},
	} {
		feed, err := h.Query.Follow(t.Context(), c.f)
		if holdfast.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if feed != nil {
			feed.Close()
		}
	}
}

func TestFollowEndsWithTheRight(t *testing.T) {
	h := lend(t, policy.Obligations{})
	d := h.device("meter")
	g := h.lend(policy.Obligations{}, holdfast.Always)
	h.Send(d, h.at(0, "power", holdfast.NumberValue(1)))
	r := follow(t, h.House, query.Follow{Who: h.lab, Selection: query.Selection{Party: h.anna.Party}, Grant: g.ID, Idle: 5 * time.Millisecond})
	h.Send(d, h.at(time.Second, "power", holdfast.NumberValue(1)))
	r.rows(1)
	if err := h.Register.End(t.Context(), h.Caller(h.anna), g.ID); err != nil {
		t.Fatal(err)
	}
	h.Send(d, h.at(2*time.Second, "power", holdfast.NumberValue(1)))
	item, err, ok := r.next()
	for ok && err == nil && item.Row == nil {
		item, err, ok = r.next()
	}
	if holdfast.KindOf(err) != holdfast.Denied || item.Row != nil {
		t.Errorf("the feed ends with %v, %v", item.Row, err)
	}
	of, err := h.Register.Tallies(t.Context(), h.anna.Party)
	if err != nil || len(of) != 1 || of[0].Rows != 1 {
		t.Errorf("on record are %+v, %v", of, err)
	}
}

// A right ends by the clock while a reader is slow: what he has not taken he does not get,
// even if it was read together with what he has.
func TestFollowEndsWithTheRightOfASlowReader(t *testing.T) {
	h := querytest.Build(t)
	h.Purpose("study")
	anna, lab := h.Party("Anna"), h.Party("Lab")
	d := h.Device(custody.DeviceSpec{Label: "meter", Owner: anna.Party})
	var all []holdfast.Sample
	for n := range 20 {
		all = append(all, querytest.At("power", h.Now().Add(time.Duration(n-60)*time.Second), holdfast.NumberValue(float64(n))))
	}
	h.Send(d, all...)
	h.Grant(anna, grant.Spec{Recipient: lab.Party, Purpose: "study", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: h.Now().Add(time.Hour)})
	r := follow(t, h, query.Follow{Who: h.Program(lab.Party, "study"), Selection: query.Selection{Party: anna.Party}, From: 1, Idle: time.Second})
	r.rows(2)
	h.Later(2 * time.Hour)
	item, err, ok := r.next()
	if holdfast.KindOf(err) != holdfast.Denied || !ok || item.Row != nil {
		t.Errorf("the next item is %v, %v", item.Row, err)
	}
}

func TestFollowersCarryOutObligations(t *testing.T) {
	h := lend(t, policy.Obligations{Delay: 10 * time.Minute, Step: 0.5, Drop: []policy.Field{policy.FieldSequence}})
	d := h.device("meter")
	now := h.Now()
	say := func(n int, v float64) {
		x := querytest.At("power", now.Add(time.Duration(n)*time.Minute), holdfast.NumberValue(v))
		x.Seq = uint64(n + 100)
		h.Send(d, x)
	}
	value := func(n int, v string) string {
		return fmt.Sprintf("power %d %s", now.Add(time.Duration(n)*time.Minute).UnixNano(), v)
	}
	ask := query.Follow{Who: h.lab, Selection: query.Selection{Party: h.anna.Party}, Idle: 5 * time.Millisecond}
	say(-30, 1)
	r := follow(t, h.House, ask)
	say(-20, 2.3) // late, and old enough
	say(-9, 3.3)
	say(0, 4.2)
	show := func(f float64) string { return fmt.Sprint(holdfast.NumberValue(f)) }
	if got, want := r.quiet(), []string{value(-20, show(2.5))}; !slices.Equal(got, want) {
		t.Errorf("at once came %q, want %q", got, want)
	}
	h.Later(2 * time.Minute)
	if got, want := r.rows(1), []string{value(-9, show(3.5))}; !slices.Equal(got, want) {
		t.Errorf("after two minutes came %q, want %q", got, want)
	}
	r.close()
	h.Roll()
	ask.After = r.cursor
	h.Later(9 * time.Minute)
	r = follow(t, h.House, ask)
	if got, want := r.rows(1), []string{value(0, show(4))}; !slices.Equal(got, want) {
		t.Errorf("after eleven minutes came %q, want %q", got, want)
	}
	if got := r.quiet(); len(got) > 0 {
		t.Errorf("then came %q", got)
	}
}

func TestFollowersSeeNothingThatIsErased(t *testing.T) {
	h := querytest.Build(t)
	anna := h.Party("Anna Kowalska")
	d := h.Device(custody.DeviceSpec{Label: "one", Owner: anna.Party})
	at := h.Now()
	send := func(n int) { h.Send(d, querytest.At("temp", at.Add(time.Duration(n)), holdfast.NumberValue(0))) }
	send(0)
	var e erasing
	h.Query = budgeted(h, query.Options{Erasures: &e, Recheck: time.Nanosecond})
	r := follow(t, h, query.Follow{Who: anna, Selection: query.Selection{Party: anna.Party}, Idle: 5 * time.Millisecond})
	send(1)
	r.rows(1)
	for n := 10; n < 20; n++ {
		send(n)
	}
	r.rows(2) // the others are in its hands, or in the queue
	e.begun, e.span = 1, holdfast.Span{From: at.UnixNano() + 14, To: at.UnixNano() + 17}
	if got := append(r.rows(4), r.quiet()...); len(got) != 4 {
		t.Errorf("while it goes on came %q", got)
	}
	e.over = true
	if err := h.Series.Forget(t.Context(), holdfast.Scope{Assignments: []holdfast.AssignmentID{d.Assignment}}); err != nil {
		t.Fatal(err)
	}
	h.Send(d, querytest.At("temp", at.Add(15), holdfast.NumberValue(1))) // there are no bars in this house
	if got := r.rows(1); len(got) != 1 {
		t.Errorf("afterwards came %q", got)
	}
}

func TestSlowReaderIsCut(t *testing.T) {
	h := querytest.Build(t)
	anna := h.Party("Anna Kowalska")
	d := h.Device(custody.DeviceSpec{Label: "one", Owner: anna.Party})
	h.Send(d, querytest.At("temp", h.Now(), holdfast.NumberValue(0)))
	h.Query = budgeted(h, query.Options{Slow: time.Nanosecond})
	r := follow(t, h, query.Follow{Who: anna, Selection: query.Selection{Party: anna.Party}, From: 1})
	r.rows(1)
	if err := r.ends(); holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "not read") {
		t.Errorf("it ends with %v", err)
	}
}

func TestOldCursorIsReset(t *testing.T) {
	h := querytest.Build(t)
	h.Window = -1 // nothing is kept longer than to the next merge
	h.Restart()
	anna := h.Party("Anna Kowalska")
	d := h.Device(custody.DeviceSpec{Label: "one", Owner: anna.Party})
	send := func(n int) string {
		at := h.Now().Add(time.Duration(n) * time.Second)
		h.Send(d, querytest.At("temp", at, holdfast.NumberValue(float64(n))))
		return fmt.Sprintf("temp %d %v", at.UnixNano(), holdfast.NumberValue(float64(n)))
	}
	send(0)
	ask := query.Follow{Who: anna, Selection: query.Selection{Party: anna.Party}, Idle: 5 * time.Millisecond}
	r := follow(t, h, ask)
	send(1)
	r.rows(1)
	r.close()
	want := []string{send(2), send(3)}
	h.Roll()
	if err := h.Series.Merge(t.Context()); err != nil {
		t.Fatal(err)
	}
	want = append(want, send(4))
	ask.After = r.cursor
	r = follow(t, h, ask)
	item, err, _ := r.next()
	if err != nil || item.Row != nil || !strings.Contains(item.Reset, "again") {
		t.Fatalf("the cursor was taken: %+v, %v", item, err)
	}
	got := r.quiet()
	for _, x := range want {
		if !slices.Contains(got, x) {
			t.Errorf("%s is missing in %q", x, got)
		}
	}
	send(5)
	r.rows(1)
	ask.After = r.cursor
	if r = follow(t, h, ask); r.resets > 0 || len(r.quiet()) > 0 {
		t.Error("a fresh cursor does not go on")
	}
}
