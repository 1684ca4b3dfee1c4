package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// newcomer adds a party and returns its own token.
func (h *house) newcomer(name string, kind custody.PartyKind) (string, holdfast.PartyID) {
	h.t.Helper()
	ctx := h.t.Context()
	p, err := h.House.Custody.AddParty(ctx, h.first.ID, name, kind)
	h.must(err)
	return h.redeem(p.ID), p.ID
}

// redeem gives a party a token of its own.
func (h *house) redeem(party holdfast.PartyID) string {
	h.t.Helper()
	ctx := h.t.Context()
	by := access.Principal{Credential: h.first.ID, Party: h.Acme, Role: access.Administrator, Scopes: access.ScopeRead | access.ScopeWrite}
	code, _, err := h.API.Access.Invite(ctx, by, party)
	h.must(err)
	m, err := h.API.Access.Redeem(ctx, access.Redemption{Code: code, From: "192.0.2.1"})
	h.must(err)
	return m.Token
}

// asFor asks in the place of another.
func (h *house) asFor(token, party, method, path, body string) got {
	h.t.Helper()
	r := newRequest(method, path, body)
	r.Header.Set(forHeader, party)
	return h.do(token, r)
}

// join adds a member, who accepts.
func (h *house) join(token string, of, member holdfast.PartyID, kind, more string) string {
	h.t.Helper()
	var m Membership
	h.ask(h.admin, "POST", "/v1/members", fmt.Sprintf(`{"of":%q,"member":%q,"kind":%q%s}`, of, member, kind, more)).is(201).into(&m)
	if m.State == custody.Offered {
		h.ask(token, "POST", "/v1/members/"+m.ID+"/acceptance", "").is(200)
	}
	return m.ID
}

func (h *house) period(d custody.Device, owner, subject holdfast.PartyID, t custody.Terms) custody.Assignment {
	h.t.Helper()
	a, err := h.House.Custody.AddPeriod(h.t.Context(), h.first.ID, custody.PeriodSpec{Device: d.ID, Owner: owner, Subject: subject, Terms: t})
	h.must(err)
	return a
}

// reads asks for all of a device and says which of the values must be in it, and
// which not.
func (h *house) reads(token string, d custody.Device, yes, no []string) {
	h.t.Helper()
	g := h.ask(token, "GET", "/v1/readings?from=2000-01-01&to=2100-01-01&format=csv&device="+d.ID.String(), "")
	if len(yes) > 0 {
		g.is(200)
	}
	g.shows(yes...).hides(no...)
}

func reading(stream string, at time.Time, v string) holdfast.Sample {
	return querytest.At(stream, at, holdfast.TextValue(v))
}

var only = func(s ...string) []string { return s }

