package server

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// A pair is an owner with two devices, one of which he has lent, and what two persons ask
// of it at the same moment.
type pair struct {
	*house
	one, two      string // the scopes
	way           int
	owner, lender access.Principal // lender: to whom the device is lent
	device, other identity.Peer
	lent          custody.Assignment
	month         int
	since         int64 // of the span
	rows          []row
	asked         []asking
}

// row is a reading that was sent.
type row struct {
	who        access.Principal
	device     identity.Peer
	assignment holdfast.AssignmentID
	stream     holdfast.StreamID
	name       string
	time       int64
	month      int // of arrival
}

// asking is what one of the two has asked for, and what became of it.
type asking struct {
	what  string
	scope holdfast.Scope
	e     erasure.Erasure
	err   error
}

// scopesOf are the eight, by name.
func (p *pair) scopesOf(ctx context.Context) map[string]func() (holdfast.Scope, error) {
	own := func() (holdfast.Scope, error) { return p.custody.ScopeOfDevice(ctx, p.device.Device) }
	return map[string]func() (holdfast.Scope, error){
		"party":  func() (holdfast.Scope, error) { return p.custody.ScopeOfParty(ctx, p.owner.Party) },
		"slice":  func() (holdfast.Scope, error) { return p.custody.ScopeOfSlice(ctx, p.device.Device, p.lender.Party) },
		"device": own,
		"assignment": func() (holdfast.Scope, error) {
			a, err := p.custody.Assignment(ctx, p.device.Assignment)
			return p.custody.ScopeOfAssignment(a), err
		},
		"stream": func() (holdfast.Scope, error) { return p.custody.ScopeOfStream(ctx, p.device.Device, "steps") },
		"span": func() (holdfast.Scope, error) {
			s, err := own()
			s.Span = holdfast.Span{From: p.since, To: holdfast.Always.To}
			return s, err
		},
		"category": func() (holdfast.Scope, error) {
			s, err := p.custody.ScopeOfParty(ctx, p.owner.Party)
			if err != nil {
				return s, err
			}
			s.Whole = false
			return p.custody.OfCategory(ctx, s, p.owner.Party, "pd:Location")
		},
		"month": func() (holdfast.Scope, error) {
			s, err := own()
			s.Month = p.month
			return s, err
		},
	}
}

// furnish makes the devices, with readings of the owner and of whom one is lent to.
func (p *pair) furnish(at time.Time, number string) {
	p.t.Helper()
	p.device, p.other = p.tracker(p.owner.Party, "lent "+number), p.tracker(p.owner.Party, "kept "+number)
	p.sends(p.owner, p.device, p.device.Assignment, at, p.month, "gps", "steps")
	p.sends(p.owner, p.other, p.other.Assignment, at, p.month, "home", "steps")
	var err error
	if p.lent, err = p.custody.AddPeriod(p.t.Context(), p.owner.Credential, custody.PeriodSpec{Device: p.device.Device, Owner: p.lender.Party,
		Terms: custody.Terms{Basis: custody.Loan, To: time.Now().Add(time.Hour)}}); err != nil {
		p.t.Fatal(err)
	}
	p.sends(p.lender, p.device, p.lent.ID, time.Now(), p.month, "steps")
}

