package policy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

func party(n byte) holdfast.PartyID           { return holdfast.PartyID{n} }
func device(n byte) holdfast.DeviceID         { return holdfast.DeviceID{n} }
func assignment(n byte) holdfast.AssignmentID { return holdfast.AssignmentID{n} }

var (
	acme, ada, bob, lab = party(1), party(2), party(3), party(4)
	all                 = holdfast.Always
)

// Decisions know milliseconds.
const (
	tick = int64(1_000_000)
	now  = 1_000_000 * tick
)

// grant is Ada's to the lab, for research, of everything.
func grant(change ...func(*Grant)) Grant {
	g := Grant{ID: holdfast.GrantID{9}, Grantor: ada, Recipient: lab, Purpose: "research", AllDevices: true, AllStreams: true, Data: all, Until: now + tick}
	for _, f := range change {
		f(&g)
	}
	return g
}

// ask is the lab asking for Ada's pulse, for research.
func ask(change ...func(*Request)) Request {
	r := Request{
		Reader: Recipient, ReaderParty: lab, HeldPurposes: []holdfast.Purpose{"research"}, Purpose: "research", Live: true,
		Operating: acme, Owner: ada, Device: device(1), Assignment: assignment(1), Stream: "pulse", Span: all, Now: now,
	}
	for _, f := range change {
		f(&r)
	}
	return r
}