// A worker's badge: what lies in his shifts is the employer's device in his hands,
// the rest is his own. The employer reads by the worker's grant, and only what he
// has not kept to himself; consent to an employer is none.
func TestWorkerAndEmployer(t *testing.T) {
	h := build(t, Limits{})
	firm, firmID := h.newcomer("Firm", custody.Organisation)
	h.Later(-20 * 24 * time.Hour)
	badge := h.Device(custody.DeviceSpec{Label: "badge", Owner: h.benID})
	h.join(h.ben, firmID, h.benID, "employee", "")
	shift, err := custody.ParseSchedule("Mo-Fr 08:00-17:00", "Europe/Berlin")
	h.must(err)
	shiftID := h.period(badge, firmID, h.benID, custody.Terms{Basis: custody.Employ, Schedule: shift}).ID
	monday := h.Now().AddDate(0, 0, 1)
	for monday.Weekday() != time.Monday {
		monday = monday.AddDate(0, 0, 1)
	}
	monday = time.Date(monday.Year(), monday.Month(), monday.Day(), 9, 0, 0, 0, time.UTC) // 10 or 11 there
	on, off := monday, monday.Add(12*time.Hour)
	h.Later(20 * 24 * time.Hour)
	h.Send(badge, reading("place", on, "at the bench"))
	h.Send(badge, reading("place", off, "at home"))

	h.reads(h.ben, badge, only("at the bench", "at home"), nil)
	h.reads(firm, badge, nil, only("at the bench", "at home"))
	h.ask(h.admin, "GET", "/v1/readings?purpose=operation&device="+badge.ID.String(), "").is(403)

	h.ask(h.ben, "POST", "/v1/grants", `{"recipient":"Firm","purpose":"study","until":"+30d"}`).is(403).shows("consent given to an employer")
	h.ask(h.admin, "POST", "/v1/purposes", `{"name":"safety","iri":"https://w3id.org/dpv#RequestedServiceProvision","legal_basis":"contract","text":"To find who is in danger."}`).is(201)
	h.ask(h.anna, "POST", "/v1/grants", `{"recipient":"Firm","purpose":"study","until":"+30d"}`).is(201) // she is not employed there

	// He grants his shifts alone: what lies in no shift is never the employer's to read.
	grant := func(assignment holdfast.AssignmentID) string {
		return fmt.Sprintf(`{"recipient":"Firm","purpose":"safety","until":"+30d","assignments":[%q]}`, assignment)
	}
	h.ask(h.ben, "POST", "/v1/grants", grant(holdfast.NewID[holdfast.AssignmentID]())).is(404).shows("no such assignment")
	h.ask(h.anna, "POST", "/v1/grants", grant(shiftID)).is(404).shows("no such assignment")
	h.ask(firm, "POST", "/v1/grants", strings.Replace(grant(shiftID), "Firm", h.instituteID.String(), 1)).is(403).shows("somebody else's to grant")
	var made Grant
	h.ask(h.ben, "POST", "/v1/grants", grant(shiftID)).is(201).shows(`"assignments"`, shiftID.String()).into(&made)
	h.ask(h.ben, "GET", "/v1/grants/"+made.ID+"/agreement", "").is(200).shows("hf:assignment", shiftID.String())
	h.ask(h.ben, "GET", "/v1/grants/"+made.ID+"/receipt", "").is(200).shows(shiftID.String())
	program, err := h.API.Access.Add(t.Context(), access.Principal{Credential: holdfast.NewID[holdfast.CredentialID](), Party: firmID, Role: access.Owner, Scopes: access.ScopeRead | access.ScopeWrite},
		access.Spec{Label: "desk", Party: firmID, Role: access.Program, Purposes: []holdfast.Purpose{"safety"}}, nil)
	h.must(err)
	h.reads(program.Token, badge, only("at the bench"), only("at home"))
	h.reads(h.ben, badge, only("at the bench", "at home"), nil)
	h.ask(h.ben, "GET", "/v1/me/recipients", "").is(200).shows(firmID.String(), "safety")

	// A hold on the shifts stops that; who has nothing in it can't set one.
	stop := fmt.Sprintf(`{"kind":"restriction","assignments":[%q]}`, shiftID)
	h.ask(h.anna, "POST", "/v1/holds", stop).is(404).shows("no such assignment")
	h.ask(firm, "POST", "/v1/holds", stop).is(403).shows("somebody else's")
	var hold Hold
	h.ask(h.ben, "POST", "/v1/holds", stop).is(201).shows(shiftID.String()).hides(badge.Assignment.String()).into(&hold)
	h.reads(program.Token, badge, nil, only("at the bench", "at home"))
	h.ask(h.ben, "DELETE", "/v1/holds/"+hold.ID, "").is(200)
	h.reads(program.Token, badge, only("at the bench"), only("at home"))
}

// A tenant's meter: what lies in his tenancy is his, before and after it is not; the
// landlord reads none of it.
func TestLandlordAndTenant(t *testing.T) {
	h := build(t, Limits{})
	landlord, landlordID := h.newcomer("Landlord", custody.Organisation)
	h.Later(-5 * 24 * time.Hour)
	meter := h.Device(custody.DeviceSpec{Label: "meter", Owner: landlordID})
	h.join(h.anna, landlordID, h.annaID, "tenant", "")
	begin := h.Now().Add(24 * time.Hour)
	end := begin.Add(48 * time.Hour)
	h.period(meter, landlordID, h.annaID, custody.Terms{Basis: custody.Tenancy, From: begin, To: end})
	h.Later(5 * 24 * time.Hour)
	h.Send(meter, reading("heat", begin.Add(-time.Hour), "before"), reading("heat", begin.Add(time.Hour), "during"), reading("heat", end.Add(time.Hour), "after"))
	h.reads(h.anna, meter, only("during"), only("before", "after"))
	h.reads(landlord, meter, only("before", "after"), only("during"))
	h.ask(landlord, "GET", "/v1/me/data", "").is(200)
	h.ask(h.anna, "POST", "/v1/exports", "").is(200)
	h.reads(h.ben, meter, nil, only("before", "during", "after"))
}

