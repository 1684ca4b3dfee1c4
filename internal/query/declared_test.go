package query_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// building is a landlord and his tenants, whose meters he may ask about together.
type building struct {
	*querytest.House
	t        testing.TB
	landlord access.Principal
	zero     time.Time // start of a day
	tenants  []access.Principal
	meters   []custody.Device
	grants   []grant.Grant
}

func build(t testing.TB, tenants int, o policy.Obligations) *building {
	t.Helper()
	b := &building{House: querytest.Build(t), t: t}
	b.zero = b.Now().UTC().Truncate(24 * time.Hour).Add(-72 * time.Hour)
	b.Purpose("billing")
	b.landlord = b.Program(b.House.Party("Landlord").Party, "billing")
	for range tenants {
		b.moveIn(o, holdfast.Always)
	}
	return b
}

func (b *building) moveIn(o policy.Obligations, data holdfast.Span) int {
	b.t.Helper()
	n := len(b.tenants)
	b.tenants = append(b.tenants, b.House.Party(fmt.Sprint("Tenant ", n)))
	b.meters = append(b.meters, b.Device(custody.DeviceSpec{Label: fmt.Sprint("meter ", n), Owner: b.tenants[n].Party}))
	b.grants = append(b.grants, b.let(n, o, data))
	return n
}

func (b *building) let(n int, o policy.Obligations, data holdfast.Span) grant.Grant {
	b.t.Helper()
	return b.Grant(b.tenants[n], grant.Spec{
		Recipient: b.landlord.Party, Purpose: "billing", AllDevices: true, Streams: []string{"energy"}, Data: data, Until: b.Now().AddDate(1, 0, 0), Obligations: o,
	})
}

func (b *building) end(n int) {
	b.t.Helper()
	if err := b.Register.End(b.t.Context(), b.Caller(b.tenants[n]), b.grants[n].ID); err != nil {
		b.t.Fatal(err)
	}
}

func (b *building) use(n int, after time.Duration, kwh float64) {
	b.t.Helper()
	b.Send(b.meters[n], querytest.At("energy", b.zero.Add(after), holdfast.NumberValue(kwh)))
}

func (b *building) declare(name string, every string, members ...int) query.Request {
	b.t.Helper()
	s := grant.GroupSpec{Name: name, Every: every, Zone: "UTC"}
	for _, n := range members {
		s.Devices = append(s.Devices, b.meters[n].ID)
	}
	g, err := b.Register.AddGroup(b.t.Context(), b.landlord.Credential, b.landlord.Party, s)
	if err != nil {
		b.t.Fatal(err)
	}
	return query.Request{
		Who: b.landlord, Selection: query.Selection{Group: g.ID, Stream: "energy"}, Span: b.days(0, 2), Aggregates: []query.Aggregate{query.Sum, query.Count},
	}
}

func (b *building) days(from, to int) holdfast.Span {
	return holdfast.Span{From: b.zero.AddDate(0, 0, from).UnixNano(), To: b.zero.AddDate(0, 0, to).UnixNano() - 1}
}

// sums is the day and the sum of each window.
func (b *building) sums(r query.Request) (all []string) {
	b.t.Helper()
	rows, _ := collect(b.t, b.Query, r)
	for _, row := range rows {
		v, _ := row.Window.Value(query.Sum)
		all = append(all, fmt.Sprint((row.Window.Start-b.zero.UnixNano())/int64(24*time.Hour), "=", v.Number()))
	}
	return all
}

// turnedDown returns the text of a refusal of that kind, which may come when rows are
// asked for.
func (b *building) turnedDown(kind holdfast.Kind, r query.Request) string {
	b.t.Helper()
	res, err := b.Query.Read(b.t.Context(), r)
	if err == nil {
		for _, err = range res.Rows {
			if err == nil {
				b.t.Fatal("a row was given")
			}
		}
	}
	if err == nil || holdfast.KindOf(err) != kind {
		b.t.Fatalf("%v, want %v", err, kind)
	}
	return err.Error()
}