// decide answers r with those of the grants that are of the one whose data it is, as
// a register does.
func decide(t *testing.T, r Request, grants []Grant) Decision {
	t.Helper()
	var his []Grant
	for _, g := range grants {
		if g.Grantor == r.Whose() && g.Purpose != holdfast.OwnAccess {
			his = append(his, g)
		}
	}
	s, err := Compile(r.Whose(), his, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.Decide(r)
}

func TestDecide(t *testing.T) {
	owner := func(p holdfast.PartyID) func(*Request) {
		return func(r *Request) {
			r.Reader, r.ReaderParty, r.HeldPurposes, r.Purpose, r.Live = Owner, p, nil, holdfast.OwnAccess, true
		}
	}
	staff := func(r *Request) {
		r.Reader, r.ReaderParty, r.HeldPurposes, r.Purpose = Staff, acme, []holdfast.Purpose{holdfast.Operation, "research"}, holdfast.Operation
	}
	acmes := func(r *Request) { r.Owner = acme }
	allow := func(reason string) Decision { return Decision{Allow: true, Reason: reason, Span: all} }
	deny := func(reason string) Decision { return Decision{Reason: reason} }
	granted := Decision{Allow: true, Reason: ByGrant, Grant: holdfast.GrantID{9}, Span: all}

	for _, c := range []struct {
		what   string
		r      Request
		grants []Grant
		want   Decision
	}{
		{"the owner reads his own data", ask(owner(ada)), nil, allow(ByOwner)},
		{"another owner does not", ask(owner(bob)), nil, deny(NotOwn)},
		{"own-access is no purpose for a program of the same party", ask(owner(ada), func(r *Request) { r.Reader = Recipient }), nil, deny(NotOwn)},
		{"nor for staff who were given it", ask(staff, acmes, func(r *Request) {
			r.Purpose, r.HeldPurposes = holdfast.OwnAccess, []holdfast.Purpose{holdfast.OwnAccess}
		}), nil, deny(NotOwn)},
		{"nor with a grant that names it", ask(func(r *Request) {
			r.Purpose, r.HeldPurposes = holdfast.OwnAccess, []holdfast.Purpose{holdfast.OwnAccess}
		}),
			[]Grant{grant(func(g *Grant) { g.Purpose = holdfast.OwnAccess })}, deny(NotOwn)},

		{"staff read the organisation's own devices", ask(staff, acmes), nil, allow(ByRole)},
		{"under another live purpose that they hold", ask(staff, acmes, func(r *Request) { r.Purpose = "research" }), nil, allow(ByRole)},
		{"not under one that they don't hold", ask(staff, acmes, func(r *Request) { r.Purpose = "marketing" }), nil, deny(NoPurpose)},
		{"not without a purpose", ask(staff, acmes, func(r *Request) { r.Purpose = "" }), nil, deny(NoPurpose)},
		{"not under an empty purpose that they hold", ask(staff, acmes, func(r *Request) { r.Purpose, r.HeldPurposes = "", []holdfast.Purpose{""} }), nil, deny(NoPurpose)},
		{"not under one that has ended", ask(staff, acmes, func(r *Request) { r.Live = false }), nil, deny(NotLive)},
		{"staff don't read an owner's devices", ask(staff), nil, deny(NoGrant)},
		{"staff of another party have no role", ask(staff, acmes, func(r *Request) { r.ReaderParty = lab }), nil, deny(NoGrant)},
		{"a program of the organisation has no role", ask(staff, acmes, func(r *Request) { r.Reader = Recipient }), nil, deny(NoGrant)},
		{"staff don't read of a worker by role", ask(staff, acmes, func(r *Request) { r.Subject = bob }), nil, deny(NoGrant)},
		{"the organisation's grant to itself is no way around", ask(staff, acmes, func(r *Request) { r.Subject = bob }),
			[]Grant{grant(func(g *Grant) { g.Grantor, g.Recipient, g.Purpose = acme, acme, holdfast.Operation })}, deny(NoGrant)},
		{"another's device that is about the organisation is not its own", ask(staff, func(r *Request) { r.Subject = acme }), nil, deny(NoGrant)},
		{"the worker's grant is the way", ask(staff, acmes, func(r *Request) { r.Subject = bob }),
			[]Grant{grant(func(g *Grant) { g.Grantor, g.Recipient, g.Purpose = bob, acme, holdfast.Operation })}, granted},
		{"the worker reads what is about him", ask(owner(bob), acmes, func(r *Request) { r.Subject = bob }), nil, allow(ByOwner)},
		{"the owner does not read what is about another", ask(owner(ada), func(r *Request) { r.Subject = bob }), nil, deny(NotOwn)},

		{"a grant lets its recipient read", ask(), []Grant{grant()}, granted},
		{"an administrator with a grant to his party too", ask(staff), []Grant{grant(func(g *Grant) { g.Recipient, g.Purpose = acme, holdfast.Operation })}, granted},
		{"an owner may be a recipient", ask(func(r *Request) { r.Reader, r.ReaderParty = Owner, bob }), []Grant{grant(func(g *Grant) { g.Recipient = bob })}, granted},
		{"not another party", ask(func(r *Request) { r.ReaderParty = bob }), []Grant{grant()}, deny(NoGrant)},
		{"not for another purpose", ask(), []Grant{grant(func(g *Grant) { g.Purpose = "marketing" })}, deny(NoGrant)},
		{"not for a purpose that the reader doesn't hold", ask(func(r *Request) { r.HeldPurposes = nil }), []Grant{grant()}, deny(NoPurpose)},
		{"not for a purpose that has ended", ask(func(r *Request) { r.Live = false }), []Grant{grant()}, deny(NotLive)},
		{"not of another owner's data", ask(func(r *Request) { r.Owner = bob }), []Grant{grant()}, deny(NoGrant)},
		{"not of nobody's data", ask(func(r *Request) { r.Owner = holdfast.PartyID{} }), []Grant{grant(func(g *Grant) { g.Grantor = holdfast.PartyID{} })}, deny(NobodysData)},
		{"not once it has expired", ask(), []Grant{grant(func(g *Grant) { g.Until = now })}, deny(NoGrant)},
		{"not once it has ended", ask(), []Grant{grant(func(g *Grant) { g.Ended = true })}, deny(NoGrant)},
		{"not before it was made", ask(), []Grant{grant(func(g *Grant) { g.Made = now + tick })}, deny(NoGrant)},
		{"of a device it names", ask(), []Grant{grant(func(g *Grant) { g.AllDevices, g.Devices = false, []holdfast.DeviceID{device(7), device(1)} })}, granted},
		{"not of one it doesn't", ask(), []Grant{grant(func(g *Grant) { g.AllDevices, g.Devices = false, []holdfast.DeviceID{device(7)} })}, deny(NoGrant)},
		{"no device named is none, not all", ask(), []Grant{grant(func(g *Grant) { g.AllDevices = false })}, deny(NoGrant)},
		{"of a stream it names", ask(), []Grant{grant(func(g *Grant) { g.AllStreams, g.Streams = false, []string{"pulse"} })}, granted},
		{"not of one it doesn't", ask(), []Grant{grant(func(g *Grant) { g.AllStreams, g.Streams = false, []string{"steps"} })}, deny(NoGrant)},
		{"no stream named is none, not all", ask(), []Grant{grant(func(g *Grant) { g.AllStreams = false })}, deny(NoGrant)},
		{"a reader of no party reads nothing", ask(func(r *Request) { r.ReaderParty = holdfast.PartyID{} }), []Grant{grant(func(g *Grant) { g.Recipient = holdfast.PartyID{} })}, deny(NoReader)},
		{"a reader of no kind neither", Request{}, nil, deny(NoReader)},
		{"the grant that the reader names", ask(func(r *Request) { r.Grant = holdfast.GrantID{8} }),
			[]Grant{grant(), grant(func(g *Grant) { g.ID, g.Data = holdfast.GrantID{8}, holdfast.Span{From: 3, To: 4} })},
			Decision{Allow: true, Reason: ByGrant, Grant: holdfast.GrantID{8}, Span: holdfast.Span{From: 3, To: 4}}},
		{"one that the reader names must fit", ask(func(r *Request) { r.Grant = holdfast.GrantID{8} }), []Grant{grant()}, deny(NoGrant)},
	} {
		got := decide(t, c.r, c.grants)
		got.Policies = nil
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.what, diff)
		}
	}
}