// A loan to a guest and back: his evening is his, and erases itself when he is gone.
func TestLoanAndRentalEraseThemselves(t *testing.T) {
	h := build(t, Limits{})
	h.Later(-4 * time.Hour)
	scooter := h.Device(custody.DeviceSpec{Label: "scooter", Owner: h.annaID})
	begin := h.Now().Add(time.Minute)
	back := begin.Add(3 * time.Hour)
	loan := h.period(scooter, holdfast.PartyID{}, h.benID, custody.Terms{Basis: custody.Loan, From: begin, To: back, EraseAfter: 5})
	h.Later(4 * time.Hour)
	h.Send(scooter, reading("place", begin.Add(time.Hour), "ben was here"), reading("place", back.Add(time.Minute), "anna again"))
	h.reads(h.ben, scooter, only("ben was here"), only("anna again"))
	h.reads(h.anna, scooter, only("anna again"), only("ben was here"))
	due := func() int {
		all, _, err := h.House.Custody.Due(t.Context(), h.Now())
		h.must(err)
		return len(all)
	}
	h.Later(4 * 24 * time.Hour)
	if n := due(); n != 0 {
		t.Fatalf("%d due on the fourth day", n)
	}
	h.Later(24 * time.Hour)
	if n := due(); n != 1 {
		t.Fatalf("%d due on the fifth day", n)
	}
	_, err := h.API.Erasure.Ask(t.Context(), access.Principal{Party: h.benID, Role: access.Owner, Scopes: access.ScopeRead | access.ScopeWrite, Settled: true},
		h.House.Custody.ScopeOfAssignment(loan))
	h.must(err)
	h.reads(h.ben, scooter, nil, only("ben was here", "anna again"))
	h.reads(h.anna, scooter, only("anna again"), only("ben was here"))
}

// A child's watch: the guardian reads and acts until the day of majority, and from
// that day on the child's own credential is the only one.
func TestChildReachesMajority(t *testing.T) {
	h := build(t, Limits{})
	_, home := h.newcomer("Home", custody.Household)
	p, err := h.House.Custody.AddParty(t.Context(), h.first.ID, "Kim", custody.Person)
	h.must(err)
	day := h.Now().AddDate(0, 3, 0)
	h.join("", home, p.ID, "child", fmt.Sprintf(`,"to":%q`, day.Format(time.RFC3339)))
	h.join(h.anna, home, h.annaID, "guardian", fmt.Sprintf(`,"ward":%q`, p.ID))
	watch := h.Device(custody.DeviceSpec{Label: "kims", Owner: p.ID})
	h.Send(watch, reading("place", h.Now(), "at school"))
	h.reads(h.anna, watch, only("at school"), nil)
	h.reads(h.ben, watch, nil, only("at school"))
	h.asFor(h.anna, "Kim", "GET", "/v1/me/data", "").is(200).shows("kims")
	h.asFor(h.anna, "Kim", "POST", "/v1/grants", fmt.Sprintf(`{"recipient":%q,"purpose":"study","until":"+30d"}`, h.instituteID)).is(201)
	h.asFor(h.ben, "Kim", "GET", "/v1/me/data", "").is(404)
	for _, never := range []string{"/v1/parties/Kim/invitations", "/v1/members/" + p.ID.String() + "/acceptance"} {
		h.asFor(h.anna, "Kim", "POST", never, "").is(400).shows("for oneself")
	}
	kim := h.redeem(p.ID)
	h.reads(kim, watch, only("at school"), nil)
	h.ask(kim, "GET", "/v1/me/recipients", "").is(200).shows(h.annaID.String())

	h.Later(day.Sub(h.Now()))
	h.reads(h.anna, watch, nil, only("at school"))
	h.asFor(h.anna, "Kim", "GET", "/v1/me/data", "").is(404)
	h.ask(h.anna, "GET", "/v1/devices/"+watch.ID.String(), "").is(404)
	h.reads(kim, watch, only("at school"), nil)
	h.must(h.API.Desk.Once(t.Context()))
	h.ask(kim, "GET", "/v1/ledger/entries", "").is(200).shows("majority reached")
}

