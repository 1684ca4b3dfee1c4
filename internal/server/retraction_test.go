package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// retracting is a hub where a lab has read Anna's pulse under a grant, and a stranger
// nothing.
type retracting struct {
	*story
	anna, lab, stranger, program, staff someone
	watch                               *thing
	pulse                               time.Time
}

func newRetracting(t *testing.T) *retracting {
	t.Helper()
	s := tell(t, 0)
	r := &retracting{story: s, anna: s.someone("Anna", custody.Person), lab: s.someone("Lab", custody.Organisation), stranger: s.someone("Stranger", custody.Organisation)}
	r.watch = s.enrolled(r.anna.Party, "watch")
	r.pulse = time.Now().Add(-30 * time.Minute)
	for i := range 10 {
		s.mustSend(r.watch.Peer, number("pulse", r.pulse.Add(time.Duration(i)*time.Second), 60), number("steps", r.pulse, 1))
	}
	token := func(by access.Principal, name string, spec access.Spec) someone {
		spec.Label, spec.Party = name, by.Party
		m, err := s.access.Add(t.Context(), by, spec, nil)
		s.must(err)
		return someone{Principal: by, name: name, token: m.Token}
	}
	r.staff = token(s.admin(), "staff", access.Spec{Role: access.Administrator, Scopes: access.ScopeRead | access.ScopeWrite})
	s.asks(r.staff, http.StatusCreated, "POST", "/v1/purposes", `{"name":"study","iri":"https://w3id.org/dpv#AcademicResearch","legal_basis":"consent","text":"To study."}`, nil)
	r.program = token(r.lab.Principal, "program", access.Spec{Role: access.Program, Purposes: []holdfast.Purpose{"study"}})
	s.asks(r.anna, http.StatusCreated, "POST", "/v1/grants", `{"recipient":"Lab","purpose":"study","devices":["watch"],"streams":["pulse"],"until":"+1d"}`, nil)
	s.asks(r.lab, http.StatusCreated, "POST", "/v1/webhooks", `{"name":"hook","url":"https://hook.invalid/"}`, nil)
	status, body := s.do(r.program.token, "GET", "/v1/readings?stream=pulse&device="+r.watch.Device.String(), "")
	if status != http.StatusOK || len(body) == 0 {
		t.Fatalf("the lab reads: %d %s", status, body)
	}
	s.must(s.grants.Flush(t.Context()))
	return r
}

// erases asks for it, and waits for the certificate.
func (r *retracting) erases(who someone, body string) (e api.Erasure) {
	r.t.Helper()
	status, b := r.do(who.token, "POST", "/v1/erasures?wait=60", body)
	if status/100 != 2 {
		r.t.Fatalf("%s: %d %s", body, status, b)
	}
	r.must(json.Unmarshal(b, &e))
	if e.State != erasure.Done {
		r.t.Fatalf("%s is %s", body, e.State)
	}
	return e
}

// A preview counts what goes and names who has received it, to the one whose data it
// is; staff see that there are such.
func TestErasurePreview(t *testing.T) {
	r := newRetracting(t)
	var hers, staffs api.ErasurePreview
	r.asks(r.anna, http.StatusOK, "POST", "/v1/erasures/preview", `{"device":"watch"}`, &hers)
	if hers.Devices != 1 || (hers.Readings == nil || *hers.Readings != 20) || len(hers.Streams) != 2 || hers.Recipients != 1 || len(hers.Received) != 1 || hers.Received[0].Rows != 10 || hers.Received[0].Recipient.Name != "Lab" {
		t.Errorf("to her: %+v", hers)
	}
	id := r.watch.Device.String()
	text := r.asks(r.staff, http.StatusOK, "POST", "/v1/erasures/preview", `{"device":"`+id+`"}`, &staffs)
	if staffs.Devices != 1 || staffs.Recipients != 1 || staffs.Readings != nil || staffs.Bytes != nil || staffs.First != nil || strings.Contains(text, "pulse") || strings.Contains(text, "Lab") {
		t.Errorf("to staff: %s", text)
	}
	var steps api.ErasurePreview
	r.asks(r.anna, http.StatusOK, "POST", "/v1/erasures/preview", `{"device":"watch","stream":"steps","undo":"24h"}`, &steps)
	if (steps.Readings == nil || *steps.Readings != 10) || steps.Recipients != 0 || steps.Undo != "24h0m0s" {
		t.Errorf("of what nobody has read: %+v", steps)
	}
	for _, who := range []someone{r.stranger, r.lab} {
		if status, b := r.do(who.token, "POST", "/v1/erasures/preview", `{"device":"`+id+`"}`); status/100 != 4 || strings.Contains(string(b), "watch") {
			t.Errorf("to %s: %d %s", who.name, status, b)
		}
	}
	for _, bad := range []string{`{}`, `{"device":"watch","stream":"none"}`, `{"device":"watch","category":"pd:Nonsense"}`, `{"device":"watch","month":"2026-13"}`,
		`{"device":"watch","month":"2020-01","from":"2020-01-01"}`, `{"device":"watch","undo":"31d"}`, `{"device":"watch","undo":"-1h"}`, `{"party":"Anna","from":"2020-01-01"}`,
		`{"device":"watch","to":"1999-01-01"}`, `{"device":"watch","whose":"Stranger"}`} {
		if status, b := r.do(r.anna.token, "POST", "/v1/erasures", bad); status/100 != 4 {
			t.Errorf("%s: %d %s", bad, status, b)
		}
	}
	var all api.Page[api.Erasure]
	r.asks(r.anna, http.StatusOK, "GET", "/v1/erasures", "", &all)
	if len(all.Items) != 0 {
		t.Errorf("%d erasures", len(all.Items))
	}
}

