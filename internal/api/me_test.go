package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/receipt"
)

func (h *house) purposesOf(token, party string) map[string]DataPurpose {
	h.t.Helper()
	var page Page[DataPurpose]
	if party == "" {
		h.ask(token, "GET", "/v1/me/purposes", "").is(200).into(&page)
	} else {
		h.asFor(token, party, "GET", "/v1/me/purposes", "").is(200).into(&page)
	}
	all := map[string]DataPurpose{}
	for _, p := range page.Items {
		all[p.Name] = p
	}
	return all
}

// An owner learns of each purpose why, on what ground, who answers for it, for how
// long, what is collected, to whom he granted it, and what he has stopped.
func TestWhatDataAreUsedFor(t *testing.T) {
	h := build(t, Limits{})
	ours := `"legal_basis":"consent","retention_days":%d,"text":"To learn."`
	h.ask(h.admin, "POST", "/v1/purposes", fmt.Sprintf(`{"name":"learning","iri":"dpv:ResearchAndDevelopment","controller":"Institute",`+ours+`}`, 30)).is(201)
	h.ask(h.admin, "POST", "/v1/purposes", fmt.Sprintf(`{"name":"lessons","parent":"learning","iri":"dpv:AcademicResearch",`+ours+`}`, 7)).is(201)
	h.ask(h.admin, "PUT", "/v1/retention/rules", `{"purpose":"lessons","days":3}`).is(200)
	h.ask(h.admin, "POST", "/v1/profiles", `{"name":"band","version":1,"streams":[{"name":"steps","type":"number","purposes":["lessons"],"category":"https://w3id.org/dpv/pd#Health"}]}`).is(201)
	band := h.Device(custody.DeviceSpec{Label: "band", Owner: h.annaID, Profile: "band"})
	h.Send(band, querytest.At("steps", time.Now(), holdfast.NumberValue(3)))
	var g, ended Grant
	h.ask(h.anna, "POST", "/v1/grants", `{"recipient":"Institute","purpose":"learning","until":"+30d","obligations":{"every":"15m"}}`).is(201).into(&g)
	h.ask(h.anna, "POST", "/v1/grants", `{"recipient":"Institute","purpose":"study","until":"+30d"}`).is(201).into(&ended)
	h.ask(h.institute, "GET", "/v1/readings?device="+h.watch.ID.String(), "").is(200)
	h.ask(h.anna, "DELETE", "/v1/grants/"+ended.ID, "").is(204)

	all := h.purposesOf(h.anna, "")
	l := all["learning"]
	if l.Label == "" || l.BasisLabel == "" || l.IRI != "https://w3id.org/dpv#ResearchAndDevelopment" || l.LegalBasis != "consent" || l.RetentionDays != 30 ||
		l.Responsible == nil || l.Responsible.Name != "Institute" || len(l.Grants) != 1 || l.Grants[0].State != "live" || l.Grants[0].Obligations.Every != "15m0s" {
		t.Errorf("%+v", l)
	}
	h.ask(h.anna, "GET", l.Grants[0].Receipt, "").is(200).shows("dpv:ConsentReceipt")
	if s := all["lessons"].Streams; len(s) != 1 || s[0].Stream != "steps" || s[0].Label != "band" || s[0].KeptDays != 3 {
		t.Errorf("collected for it: %+v", s)
	}
	if p := all["lessons"]; p.Parent != "learning" || len(p.Grants) != 1 || p.Grants[0].ID != g.ID || p.Grants[0].Purpose != "learning" || p.Responsible.Name != "Acme" {
		t.Errorf("a part of a granted purpose: %+v", p)
	}
	if p := all["study"]; len(p.Grants) != 1 || p.Grants[0].State != "ended" || p.Reads != 1 || p.Rows != 10 || p.Last == nil {
		t.Errorf("a purpose that was read for: %+v", p)
	}
	if p := all[string(holdfast.OwnAccess)]; p.Name == "" || len(p.Stops) != 0 {
		t.Errorf("%+v", p)
	}

	h.ask(h.anna, "POST", "/v1/holds", `{"kind":"objection","purpose":"learning"}`).is(201)
	h.ask(h.anna, "POST", "/v1/holds", `{"kind":"restriction","devices":["watch"]}`).is(201)
	h.ask(h.admin, "POST", "/v1/holds", `{"kind":"law","party":"`+h.annaID.String()+`","reason":"order 7","secret":true}`).is(201)
	for name, want := range map[string][]string{"learning": {"objection", "restriction"}, "lessons": {"objection", "restriction"}, "study": {"restriction"}, string(holdfast.OwnAccess): nil} {
		var got []string
		for _, s := range h.purposesOf(h.anna, "")[name].Stops {
			got = append(got, s.Kind)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s is stopped by %v, want %v", name, got, want)
		}
	}
	h.ask(h.anna, "GET", "/v1/me/purposes", "").is(200).hides("order 7", benName)
	if p := h.purposesOf(h.ben, ""); len(p["learning"].Grants)+len(p["study"].Grants) != 0 {
		t.Error("another's grants are shown")
	}
}