// A gateway is sold: its children that are the seller's go along if he said so;
// another's stays his, without a gateway.
func TestGatewayIsSold(t *testing.T) {
	h := build(t, Limits{})
	gateway := h.Device(custody.DeviceSpec{Label: "gateway", Owner: h.annaID})
	valve := h.Device(custody.DeviceSpec{Label: "valve", Owner: h.annaID, Gateway: gateway.ID})
	guest := h.Device(custody.DeviceSpec{Label: "guest", Owner: h.instituteID, Gateway: gateway.ID})
	h.Send(valve, reading("state", h.Now(), "was annas"))
	var o OfferedTransfer
	h.ask(h.anna, "POST", "/v1/transfers", fmt.Sprintf(`{"device":"gateway","to":%q,"children":true,"readings":"erase"}`, h.benID)).is(201).into(&o)
	if o.Code != "" {
		t.Error("an offer to a named party has a code")
	}
	h.ask(h.admin, "GET", "/v1/transfers", "").is(403)
	h.ask(h.institute, "DELETE", "/v1/transfers/"+o.Transfer.ID, "").is(403)
	h.ask(h.ben, "GET", "/v1/me/notices", "").is(200).shows(o.Transfer.ID).hides("gateway", gateway.ID.String())
	var taken TakenTransfer
	h.ask(h.ben, "POST", "/v1/transfers/taking", fmt.Sprintf(`{"transfer":%q,"label":"bens gateway"}`, o.Transfer.ID)).is(201).into(&taken)
	if len(taken.Children) != 1 || taken.Children[0].Child != "valve" || taken.Children[0].Gateway != taken.Device.ID || taken.EnrolmentCode == "" {
		t.Fatalf("%+v", taken)
	}
	id, err := holdfast.ParseID[holdfast.DeviceID](taken.Device.ID)
	h.must(err)
	child, err := h.House.Custody.Child(t.Context(), id, "valve")
	if err != nil || child.String() != taken.Children[0].ID {
		t.Errorf("child %v, %v", child, err)
	}
	if _, err := h.House.Custody.Child(t.Context(), id, "guest"); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("another's child came along: %v", err)
	}
	left, err := h.House.Custody.Device(t.Context(), guest.ID)
	if err != nil || left.State != custody.Active || !left.Gateway.IsZero() || left.Owner != h.instituteID {
		t.Errorf("%+v, %v", left, err)
	}
	h.reads(h.ben, valve, nil, only("was annas"))
	h.ask(h.ben, "GET", "/v1/readings?owner="+h.benID.String()+"&from=2000-01-01&format=csv", "").hides("was annas")
	h.ask(h.anna, "GET", "/v1/devices/"+taken.Device.ID, "").is(404)
	h.ask(h.anna, "GET", "/v1/erasures", "").is(200).shows(gateway.Assignment.String())
	h.ask(h.ben, "POST", "/v1/transfers/taking", fmt.Sprintf(`{"transfer":%q}`, o.Transfer.ID)).is(409).shows("you took it already")
}

// Offers that can't be are refused with what to change, and nothing has happened.
func TestTransfersRefused(t *testing.T) {
	h := build(t, Limits{})
	_, gone := h.newcomer("Gone", custody.Organisation)
	h.ask(h.admin, "POST", "/v1/erasures?wait=30", `{"party":"Gone"}`).is(200)
	for _, c := range []struct {
		body   string
		status int
		says   string
	}{
		{`{"device":"scale"}`, 404, "no such device"},
		{`{"device":"watch","to":"` + h.annaID.String() + `"}`, 400, "yours already"},
		{`{"device":"watch","to":"` + gone.String() + `"}`, 404, "no such party"},
		{`{"device":"watch","to":"` + benName + `"}`, 404, "no such party"},
		{`{"device":"watch","days":61}`, 422, "days"},
		{`{"device":"watch","readings":"sell"}`, 422, "readings"},
	} {
		h.ask(h.anna, "POST", "/v1/transfers", c.body).is(c.status).shows(c.says)
	}
	h.ask(h.anna, "GET", "/v1/transfers", "").is(200).hides(h.annaID.String())
	var o OfferedTransfer
	h.ask(h.anna, "POST", "/v1/transfers", `{"device":"watch"}`).is(201).into(&o)
	h.ask(h.anna, "POST", "/v1/transfers", `{"device":"watch"}`).is(409).shows("on offer already")
	for range 10 {
		h.ask(h.ben, "POST", "/v1/transfers/taking", `{"code":"aaaa-bbbb-cccc-dddd"}`).is(403)
	}
	h.ask(h.ben, "POST", "/v1/transfers/taking", fmt.Sprintf(`{"code":%q}`, o.Code)).is(403).shows("too many wrong codes")
	h.Later(2 * time.Hour)
	h.ask(h.anna, "DELETE", "/v1/transfers/"+o.Transfer.ID, "").is(200).shows("withdrawn")
	h.ask(h.ben, "POST", "/v1/transfers/taking", fmt.Sprintf(`{"code":%q}`, o.Code)).is(403).shows("wrong, was used")
	h.ask(h.anna, "POST", "/v1/transfers", `{"device":"watch"}`).is(201).into(&o)
	h.Later(7 * 24 * time.Hour)
	h.ask(h.ben, "POST", "/v1/transfers/taking", fmt.Sprintf(`{"code":%q}`, o.Code)).is(403).shows("expired")
	h.must(h.API.Desk.Once(t.Context()))
	h.ask(h.anna, "GET", "/v1/transfers", "").is(200).shows("expired")
	h.ask(h.anna, "GET", "/v1/devices/watch", "").is(200).shows("active")
}

