package policy

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// drawn draws worlds: what one party said, and requests about its data. Few names
// of each kind, and draws that aim, make conditions meet.
type drawn struct{ *rand.Rand }

func draws(t testing.TB) drawn {
	return drawn{rand.New(rand.NewPCG(testseed.Of(t), 0))}
}

func (d drawn) maybe(oneIn int) bool      { return d.IntN(oneIn) == 0 }
func (d drawn) party() holdfast.PartyID   { return party(byte(d.IntN(5))) }
func (d drawn) device() holdfast.DeviceID { return device(byte(1 + d.IntN(3))) }
func (d drawn) grantID() holdfast.GrantID { return holdfast.GrantID{byte(1 + d.IntN(8))} }
func (d drawn) time(around int64) int64   { return around + (d.Int64N(9)-4)*tick/2 }
func (d drawn) name() string              { return pick(d, "pulse", "steps", `a"b\`+"\x00é\n${") }
func (d drawn) category() (string, []string) {
	switch d.IntN(4) {
	case 0:
		return "pd:HeartRate", []string{"pd:Health", "pd:Special"}
	case 1:
		return "pd:Health", []string{"pd:Special"}
	case 2:
		return "pd:Household", nil
	}
	return "", nil
}

// purposes: cure is a part of care, care of service; research stands alone.
func (d drawn) purpose() (holdfast.Purpose, []holdfast.Purpose) {
	switch d.IntN(6) {
	case 0:
		return "cure", []holdfast.Purpose{"care", "service"}
	case 1:
		return "care", []holdfast.Purpose{"service"}
	case 2:
		return "service", nil
	case 3:
		return holdfast.OwnAccess, nil
	case 4:
		return holdfast.Operation, nil
	}
	return "research", nil
}

func pick[T any](d drawn, of ...T) T { return of[d.IntN(len(of))] }

// some draws up to n of what f draws, each once.
func some[T comparable](d drawn, n int, f func() T) []T {
	var all []T
	for range d.IntN(n + 1) {
		if v := f(); !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}

func (d drawn) span() holdfast.Span {
	if d.maybe(3) {
		return holdfast.Always
	}
	from := d.Int64N(20) * tick / 3
	return holdfast.Span{From: from, To: from + d.Int64N(20)*tick/3}
}

func (d drawn) request() Request {
	r := Request{
		Reader: ReaderKind(1 + d.IntN(3)), ReaderParty: d.party(), Live: !d.maybe(6), Operating: acme, Owner: d.party(), Device: d.device(),
		Assignment: assignment(byte(1 + d.IntN(3))), Stream: d.name(), Span: d.span(), Now: d.time(now),
	}
	r.Purpose, r.Broader = d.purpose()
	r.Category, r.Categories = d.category()
	if d.maybe(3) {
		r.Subject = d.party()
	}
	if !d.maybe(5) {
		r.HeldPurposes = append(r.HeldPurposes, r.Purpose)
	}
	if d.maybe(3) {
		r.ActsFor = append(some(d, 3, d.party), r.Whose())
	}
	if r.Purpose == holdfast.OwnAccess && !d.maybe(3) {
		r.Reader, r.ReaderParty = Owner, pick(d, r.ReaderParty, r.Whose())
	}
	if d.maybe(4) {
		r.Bound = append(some(d, 3, d.grantID), []holdfast.GrantID{}...)
		if r.Bound == nil {
			r.Bound = []holdfast.GrantID{} // bound to none
		}
	}
	if d.maybe(4) {
		r.Grant = d.grantID()
	}
	if d.maybe(20) {
		r.Reader = 0
	}
	if d.maybe(4) {
		r.Reader, r.ReaderParty = Staff, acme
	}
	if r.Reader == Staff && !d.maybe(3) {
		r.Permission = Permission{ID: holdfast.PermissionID{7}, Whose: pick(d, d.party(), r.Whose()), From: d.time(now - tick), Until: d.time(now + tick)}
		if r.Permission.Purpose, _ = d.purpose(); d.maybe(2) {
			r.Permission.Purpose, r.HeldPurposes, r.Live, r.Bound, r.Grant = r.Purpose, []holdfast.Purpose{r.Purpose}, true, nil, holdfast.GrantID{}
		}
		r.Permission.Devices = some(d, 2, d.device)
	}
	return r
}

// words draws what a party said, aimed at a request.
func (d drawn) words(r *Request) (grants []Grant, forbids []Forbid) {
	whose := r.Whose()
	for i := range d.IntN(8) {
		g := Grant{
			ID: holdfast.GrantID{byte(1 + i)}, Grantor: whose, Recipient: pick(d, r.ReaderParty, r.ReaderParty, d.party()),
			AllDevices: d.maybe(2), Devices: some(d, 3, d.device), AllStreams: d.maybe(2), Streams: some(d, 3, d.name),
			Data: d.span(), Made: d.time(now - tick), Until: d.time(now + tick), Ended: d.maybe(8),
		}
		for g.Purpose, _ = d.purpose(); g.Purpose == holdfast.OwnAccess; {
			g.Purpose, _ = d.purpose()
		}
		if d.maybe(3) {
			g.Categories = some(d, 2, func() string { return pick(d, "pd:Health", "pd:Special", "pd:Household") })
		}
		if d.maybe(3) {
			g.Assignments = some(d, 2, func() holdfast.AssignmentID { return assignment(byte(1 + d.IntN(3))) })
		}
		if d.maybe(3) {
			g.Obligations = Obligations{Every: time.Duration(d.IntN(3)) * time.Minute, Delay: time.Duration(d.IntN(2)) * time.Hour}
		}
		grants = append(grants, g)
	}
	for i := range max(0, d.IntN(6)-3) {
		f := Forbid{ID: holdfast.HoldID{byte(1 + i)}, Whose: whose, Streams: some(d, 2, d.name)}
		f.Assignments = some(d, 2, func() holdfast.AssignmentID { return assignment(byte(1 + d.IntN(3))) })
		if f.Purpose, _ = d.purpose(); d.maybe(2) || f.Purpose == holdfast.OwnAccess {
			f.Purpose = ""
		}
		forbids = append(forbids, f)
	}
	return grants, forbids
}

// tape is a source of draws that a fuzzer writes. When it has run out, what was on it
// decides the rest.
type tape struct {
	left []byte
	rest *rand.PCG
}

func taped(b []byte) drawn {
	h := fnv.New64()
	h.Write(b)
	return drawn{rand.New(&tape{b, rand.NewPCG(h.Sum64(), 1)})}
}

func (s *tape) Uint64() uint64 {
	if len(s.left) < 8 {
		return s.rest.Uint64()
	}
	v := binary.LittleEndian.Uint64(s.left)
	s.left = s.left[8:]
	return v
}

// What the policies say is what they are meant to say, on whatever world, asked for
// the first time and from memory; and what is forbidden is never allowed.
func TestSetDecidesAsPlainGoDoes(t *testing.T) {
	d := draws(t)
	reasons := map[string]int{}
	all := []string{ByOwner, ByActing, ByRole, ByPermission, ByGrant, NoPurpose, NotLive, NotOwn, NoGrant, Stopped, NoReader, NobodysData}
	seldom := func(reason string) bool { return reasons[reason] < 5 }
	for n := 0; n < 600 || slices.ContainsFunc(all, seldom); n++ {
		if n == 6000 {
			t.Fatalf("drawn worlds hardly meet some reason: %v", reasons)
		}
		d.decidesAsPlainGoDoes(t, reasons)
	}
}

func FuzzSetDecidesAsPlainGoDoes(f *testing.F) {
	for n := range 8 {
		b := make([]byte, 100*n)
		rand.NewChaCha8([32]byte{byte(n)}).Read(b)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { taped(b).decidesAsPlainGoDoes(t, map[string]int{}) })
}

// decidesAsPlainGoDoes draws one world and counts the reasons of what is decided in it.
func (d drawn) decidesAsPlainGoDoes(t *testing.T, reasons map[string]int) {
	t.Helper()
	first := d.request()
	grants, forbids := d.words(&first)
	s, err := Compile(first.Whose(), grants, forbids)
	if err != nil {
		t.Fatal(err)
	}
	p := &plain{whose: first.Whose(), grants: grants, forbids: forbids}
	requests := []Request{first}
	for range 5 {
		next := d.request()
		next.Owner, next.Subject = first.Owner, first.Subject
		near := first
		switch d.IntN(4) {
		case 0:
			near.Now = d.time(now)
		case 1:
			near.Span = d.span()
		case 2:
			near.Live, near.HeldPurposes = !near.Live, []holdfast.Purpose{near.Purpose}
		case 3:
			near.Bound, near.Grant = nil, d.grantID()
		}
		requests = append(requests, next, near)
	}
	for range 2 {
		for _, r := range requests {
			got, want := s.Decide(r), p.Decide(r)
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Decision{}, "Policies")); diff != "" {
				t.Fatalf("%s\n%+v\n%+v\n%+v\n%+v", diff, r, grants, forbids, got)
			}
			if got.Allow && r.Purpose != holdfast.OwnAccess && slices.ContainsFunc(forbids, func(f Forbid) bool { return f.covers(&r) }) {
				t.Fatalf("allowed what is forbidden: %+v\n%+v\n%+v", r, forbids, got)
			}
			if !got.Grant.IsZero() && !slices.Contains(got.Policies, GrantPolicy(got.Grant)) {
				t.Fatalf("the policies %q are not those of grant %s", got.Policies, got.Grant)
			}
			reasons[want.Reason]++
		}
	}
}
