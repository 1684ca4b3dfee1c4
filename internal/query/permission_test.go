package query_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// permits is what package access says; a test ends it.
type permits struct {
	mu    sync.Mutex
	to    holdfast.CredentialID
	one   policy.Permission
	ended bool
}

func (p *permits) Permission(_ context.Context, who access.Principal, whose holdfast.PartyID, u holdfast.Purpose) (policy.Permission, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ok := !p.ended && who.Credential == p.to && whose == p.one.Whose && u == p.one.Purpose
	if !ok {
		return policy.Permission{}, false, nil
	}
	return p.one, true, nil
}

func (p *permits) AnyPermission(ctx context.Context, whose holdfast.PartyID, u holdfast.Purpose) (policy.Permission, bool, error) {
	return p.Permission(ctx, access.Principal{Credential: p.to}, whose, u)
}

func (p *permits) Permitted(_ context.Context, who access.Principal) ([]holdfast.PartyID, error) {
	if who.Credential != p.to {
		return nil, nil
	}
	return []holdfast.PartyID{p.one.Whose}, nil
}

func (p *permits) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
}

// Staff read an owner's data under an approved permission, on its record, and no more
// when it ends, be it in the middle of an answer.
func TestStaffReadUnderAPermission(t *testing.T) {
	h := querytest.Build(t)
	anna, bob := h.Party("Anna"), h.Party("Bob")
	watch := h.Device(custody.DeviceSpec{Label: "watch", Owner: anna.Party})
	scale := h.Device(custody.DeviceSpec{Label: "scale", Owner: anna.Party})
	other := h.Device(custody.DeviceSpec{Label: "other", Owner: bob.Party})
	h.Send(watch, number("heart", 0, 61), number("heart", time.Minute, 62), number("heart", time.Hour, 63))
	h.Send(scale, number("weight", 0, 70))
	h.Send(other, number("heart", 0, 80))
	p := &permits{to: h.Admin.Credential, one: policy.Permission{ID: holdfast.NewID[holdfast.PermissionID](), Whose: anna.Party, Purpose: holdfast.Operation,
		Devices: []holdfast.DeviceID{watch.ID}, From: h.Now().Add(-time.Hour).UnixNano(), Until: h.Now().Add(time.Hour).UnixNano()}}
	q := query.New(h.Custody, h.Register, h.Series, query.Options{Now: h.Now, Recheck: time.Nanosecond, Permissions: p})
	heart := query.Selection{Device: watch.ID}

	rows, _ := collect(t, q, ask(h.Admin, heart))
	if len(rows) != 3 {
		t.Errorf("%d rows", len(rows))
	}
	refused(t, q, holdfast.Denied, ask(h.Admin, query.Selection{Device: scale.ID}))
	refused(t, q, holdfast.Denied, ask(h.Admin, query.Selection{Device: other.ID}))
	colleague := h.Admin
	colleague.Credential = holdfast.NewID[holdfast.CredentialID]()
	refused(t, q, holdfast.Denied, ask(colleague, heart))
	auditor := h.Admin
	auditor.Role = access.Auditor
	for _, purpose := range []holdfast.Purpose{"", holdfast.Operation, holdfast.OwnAccess} {
		if _, err := q.Read(t.Context(), with(ask(auditor, heart), purpose)); err == nil {
			t.Errorf("an auditor reads for %q", purpose)
		}
	}
	program := h.Program(h.Acme, holdfast.Operation)
	program.Credential = h.Admin.Credential
	refused(t, q, holdfast.Denied, ask(program, heart))

	seen, err := h.Register.Disclosures(t.Context(), anna.Party)
	if err != nil || len(seen) != 1 || seen[0].Permission != p.one.ID || !seen[0].Grant.IsZero() || seen[0].Rows != 3 {
		t.Errorf("disclosed: %+v, %v", seen, err)
	}

	const more = 3000
	var samples []holdfast.Sample
	for i := range more {
		samples = append(samples, number("heart", 2*time.Hour+time.Duration(i)*time.Second, 60))
	}
	h.Send(watch, samples...)
	res, err := q.Read(t.Context(), ask(h.Admin, heart))
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	var broke error
	for _, err := range res.Rows {
		if err != nil {
			broke = err
			break
		}
		got++
		p.end()
	}
	if got >= more || holdfast.KindOf(broke) != holdfast.Denied {
		t.Errorf("%d rows after its end, %v", got, broke)
	}
	if msg := refused(t, q, holdfast.Denied, ask(h.Admin, heart)); !strings.Contains(msg, "permission") {
		t.Errorf("the refusal does not say what would help: %s", msg)
	}
}

// A credential that is bound to a grant reads under no other.
func TestBoundProgramsReadUnderTheirGrants(t *testing.T) {
	h := querytest.Build(t)
	h.Purpose("research")
	anna, bob, lab := h.Party("Anna"), h.Party("Bob"), h.Party("Lab")
	devices := map[holdfast.PartyID]custody.Device{}
	grants := map[holdfast.PartyID]grant.Grant{}
	for _, who := range []access.Principal{anna, bob} {
		d := h.Device(custody.DeviceSpec{Label: "watch", Owner: who.Party})
		h.Send(d, number("heart", 0, 61))
		devices[who.Party] = d
		grants[who.Party] = h.Grant(who, grant.Spec{Recipient: lab.Party, Purpose: "research", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: h.Now().Add(time.Hour)})
	}
	free, bound := h.Program(lab.Party, "research"), h.Program(lab.Party, "research")
	bound.Grants = []holdfast.GrantID{grants[anna.Party].ID}
	for _, p := range []holdfast.PartyID{anna.Party, bob.Party} {
		collect(t, h.Query, ask(free, query.Selection{Device: devices[p].ID}))
	}
	collect(t, h.Query, ask(bound, query.Selection{Device: devices[anna.Party].ID}))
	refused(t, h.Query, holdfast.Denied, ask(bound, query.Selection{Device: devices[bob.Party].ID}))
	named := ask(bound, query.Selection{Device: devices[bob.Party].ID})
	named.Grant = grants[bob.Party].ID
	refused(t, h.Query, holdfast.Denied, named)
	if err := h.Register.End(t.Context(), h.Caller(anna), grants[anna.Party].ID); err != nil {
		t.Fatal(err)
	}
	refused(t, h.Query, holdfast.Denied, ask(bound, query.Selection{Device: devices[anna.Party].ID}))
}