// Who has received what is erased is told, once, by his webhook and by his list; his
// word that it is deleted is shown to the owner, and to nobody else who it was.
func TestRecipientsAreToldOfAnErasure(t *testing.T) {
	r := newRetracting(t)
	e := r.erases(r.anna, `{"device":"watch","stream":"pulse"}`)
	if e.Told == nil || *e.Told != 1 || *e.Acked != 0 || e.Outcome != "fulfilled" {
		t.Errorf("told: %+v", e)
	}
	id, err := holdfast.ParseID[holdfast.ErasureID](e.ID)
	r.must(err)
	if c := r.certificate(id); c.Told == nil || c.Told.Recipients != 1 || c.Told.Told != 1 {
		t.Errorf("the certificate says of recipients: %+v", c.Told)
	}
	if all, err := r.outbox.Deliveries(t.Context(), r.lab.Party); err != nil || len(all) != 1 {
		t.Errorf("%d messages to the webhook: %v", len(all), err)
	}
	var list, none api.Page[api.Retraction]
	r.asks(r.program, http.StatusOK, "GET", "/v1/retractions", "", &list)
	if len(list.Items) != 1 || len(list.Items[0].Streams) != 1 || len(list.Items[0].Grants) != 1 || list.Items[0].State != erasure.RetractionOpen || list.Items[0].Recipient != nil {
		t.Fatalf("the lab's list: %+v", list)
	}
	told := list.Items[0]
	if got := told.Streams[0].Device; got != r.watch.Device {
		t.Errorf("of device %s", got)
	}
	r.asks(r.stranger, http.StatusOK, "GET", "/v1/retractions", "", &none)
	if len(none.Items) != 0 {
		t.Errorf("a stranger's list: %+v", none)
	}
	r.asks(r.stranger, http.StatusNotFound, "POST", "/v1/retractions/"+told.ID+"/ack", "", nil)
	for range 2 { // as after a lost answer
		r.asks(r.program, http.StatusOK, "POST", "/v1/retractions/"+told.ID+"/ack", "", nil)
	}
	var hers api.Page[api.Retraction]
	r.asks(r.anna, http.StatusOK, "GET", "/v1/erasures/"+e.ID+"/retractions", "", &hers)
	if len(hers.Items) != 1 || hers.Items[0].State != erasure.RetractionAcked || hers.Items[0].Recipient == nil || hers.Items[0].Recipient.Name != "Lab" {
		t.Errorf("to her: %+v", hers)
	}
	for _, who := range []someone{r.stranger, r.staff} {
		if status, b := r.do(who.token, "GET", "/v1/erasures/"+e.ID+"/retractions", ""); status/100 != 4 {
			t.Errorf("to %s: %d %s", who.name, status, b)
		}
	}
	r.asks(r.anna, http.StatusOK, "GET", "/v1/erasures/"+e.ID, "", &e)
	if *e.Acked != 1 {
		t.Errorf("confirmed: %d", *e.Acked)
	}

	// What he had not read concerns him not; what outlives the owner's keys is there.
	if e := r.erases(r.anna, `{"device":"watch","stream":"steps"}`); *e.Told != 0 {
		t.Errorf("of what he did not read: %+v", e)
	}
	r.erases(r.anna, `{"party":"Anna"}`)
	r.asks(r.program, http.StatusOK, "GET", "/v1/retractions", "", &list)
	if len(list.Items) == 0 || list.Items[0].State != erasure.RetractionAcked {
		t.Errorf("after she has gone: %+v", list)
	}
	if _, err := r.ledger.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// countedThen does something at the moment at which an erasure begins to count who is
// to be told.
type countedThen struct {
	erasure.Custody
	then func()
}

func (c countedThen) Operating(ctx context.Context) (holdfast.PartyID, error) {
	c.then()
	return c.Custody.Operating(ctx)
}

// Whoever is to be told is counted when it is refused already: who asks from then on
// gets nothing, and so nobody reads who is not told.
func TestRecipientsAreCountedAfterTheRefusal(t *testing.T) {
	r := newRetracting(t)
	r.asks(r.anna, http.StatusCreated, "POST", "/v1/grants", `{"recipient":"Stranger","purpose":"study","devices":["watch"],"streams":["pulse"],"until":"+1d"}`, nil)
	spec := access.Spec{Label: "late", Party: r.stranger.Party, Role: access.Program, Purposes: []holdfast.Purpose{"study"}}
	m, err := r.access.Add(t.Context(), r.stranger.Principal, spec, nil)
	r.must(err)
	late := someone{Principal: r.stranger.Principal, name: "late", token: m.Token}
	gate, asked := r.Server.erasure, 0
	gate.Custody = countedThen{gate.Custody, func() {
		asked++
		if status, body := r.do(late.token, "GET", "/v1/readings?stream=pulse&device="+r.watch.Device.String(), ""); strings.Contains(string(body), `"value"`) {
			t.Errorf("readings are given out while their recipients are counted: %d %s", status, body)
		}
	}}
	e := r.erases(r.anna, `{"device":"watch"}`)
	if asked != 1 || *e.Told != 1 {
		t.Errorf("counted %d times, %d told, want once and the lab alone", asked, *e.Told)
	}
}

// Who has no right to an erasure hears the same of what there is and of what there is
// not; what waits is not asked for twice; and nothing else comes of any of it.
func TestErasuresThatAreRefusedByTheAPI(t *testing.T) {
	r := newRetracting(t)
	other := holdfast.NewID[holdfast.DeviceID]().String()
	for _, who := range []someone{r.stranger, r.lab, r.program} {
		for _, path := range []string{"/v1/erasures", "/v1/erasures/preview"} {
			for _, body := range []string{`{"device":"%s"}`, `{"device":"%s","stream":"pulse"}`, `{"device":"%s","to":"2020-01-01"}`, `{"device":"%s","category":"pd:Location","undo":"1h"}`} {
				status, there := r.do(who.token, "POST", path, fmt.Sprintf(body, r.watch.Device))
				none, missing := r.do(who.token, "POST", path, fmt.Sprintf(body, other))
				if status/100 != 4 || status != none || strings.ReplaceAll(string(there), r.watch.Device.String(), other) != string(missing) {
					t.Errorf("%s %s %s: %d %s, of what there is not %d %s", who.name, path, body, status, there, none, missing)
				}
			}
		}
	}
	r.asks(r.anna, http.StatusNotFound, "POST", "/v1/erasures", `{"device":"watch","to":"1999-01-01"}`, nil)
	var e api.Erasure
	r.asks(r.anna, http.StatusAccepted, "POST", "/v1/erasures?wait=0", `{"device":"watch","undo":"1h"}`, &e)
	for _, again := range []string{`{"device":"watch","undo":"1h"}`, `{"device":"watch","undo":"2h"}`, `{"device":"watch","stream":"pulse","undo":"1h"}`} {
		if text := r.asks(r.anna, http.StatusConflict, "POST", "/v1/erasures?wait=0", again, nil); !strings.Contains(text, e.ID) {
			t.Errorf("%s: the erasure that waits is not named: %s", again, text)
		}
	}
	for _, who := range []someone{r.stranger, r.lab} {
		r.asks(who, http.StatusForbidden, "DELETE", "/v1/erasures/"+e.ID, "", nil)
	}
	r.asks(r.anna, http.StatusOK, "DELETE", "/v1/erasures/"+e.ID, "", nil)
	var all api.Page[api.Erasure]
	r.asks(r.anna, http.StatusOK, "GET", "/v1/erasures", "", &all)
	if len(all.Items) != 1 || all.Items[0].State != erasure.Undone {
		t.Errorf("erasures: %+v", all.Items)
	}
	if got, err := r.read(r.anna.Principal, r.watch.Peer, "pulse"); err != nil || len(got) != 10 {
		t.Errorf("%d readings are left, %v", len(got), err)
	}
}