func TestGrantClipsTheSpan(t *testing.T) {
	window := func(from, to int64) func(*Grant) {
		return func(g *Grant) { g.Data = holdfast.Span{From: from, To: to} }
	}
	for _, c := range []struct {
		asked holdfast.Span
		data  holdfast.Span
		want  holdfast.Span
		allow bool
	}{
		{all, holdfast.Span{From: 10, To: 20}, holdfast.Span{From: 10, To: 20}, true},
		{holdfast.Span{From: 15, To: 30}, holdfast.Span{From: 10, To: 20}, holdfast.Span{From: 15, To: 20}, true},
		{holdfast.Span{From: 20, To: 30}, holdfast.Span{From: 10, To: 20}, holdfast.Span{From: 20, To: 20}, true},
		{holdfast.Span{From: 21, To: 30}, holdfast.Span{From: 10, To: 20}, holdfast.Span{}, false},
		{holdfast.Span{From: -5, To: 5}, holdfast.Span{From: math.MinInt64, To: 0}, holdfast.Span{From: -5, To: 0}, true},
		{all, holdfast.Span{From: 20, To: 10}, holdfast.Span{}, false},
	} {
		got := decide(t, ask(func(r *Request) { r.Span = c.asked }), []Grant{grant(window(c.data.From, c.data.To))})
		if got.Allow != c.allow || got.Span != c.want {
			t.Errorf("asked %v of %v: %+v", c.asked, c.data, got)
		}
	}
}

func TestWidestGrantThenTheOneThatEndsFirst(t *testing.T) {
	id := func(n byte) holdfast.GrantID { return holdfast.GrantID{n} }
	narrow := grant(func(g *Grant) { g.ID, g.Data = id(1), holdfast.Span{From: 0, To: 5} })
	wide := grant(func(g *Grant) { g.ID, g.Until = id(2), now+100*tick })
	soon := grant(func(g *Grant) { g.ID, g.Until = id(3), now+50*tick })
	grants := []Grant{narrow, wide, soon}
	draw := draws(t)
	for range 6 {
		if d := decide(t, ask(), grants); d.Grant != id(3) {
			t.Errorf("took grant %v of %v", d.Grant, grants)
		}
		draw.Shuffle(len(grants), func(i, j int) { grants[i], grants[j] = grants[j], grants[i] })
	}
}