// hold has a claim keep what the owner's devices said of his steps.
func (p *pair) hold() {
	p.t.Helper()
	by := grant.HoldBy{Caller: grant.Caller{Credential: p.admin().Credential, Party: p.admin().Party}, Administrator: true}
	if _, err := p.grants.AddHold(p.t.Context(), by, grant.HoldSpec{Kind: grant.Claim, Reason: "a claim", Whose: p.owner.Party, Streams: []string{"steps"}}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) held(r row) bool {
	return p.way == withHold && r.name == "steps" && r.who.Party == p.owner.Party
}

// sends has a device send, and remembers it.
func (p *pair) sends(who access.Principal, from identity.Peer, a holdfast.AssignmentID, at time.Time, month int, names ...string) {
	p.t.Helper()
	for _, name := range names {
		p.mustSend(from, number(name, at, 1))
		s, err := p.custody.StreamNamed(p.t.Context(), a, name)
		if err != nil {
			p.t.Fatal(err)
		}
		p.rows = append(p.rows, row{who, from, a, s.ID, name, at.UnixNano(), month})
	}
}

// ask has the two ask at the same moment: the one whose data it is, and an administrator.
func (p *pair) ask() {
	scopes := p.scopesOf(p.t.Context())
	who := []access.Principal{p.owner, p.admin()}
	if p.one == "slice" {
		who[0] = p.lender
	}
	p.asked = []asking{{what: p.one}, {what: p.two}}
	wishes := []erasure.Wish{{Guarded: true, Rest: p.way == withHold}, {Guarded: true}}
	if p.way == withWindow {
		wishes[0].Undo = time.Hour
	}
	var asking sync.WaitGroup
	for i := range p.asked {
		a := &p.asked[i]
		if a.scope, a.err = scopes[a.what](); a.err == nil {
			asking.Go(func() { a.e, a.err = p.Server.erasure.Request(p.t.Context(), who[i], a.scope, wishes[i]) })
		}
	}
	asking.Wait()
}

func covers(s holdfast.Scope, r row) bool {
	return slices.Contains(s.Assignments, r.assignment) && (len(s.Streams) == 0 || slices.Contains(s.Streams, r.stream)) &&
		s.Span.Contains(r.time) && (s.Month == 0 || s.Month == r.month)
}

// judge holds what became of it against what was promised.
func (p *pair) judge(count map[string]int) {
	t := p.t
	t.Helper()
	name := fmt.Sprintf("%s beside %s %s", p.one, p.two, []string{"at once", "with a window", "with a hold"}[p.way])
	accepted := 0
	for i := range p.asked {
		a := &p.asked[i]
		if a.err != nil {
			kind := holdfast.KindOf(a.err)
			if !slices.Contains([]holdfast.Kind{holdfast.NotFound, holdfast.Conflict, holdfast.Denied}, kind) || a.err.Error() == "" {
				t.Errorf("%s: %s is refused without a reason: %v", name, a.what, a.err)
			}
			count["refused, "+kind.String()]++
			continue
		}
		accepted++
		e, err := p.Server.erasure.Erasure(t.Context(), a.e.ID)
		if err != nil || e.State != erasure.Done {
			t.Errorf("%s: %s is %s: %v, %v", name, a.what, e.State, err, p.Server.erasure.Why(a.e.ID))
			continue
		}
		if c, err := erasure.VerifyCertificate(e.Certificate, ""); err != nil || len(c.Opened.Kept) != len(e.Kept) {
			t.Errorf("%s: the certificate of %s: %v", name, a.what, err)
		}
		a.e = e
		if count["fulfilled"]++; len(e.Kept) > 0 {
			count["of these partly"]++
		}
	}
	if accepted == 0 && p.way != withHold {
		t.Errorf("%s: nothing was accepted: %v, %v", name, p.asked[0].err, p.asked[1].err)
	}
	for _, r := range p.rows {
		gone, by := false, ""
		for _, a := range p.asked {
			kept := p.held(r)
			if a.err == nil && covers(a.scope, r) && !kept {
				gone, by = true, a.what
			}
			if a.err == nil && covers(a.scope, r) && kept && len(a.e.Kept) == 0 {
				t.Errorf("%s: %s keeps something and does not say so", name, a.what)
			}
		}
		rows, err := p.read(r.who, r.device, r.name)
		if kind := holdfast.KindOf(err); err != nil && kind != holdfast.NotFound && kind != holdfast.Denied {
			t.Fatalf("%s: %v", name, err)
		}
		there := slices.ContainsFunc(rows, func(x holdfast.Reading) bool { return x.Time == r.time })
		count[fmt.Sprint("readings there: ", there)]++
		if there == gone {
			t.Errorf("%s: %s of month %d, is there %v; promised by %q; %v", name, r.name, r.month, there, by, err)
		}
	}
}

// The ways in which the first of two asks.
const (
	atOnce = iota
	withWindow
	withHold
	manners
)

// Of two that overlap and are asked for at the same moment, by different persons, with a
// window, with a hold or with neither, each comes to its end or is refused with the
// reason; what was promised is gone, and nothing else is. Each pair is tried in one of the
// ways, the other way round in another; with HOLDFAST_LONG=1 each in all.
func TestEveryPairOfScopesAtOnce(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	lender, neighbour := h.person("Lender"), h.person("Neighbour")
	next := h.device(neighbour.Party, "next")
	month := func() int {
		y, m, _ := time.Unix(0, h.clock.Now()).UTC().Date()
		return 100*y + int(m)
	}
	first, at := month(), time.Now().Add(-3*time.Hour)
	var pairs []*pair
	names := []string{"assignment", "category", "device", "month", "party", "slice", "span", "stream"}
	for a, one := range names {
		for b, other := range names {
			for way := range manners {
				if long() || way == (a+2*b)%manners {
					p := &pair{house: h, one: one, two: other, way: way, lender: lender, owner: h.person(fmt.Sprint("owner ", len(pairs))), month: first, since: at.Add(time.Hour).UnixNano()}
					p.furnish(at, fmt.Sprint(len(pairs)))
					pairs = append(pairs, p)
				}
			}
		}
	}
	h.mustSend(next, number("steps", at, 1))
	h.later(40 * day)
	for _, p := range pairs {
		p.sends(p.owner, p.device, p.device.Assignment, at.Add(2*time.Hour), month(), "gps", "steps")
		if p.way == withHold {
			p.hold()
		}
	}
	for _, p := range pairs {
		p.ask()
	}
	beside := h.wants(neighbour, h.scope(h.custody.ScopeOfStream(ctx, next.Device, "steps")), erasure.Wish{})
	for range 2 { // those that wait begin an hour later
		if err := h.Server.erasure.Once(ctx); err != nil {
			t.Error(err)
		}
		h.later(2 * time.Hour)
	}
	count := map[string]int{}
	for _, p := range pairs {
		p.judge(count)
	}
	t.Logf("%d pairs: %v", len(pairs), count)
	h.passes(beside.ID, erasure.Done)
	h.has(neighbour, next, "steps", 0)
}