// A device whose owner does not answer is released after notice, and not a day
// before; what he read stays his.
func TestReleaseAfterNotice(t *testing.T) {
	h := build(t, Limits{})
	var n ReleaseNotice
	h.ask(h.anna, "POST", "/v1/devices/watch/notices", `{"reason":"x"}`).is(403)
	h.ask(h.admin, "POST", "/v1/devices/watch/notices", `{"reason":"left behind"}`).is(201).into(&n)
	h.ask(h.anna, "GET", "/v1/me/notices", "").is(200).shows("left behind", n.ID)
	h.ask(h.ben, "DELETE", "/v1/notices/"+n.ID, "").is(404)
	h.Later(14*24*time.Hour - time.Minute)
	h.must(h.API.Desk.Once(t.Context()))
	h.ask(h.anna, "GET", "/v1/devices/watch", "").is(200).shows(`"active"`)
	h.Later(time.Minute)
	h.must(h.API.Desk.Once(t.Context()))
	h.must(h.API.Desk.Once(t.Context()))
	h.ask(h.anna, "GET", "/v1/devices/watch", "").is(200).shows(`"closed"`)
	h.ask(h.anna, "GET", "/v1/readings?device=watch&from=2000-01-01&format=csv", "").is(200).shows("pulse")
	h.ask(h.admin, "GET", "/v1/devices?unclaimed=true", "").is(200).shows(`"device"`).hides("watch")
	h.ask(h.anna, "DELETE", "/v1/notices/"+n.ID, "").is(409).shows("released")
	if _, err := h.House.Custody.Route(t.Context(), h.watch.ID); err == nil {
		t.Error("the released device has a route")
	}
	h.ask(h.anna, "GET", "/v1/ledger/entries", "").is(200).shows("release asked", "device released")
}

// Where nobody acts for another, the header is refused for every route that does not
// take it, and for whoever is not a person.
func TestForIsForOwnersAlone(t *testing.T) {
	h := build(t, Limits{})
	h.asFor(h.admin, h.annaID.String(), "GET", "/v1/devices", "").is(403)
	h.asFor(h.institute, h.annaID.String(), "GET", "/v1/devices", "").is(403)
	h.asFor(h.ben, h.annaID.String(), "GET", "/v1/devices", "").is(404)
	for pattern := range h.rules {
		method, path, _ := strings.Cut(pattern, " ")
		taken := false
		for _, p := range actingPaths() {
			taken = taken || strings.HasPrefix(path, p)
		}
		for _, credential := range []string{"/v1/tokens", "/v1/invitations", "/v1/parties", "/v1/members", "/v1/sessions", "/v1/permissions"} {
			if taken && strings.HasPrefix(path, credential) {
				t.Errorf("%s %s can be asked in another's place", method, path)
			}
		}
	}
}

// Whom an administrator brings into a household that has an adult could be the
// administrator himself: for a week he does nothing there that can't be undone.
func TestWhoIsBroughtInWaitsBeforeHeTakesAnythingAway(t *testing.T) {
	h := build(t, Limits{})
	_, home := h.newcomer("Home", custody.Household)
	first, firstID := h.newcomer("Ines", custody.Person)
	h.join(first, home, firstID, "adult", "")
	second, secondID := h.newcomer("Mallory", custody.Person)
	h.join(second, home, secondID, "adult", "")

	export := func(token string, status int) got {
		t.Helper()
		return h.asFor(token, home.String(), "POST", "/v1/exports", `{}`).is(status)
	}
	export(first, 200)
	export(second, 403).shows("settled")
	h.asFor(second, home.String(), "GET", "/v1/me/data", "").is(200) // what can be undone, he may
	h.Later(8 * 24 * time.Hour)
	export(second, 200)

	third, thirdID := h.newcomer("Noor", custody.Person)
	var m Membership
	h.ask(first, "POST", "/v1/members", fmt.Sprintf(`{"of":%q,"member":%q,"kind":"adult"}`, home, thirdID)).is(201).into(&m)
	h.ask(third, "POST", "/v1/members/"+m.ID+"/acceptance", "").is(200)
	export(third, 200) // an adult's own word
}