// What there is: of the owner's own, of one whom the readings are about, and of a
// household, asked by its adult.
func TestWhatThereIsOfMine(t *testing.T) {
	h := build(t, Limits{})
	firm, firmID := h.newcomer("Firm", custody.Organisation)
	badge := h.Device(custody.DeviceSpec{Label: "badge", Owner: firmID, Subject: h.benID})
	h.Send(badge, querytest.At("place", time.Now(), holdfast.TextValue("bench")))
	h.ask(h.ben, "POST", "/v1/holds", `{"kind":"collection","devices":["`+badge.ID.String()+`"]}`).is(201)

	device := func(token, party, label string) DataDevice {
		t.Helper()
		g := h.ask(token, "GET", "/v1/me/data", "")
		if party != "" {
			g = h.asFor(token, party, "GET", "/v1/me/data", "")
		}
		var d Data
		g.is(200).into(&d)
		for _, x := range d.Devices {
			if x.Label == label || x.ID == label {
				return x
			}
		}
		t.Fatalf("no device %s: %s", label, g.body)
		return DataDevice{}
	}
	watch := device(h.anna, "", "watch")
	if watch.Readings != 10 || len(watch.Assignments) != 1 || len(watch.Streams) != 1 || watch.Streams[0].First == nil || watch.Streams[0].Held || watch.Streams[0].Stopped {
		t.Errorf("%+v", watch)
	}
	mine := device(h.ben, "", badge.ID.String())
	if len(mine.Streams) != 1 || mine.Streams[0].Readings != 1 || !mine.Streams[0].Stopped || len(mine.Assignments) != 1 ||
		mine.Assignments[0].Owner.Name != "Firm" || mine.Assignments[0].Subject.Name != benName {
		t.Errorf("the data subject's: %+v", mine)
	}
	theirs := device(firm, "", "badge")
	if len(theirs.Streams) != 0 || theirs.Readings != 0 || len(theirs.Assignments) != 1 || theirs.Assignments[0].Subject.Name != "" {
		t.Errorf("the owner's, whose data it is not: %+v", theirs)
	}
	h.ask(firm, "GET", "/v1/me/data", "").is(200).hides(`"place"`, benName)

	home, err := h.House.Custody.AddParty(t.Context(), h.first.ID, "Home", custody.Household)
	h.must(err)
	h.join(h.anna, home.ID, h.annaID, "adult", "")
	meter := h.Device(custody.DeviceSpec{Label: "meter", Owner: home.ID})
	h.Send(meter, querytest.At("power", time.Now(), holdfast.NumberValue(3)))
	h.asFor(h.anna, "Home", "POST", "/v1/holds", `{"kind":"restriction"}`).is(201)
	if m := device(h.anna, "Home", "meter"); m.Readings != 1 || !m.Streams[0].Held {
		t.Errorf("the household's: %+v", m)
	}
	h.asFor(h.anna, "Home", "GET", "/v1/me/purposes", "").is(200).shows("own-access")
	h.asFor(h.anna, "Home", "GET", "/v1/decisions?reader="+h.instituteID.String()+"&purpose=study", "").is(200).shows(`"allowed":false`)
	h.asFor(h.ben, "Home", "GET", "/v1/me/purposes", "").is(404)

	kid, err := h.House.Custody.AddParty(t.Context(), h.first.ID, "Kim", custody.Person)
	h.must(err)
	h.join(h.anna, home.ID, kid.ID, "child", `,"to":"2099-01-01"`)
	h.join(h.anna, home.ID, h.annaID, "guardian", fmt.Sprintf(`,"ward":%q`, kid.ID))
	toy := h.Device(custody.DeviceSpec{Label: "toy", Owner: kid.ID})
	h.Send(toy, querytest.At("song", time.Now(), holdfast.TextValue("la")))
	if d := device(h.anna, "Kim", "toy"); d.Readings != 1 {
		t.Errorf("the ward's: %+v", d)
	}
	if p := h.purposesOf(h.anna, "Kim"); p[string(holdfast.OwnAccess)].Name == "" {
		t.Errorf("the ward's purposes: %+v", p)
	}
	h.asFor(h.ben, "Kim", "GET", "/v1/me/purposes", "").is(404)
}