func members(from, to int) (all []int) {
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

// TestLandlord tells of a building whose tenants are counted together.
func TestLandlord(t *testing.T) {
	k3 := policy.Obligations{MinGroup: 3}
	b := build(t, 6, k3)
	for n := range 6 {
		for day := range 3 {
			b.use(n, time.Duration(day*24+n)*time.Hour, float64(n+1))
		}
	}
	house := b.declare("house", "1d", 0, 1, 2, 3, 4, 5)
	if diff := cmp.Diff([]string{"0=21", "1=21"}, b.sums(house)); diff != "" {
		t.Error(diff)
	}
	t.Run("the same again", func(t *testing.T) {
		if diff := cmp.Diff([]string{"0=21", "1=21"}, b.sums(house)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a part of a window is not a window", func(t *testing.T) {
		part := house
		part.Span.From += int64(time.Hour)
		if diff := cmp.Diff([]string{"1=21"}, b.sums(part)); diff != "" {
			t.Error(diff)
		}
		part.Span = b.days(2, 5) // the last day is not over
		if diff := cmp.Diff([]string{"2=21"}, b.sums(part)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("what is refused", func(t *testing.T) {
		for want, change := range map[string]func(*query.Request){
			"no other: leave every": func(r *query.Request) { r.Every = time.Hour },
			"no other: leave":       func(r *query.Request) { r.Calendar = query.Calendar{Days: 2} },
			"and no other": func(r *query.Request) {
				z, _ := query.ParseZone("Europe/Warsaw")
				r.Calendar = query.Calendar{Days: 1, Zone: z}
			},
			"not max, which can be": func(r *query.Request) { r.Aggregates = []query.Aggregate{query.Max} },
			"not stddev":            func(r *query.Request) { r.Aggregates = []query.Aggregate{query.Stddev} },
			"not p50":               func(r *query.Request) { r.Aggregates = []query.Aggregate{query.Quantile(500_000)} },
			"are not filled":        func(r *query.Request) { r.Fill = query.FillNull },
			"comes whole":           func(r *query.Request) { r.Limit = 1 },
			"":                      func(r *query.Request) { r.Stream = "water" },
			"the one whose data it is can make one f": func(r *query.Request) {
				r.Selection, r.Aggregates = query.Selection{Device: b.meters[0].ID, Stream: "energy"}, nil
			},
		} {
			r := house
			change(&r)
			if msg := b.turnedDown(holdfast.Denied, r); !strings.Contains(msg, want) {
				t.Errorf("%q, want %q", msg, want)
			}
		}
		r := house
		r.By = query.ByDevice
		b.turnedDown(holdfast.Invalid, r)
		r = house
		r.Who = b.Program(b.House.Party("Another").Party, "billing")
		other := b.turnedDown(holdfast.NotFound, r)
		if r.Group = holdfast.NewID[holdfast.GroupID](); b.turnedDown(holdfast.NotFound, r) != other {
			t.Error("a group of another's is told from none")
		}
	})
	t.Run("one less is refused, three less are not", func(t *testing.T) {
		next := house
		next.Span = b.days(2, 3)
		b.end(5)
		if msg := b.turnedDown(holdfast.Denied, next); !strings.Contains(msg, "fewer than 3 data subjects of the group") {
			t.Error(msg)
		}
		b.end(4)
		b.turnedDown(holdfast.Denied, next)
		b.end(3)
		if msg := b.turnedDown(holdfast.Denied, next); !strings.Contains(msg, "a window that you were told of has changed") {
			t.Error(msg) // of the same day there was another answer
		}
		for n := range 3 {
			b.use(n, 3*24*time.Hour+time.Duration(n)*time.Minute, 10)
		}
		b.Later(48 * time.Hour)
		next.Span = b.days(3, 4)
		if diff := cmp.Diff([]string{"3=30"}, b.sums(next)); diff != "" {
			t.Error(diff)
		}
		b.grants[3] = b.let(3, k3, holdfast.Always)
		b.turnedDown(holdfast.Denied, next)
	})
	t.Run("overlapping groups", func(t *testing.T) {
		two := b.declare("others", "1d", 0, 1, 2)
		two.Span = b.days(4, 5)
		if msg := b.turnedDown(holdfast.Denied, two); !strings.Contains(msg, "shares data subjects with another") {
			t.Error(msg)
		}
	})
}

// TestLateReadingsOfAGroup: a window is told the same or not at all.
func TestLateReadingsOfAGroup(t *testing.T) {
	b := build(t, 4, policy.Obligations{MinGroup: 3})
	for n := range 4 {
		b.use(n, time.Hour, 1)
		b.use(n, 25*time.Hour, 1)
	}
	house := b.declare("house", "1d", members(0, 4)...)
	house.Span = b.days(0, 1)
	b.sums(house)
	b.use(2, 2*time.Hour, 0.5) // late
	if msg := b.turnedDown(holdfast.Denied, house); !strings.Contains(msg, "has changed since, by readings that came late") {
		t.Error(msg)
	}
	mean := house
	mean.Aggregates = []query.Aggregate{query.Mean}
	b.turnedDown(holdfast.Denied, mean)
	house.Span = b.days(1, 2)
	if diff := cmp.Diff([]string{"1=4"}, b.sums(house)); diff != "" {
		t.Error(diff)
	}
}

// TestWindowsOfTooFew: a window with readings of fewer, or of one above all, is
// withheld; a member who lets less time be seen counts for no part of more.
func TestWindowsOfTooFew(t *testing.T) {
	b := build(t, 5, policy.Obligations{MinGroup: 3})
	for n := range 5 {
		b.use(n, time.Hour, 1)
		if n < 2 {
			b.use(n, 25*time.Hour, 1) // two of day 1
		}
		b.use(n, 49*time.Hour, []float64{1, 1, 1, 1, 1000}[n]) // one above all of day 2
	}
	late := b.moveIn(policy.Obligations{MinGroup: 3}, b.days(1, 3))
	b.use(late, 2*time.Hour, 5)
	all := b.declare("house", "1d", members(0, 6)...)
	all.Span = b.days(0, 3)
	if diff := cmp.Diff([]string{"0=5"}, b.sums(all)); diff != "" {
		t.Error(diff)
	}
	all.Span = b.days(1, 3) // where he would count
	if msg := b.turnedDown(holdfast.Denied, all); !strings.Contains(msg, "have changed") {
		t.Error(msg)
	}
	two := build(t, 2, policy.Obligations{MinGroup: 3})
	two.use(0, time.Hour, 1)
	two.use(1, time.Hour, 1)
	if msg := two.turnedDown(holdfast.Denied, two.declare("house", "1d", 0, 1)); !strings.Contains(msg, "too few") {
		t.Error(msg)
	}
}

// TestStrictestOfAGroup: the largest number and the longest delay hold for all, and
// who lets himself be read alone is not among them.
func TestStrictestOfAGroup(t *testing.T) {
	b := build(t, 3, policy.Obligations{MinGroup: 3})
	b.moveIn(policy.Obligations{MinGroup: 4, Delay: 30 * time.Hour}, holdfast.Always)
	b.moveIn(policy.Obligations{}, holdfast.Always)
	for n := range 5 {
		b.use(n, time.Hour, 1)
		b.use(n, 25*time.Hour, 1)
	}
	b.Later(b.zero.Add(50 * time.Hour).Sub(b.Now()))
	for n := range 5 { // of now, as the house has it
		b.end(n)
		o := policy.Obligations{MinGroup: 3}
		if n == 3 {
			o = policy.Obligations{MinGroup: 4, Delay: 30 * time.Hour}
		} else if n == 4 {
			o = policy.Obligations{}
		}
		b.let(n, o, holdfast.Always)
	}
	house := b.declare("house", "1d", members(0, 5)...)
	if diff := cmp.Diff([]string(nil), b.sums(house)); diff != "" {
		t.Error(diff)
	}
	b.Later(5 * time.Hour)
	if diff := cmp.Diff([]string{"0=4"}, b.sums(house)); diff != "" {
		t.Error(diff)
	}
}

// TestNoSubsetOfAGroupIsTold: whatever a landlord declares and asks while tenants come
// and go, no two answers about one window have fewer than k data subjects between
// them, and none is about fewer.
func TestNoSubsetOfAGroupIsTold(t *testing.T) {
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 5))
	const k = 3
	b := build(t, 10, policy.Obligations{MinGroup: k})
	for n := range 10 {
		for day := range 4 { // of each tenant and day a number of his own: sums tell who is in them
			b.use(n, time.Duration(day*24)*time.Hour+time.Duration(n)*time.Minute, float64(int64(1)<<20+int64(1)<<n))
		}
	}
	live := slices.Repeat([]bool{true}, 10)
	groups := []query.Request{b.declare("left", "1d", members(0, 5)...), b.declare("right", "12h", members(5, 10)...)}
	answers := map[string]map[int64]bool{} // of a day, the sets that were told
	asked, told := 0, 0
	ask := func(r query.Request) {
		asked++
		res, err := b.Query.Read(t.Context(), r)
		if err != nil {
			return
		}
		for row, err := range res.Rows {
			if err != nil {
				return
			}
			told++
			v, _ := row.Window.Value(query.Sum)
			day := fmt.Sprint((row.Window.Start - b.zero.UnixNano()) / int64(24*time.Hour))
			if answers[day] == nil {
				answers[day] = map[int64]bool{}
			}
			answers[day][int64(v.Number())&(1<<20-1)] = true
		}
	}
	ask(groups[0])
	ask(groups[1])
	for n := 0; n < 300 || told < 4; n++ {
		if n == 6000 {
			t.Fatalf("of %d questions %d windows were told", asked, told)
		}
		switch draw.IntN(4) {
		case 0:
			if len(groups) < 8 {
				var who []int
				for n := range 10 {
					if draw.IntN(2) == 0 {
						who = append(who, n)
					}
				}
				if len(who) > 0 {
					groups = append(groups, b.declare(fmt.Sprint("group ", len(groups)), []string{"1d", "12h"}[draw.IntN(2)], who...))
				}
			}
		case 1:
			if draw.IntN(5) > 0 {
				continue
			}
			n := draw.IntN(10)
			if live[n] {
				b.end(n)
			} else {
				b.grants[n] = b.let(n, policy.Obligations{MinGroup: k}, b.days(draw.IntN(8)/7, 4))
			}
			live[n] = !live[n]
		default:
			r := groups[draw.IntN(len(groups))]
			r.Span = b.days(draw.IntN(3), 1+draw.IntN(3))
			if r.Span.From <= r.Span.To {
				ask(r)
			}
		}
	}
	for day, sets := range answers {
		for s := range sets {
			if ones(s) < k {
				t.Errorf("day %s: a set of %d was told", day, ones(s))
			}
			for other := range sets {
				if s != other && s&other != 0 {
					t.Errorf("day %s: two answers have %d in common and %d between them", day, ones(s&other), ones(s^other))
				}
			}
		}
	}
}

func ones(s int64) (n int) {
	for ; s > 0; s &= s - 1 {
		n++
	}
	return n
}