// Drawn requests against drawn grants. What comes out is checked against the
// promises, each written here once more in its plainest form.
func TestNothingOutsideTheGrantorsOwnIsAllowed(t *testing.T) {
	draw := rand.New(rand.NewPCG(testseed.Of(t), 0))
	purposes := []holdfast.Purpose{"", holdfast.Operation, holdfast.OwnAccess, "research", "care"}
	streams := []string{"pulse", "steps"}
	drawParty := func() holdfast.PartyID { return party(byte(draw.IntN(5))) } // 0 is no party
	var byGrant, byRole, byOwner int
	for range 20_000 {
		r := Request{
			Reader: ReaderKind(draw.IntN(5)), ReaderParty: drawParty(), Purpose: purposes[draw.IntN(5)], Live: draw.IntN(4) > 0,
			Operating: acme, Owner: drawParty(), Device: device(byte(draw.IntN(3))), Stream: streams[draw.IntN(2)], Now: now,
			Span: holdfast.Span{From: draw.Int64N(100) * tick / 3, To: draw.Int64N(100) * tick / 3},
		}
		if draw.IntN(3) == 0 {
			r.Subject = drawParty()
		}
		for _, p := range purposes {
			if draw.IntN(2) == 0 {
				r.HeldPurposes = append(r.HeldPurposes, p)
			}
		}
		grants := make([]Grant, draw.IntN(6))
		for i := range grants {
			grants[i] = Grant{
				ID: holdfast.GrantID{byte(i + 1)}, Grantor: drawParty(), Recipient: drawParty(), Purpose: purposes[draw.IntN(5)],
				AllDevices: draw.IntN(2) == 0, Devices: []holdfast.DeviceID{device(byte(draw.IntN(3)))},
				AllStreams: draw.IntN(2) == 0, Streams: streams[:draw.IntN(3)],
				Data: holdfast.Span{From: draw.Int64N(100) * tick / 3, To: draw.Int64N(100) * tick / 3},
				Made: now + (draw.Int64N(5)-4)*tick, Until: now + (draw.Int64N(9)-2)*tick, Ended: draw.IntN(4) == 0,
			}
			if draw.IntN(2) == 0 { // aim: blind draws seldom meet all conditions at once
				grants[i].Grantor, grants[i].Recipient, grants[i].Purpose = r.Owner, r.ReaderParty, r.Purpose
			}
		}
		d := decide(t, r, grants)
		fail := func(why string) { t.Fatalf("%s: %s", why, fmt.Sprintf("%+v\n%+v\n%+v", r, grants, d)) }
		if !d.Allow {
			if !d.Grant.IsZero() || d.Span != (holdfast.Span{}) {
				fail("a denial names a grant or a span")
			}
			continue
		}
		if d.Span.From < r.Span.From || d.Span.To > r.Span.To {
			fail("more than was asked for")
		}
		whose := r.Owner
		if !r.Subject.IsZero() {
			whose = r.Subject
		}
		if r.Purpose != holdfast.OwnAccess && (!slices.Contains(r.HeldPurposes, r.Purpose) || !r.Live || r.Purpose == "") {
			fail("a purpose that is not held or not live")
		}
		switch {
		case !d.Grant.IsZero():
			byGrant++
			g := grants[slices.IndexFunc(grants, func(g Grant) bool { return g.ID == d.Grant })]
			switch {
			case g.Grantor != whose:
				fail("outside the grantor's own assignments")
			case g.Recipient != r.ReaderParty || g.Purpose != r.Purpose:
				fail("another's grant or purpose")
			case g.Ended || now >= g.Until || now < g.Made:
				fail("a grant that is not live")
			case d.Span.From < g.Data.From || d.Span.To > g.Data.To:
				fail("times that the grant does not cover")
			case !g.AllDevices && !slices.Contains(g.Devices, r.Device), !g.AllStreams && !slices.Contains(g.Streams, r.Stream):
				fail("a device or stream that the grant does not cover")
			}
		case r.Reader == Owner:
			byOwner++
			if r.ReaderParty != whose || r.Purpose != holdfast.OwnAccess {
				fail("another's data")
			}
		case r.Reader == Staff:
			byRole++
			if r.ReaderParty != acme || r.Owner != acme || (!r.Subject.IsZero() && r.Subject != acme) {
				fail("another's data by role")
			}
		default:
			fail("no rule allows this")
		}
	}
	if byGrant < 20 || byRole < 3 || byOwner < 30 {
		t.Errorf("drawn cases hardly meet a rule: %d by grant, %d by role, %d by owner", byGrant, byRole, byOwner)
	}
}