// Retention is said as it is: the life of a stream, and the day on which the latest
// of its readings go.
func TestDataSayWhenTheyEnd(t *testing.T) {
	h := build(t, Limits{})
	h.ask(h.admin, "PUT", "/v1/retention/rules", `{"purpose":"operation","days":5}`).is(200)
	var d Data
	h.ask(h.anna, "GET", "/v1/me/data", "").is(200).into(&d)
	s := d.Devices[0].Streams[0]
	if s.KeptDays == nil || *s.KeptDays != 5 || s.KeptUntil == nil || s.KeptUntil.Before(time.Now().AddDate(0, 0, 4)) || s.KeptUntil.After(time.Now().AddDate(0, 0, 6)) {
		t.Errorf("%+v (purposes %v)", s, s.Purposes)
	}
}

// The recipient of a duty and the reason of a permission stand where the reads are;
// a disclosure leads to what would be decided now; and the report says all of it.
func TestWhyAndReport(t *testing.T) {
	h := build(t, Limits{})
	h.ask(h.anna, "POST", "/v1/grants", `{"recipient":"Institute","purpose":"study","until":"+30d","obligations":{"step":5}}`).is(201)
	h.ask(h.institute, "GET", "/v1/readings?device="+h.watch.ID.String(), "").is(200)
	var p Permission
	h.ask(h.admin, "POST", "/v1/permissions", `{"whose":"`+h.annaID.String()+`","reason":"She says it is broken."}`).is(201).into(&p)
	h.ask(h.anna, "POST", "/v1/permissions/"+p.ID+"/approve", "").is(200)
	h.Later(time.Second)
	h.ask(h.admin, "GET", "/v1/readings?device="+h.watch.ID.String(), "").is(200)
	h.ask(h.anna, "GET", "/v1/decisions?reader=Acme&purpose=operation&device=watch", "").is(200).shows(`"allowed":true`, p.ID)
	h.ask(h.anna, "POST", "/v1/holds", `{"kind":"collection","streams":["pulse"],"reason":"enough"}`).is(201)

	var who Page[Recipient]
	h.ask(h.anna, "GET", "/v1/me/recipients", "").is(200).into(&who)
	seen := map[string]Recipient{}
	for _, r := range who.Items {
		seen[r.As] = r
	}
	if r := seen["recipient"]; r.Obligations == nil || r.Obligations.Step != 5 {
		t.Errorf("%+v", r)
	}
	if r := seen["staff"]; r.Permission != p.ID || r.Reason != "She says it is broken." {
		t.Errorf("%+v", r)
	}
	var left Page[Disclosure]
	h.ask(h.anna, "GET", "/v1/me/disclosures", "").is(200).into(&left)
	if len(left.Items) < 2 {
		t.Fatalf("%+v", left)
	}
	for _, d := range left.Items {
		if d.Reason == "" || len(d.Policies) == 0 {
			t.Errorf("no reason: %+v", d)
		}
		if d.Permission != "" {
			h.ask(h.anna, "GET", "/v1/me/permissions", "").is(200).shows(d.Permission, "She says it is broken.")
			continue
		}
		h.ask(h.anna, "GET", d.Decisions, "").is(200).shows(`"allowed":true`, `"policies":[`, d.Reason)
	}

	report := h.ask(h.anna, "GET", "/v1/me/report", "").is(200).shows("Numbers are rounded to multiples of 5.", "She says it is broken.", "Collection stopped", "enough", "To show study.")
	r, err := receipt.VerifyReport([]byte(report.body), h.House.Ledger.VerifierKey())
	if err != nil || len(r.Holds) != 1 || len(r.Permissions) != 1 || r.Permissions[0].State != "approved, decided by you" || r.Holds[0].By != "you" {
		b, _ := json.Marshal(r)
		t.Errorf("%s, %v", b, err)
	}
	for _, p := range r.Purposes {
		if p.Controller == "" || p.Kept == "" {
			t.Errorf("%+v", p)
		}
	}
	if _, err := receipt.VerifyReport([]byte(strings.Replace(report.body, "enough", "enough!", 1)), ""); err == nil {
		t.Error("an altered report verifies")
	}
}
