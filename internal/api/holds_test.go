package api

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// An owner restricts and objects by himself; a hold by the hub tells him before it
// ends; one for a claim keeps his data from being erased, and he sees why.
func TestHolds(t *testing.T) {
	h := build(t, Limits{})
	watch := h.watch.ID.String()
	read := "/v1/readings?device=" + watch + "&stream=pulse"
	h.ask(h.anna, "POST", "/v1/grants", `{"recipient":"Institute","purpose":"study","until":"+30d"}`).is(201)
	h.ask(h.institute, "GET", read, "").is(200)

	var own Hold
	h.ask(h.anna, "POST", "/v1/holds", `{"kind":"restriction","devices":["watch"],"streams":["pulse"]}`).is(201).into(&own)
	if !own.OwnWord || own.State != "stands" || len(own.Devices) != 1 || own.Devices[0] != watch {
		t.Errorf("%+v", own)
	}
	h.ask(h.institute, "GET", read, "").is(403)
	h.ask(h.anna, "GET", read, "").is(200).shows("pulse")
	h.ask(h.admin, "DELETE", "/v1/holds/"+own.ID, "").is(403).shows("only his own credential")
	h.ask(h.ben, "GET", "/v1/holds/"+own.ID, "").is(404)
	h.ask(h.ben, "DELETE", "/v1/holds/"+own.ID, "").is(404)
	h.ask(h.ben, "GET", "/v1/holds", "").is(200).hides(own.ID)
	h.ask(h.ben, "POST", "/v1/holds", `{"kind":"restriction","devices":["watch"]}`).is(404)
	h.ask(h.institute, "GET", "/v1/holds", "").is(403)
	h.ask(h.anna, "DELETE", "/v1/holds/"+own.ID, "").is(200).shows(`"state":"ended"`)
	h.ask(h.institute, "GET", read, "").is(200)

	h.ask(h.anna, "POST", "/v1/holds", `{"kind":"objection"}`).is(400).shows("names the purpose")
	h.ask(h.anna, "POST", "/v1/holds", `{"kind":"objection","purpose":"study"}`).is(201)
	h.ask(h.institute, "GET", read, "").is(403)

	var ours Hold
	h.ask(h.admin, "POST", "/v1/holds", `{"kind":"restriction"}`).is(400).shows("say whose data")
	h.ask(h.admin, "POST", "/v1/holds", `{"kind":"restriction","devices":["`+watch+`"]}`).is(201).into(&ours)
	h.ask(h.admin, "DELETE", "/v1/holds/"+ours.ID, "").is(200).shows(`"state":"lifting"`, `"lifts"`)
	h.ask(h.anna, "GET", "/v1/holds", "").is(200).shows(`"state":"lifting"`, ours.ID)
	h.ask(h.anna, "DELETE", "/v1/holds/"+ours.ID, "").is(200).shows(`"state":"ended"`)

	h.ask(h.anna, "POST", "/v1/holds", `{"kind":"claim","reason":"mine"}`).is(403).shows("administrator")
	h.ask(h.admin, "POST", "/v1/holds", `{"kind":"claim","party":"`+h.annaID.String()+`"}`).is(400).shows("says its reason")
	h.ask(h.admin, "POST", "/v1/holds", `{"kind":"claim","party":"`+h.annaID.String()+`","reason":"case 12/26"}`).is(201)
	h.ask(h.admin, "POST", "/v1/holds", `{"kind":"law","party":"`+h.annaID.String()+`","reason":"order 7","secret":true}`).is(201)
	h.ask(h.anna, "GET", "/v1/holds", "").is(200).shows("case 12/26").hides("order 7", `"secret"`)
	h.ask(h.admin, "GET", "/v1/holds", "").is(200).shows("order 7")
}

// What a hold keeps is not erased; the rest is, if that is asked for, and the
// certificate says what was kept.
func TestErasureLeavesWhatIsHeld(t *testing.T) {
	h := build(t, Limits{})
	anna, watch := h.annaID.String(), h.watch.ID.String()
	h.Send(h.watch, querytest.At("steps", time.Now(), holdfast.NumberValue(7)))
	var claim Hold
	h.ask(h.admin, "POST", "/v1/holds", `{"kind":"claim","devices":["`+watch+`"],"streams":["pulse"],"reason":"case 12/26"}`).is(201).into(&claim)
	for _, body := range []string{`{"device":"watch","stream":"pulse"}`, `{"device":"watch"}`, `{"party":"` + anna + `"}`} {
		h.ask(h.anna, "POST", "/v1/erasures", body).is(403).shows("a claim at law", claim.ID)
	}
	h.ask(h.anna, "DELETE", "/v1/me/data", "").is(403).shows("a claim at law")
	h.ask(h.anna, "POST", "/v1/erasures", `{"device":"watch","stream":"pulse","rest":true}`).is(403).shows("nothing was erased")
	h.ask(h.anna, "GET", "/v1/readings?device="+watch, "").is(200).shows("pulse", "steps")

	h.ask(h.anna, "DELETE", "/v1/me/data?rest=true", "").is(200).shows(`"state":"done"`, `"why":"claim"`, claim.ID, `"kept`)
	h.ask(h.anna, "GET", "/v1/readings?device="+watch, "").is(200).shows("pulse").hides("steps")

	h.ask(h.admin, "DELETE", "/v1/holds/"+claim.ID, "").is(200)
	h.ask(h.admin, "POST", "/v1/holds", `{"kind":"law","party":"`+anna+`","reason":"order 7","secret":true}`).is(201)
	h.ask(h.anna, "DELETE", "/v1/me/data", "").is(403).shows("the law keeps").hides("order 7", "hold ")

	ben := h.benID.String()
	h.ask(h.ben, "POST", "/v1/holds", `{"kind":"restriction"}`).is(201)
	h.ask(h.admin, "POST", "/v1/erasures", `{"party":"`+ben+`"}`).is(403).shows("he has restricted them")
	h.ask(h.ben, "DELETE", "/v1/me/data", "").is(200).shows(`"whole_party":true`)
}

// A guardian holds a child's data, and an adult those of his household, as their
// owner does; a stranger, an adult without a device's data, and a guardian from the
// day of majority don't.
func TestHoldsInAnothersPlace(t *testing.T) {
	h := build(t, Limits{})
	home, err := h.House.Custody.AddParty(t.Context(), h.first.ID, "Home", custody.Household)
	h.must(err)
	kim, err := h.House.Custody.AddParty(t.Context(), h.first.ID, "Kim", custody.Person)
	h.must(err)
	day := h.Now().AddDate(0, 3, 0)
	h.join("", home.ID, kim.ID, "child", fmt.Sprintf(`,"to":%q`, day.Format(time.RFC3339)))
	h.join(h.anna, home.ID, h.annaID, "guardian", fmt.Sprintf(`,"ward":%q`, kim.ID))
	h.join(h.anna, home.ID, h.annaID, "adult", "")
	h.join(h.ben, home.ID, h.benID, "adult", "")
	bracelet := h.Device(custody.DeviceSpec{Label: "bracelet", Owner: kim.ID})
	lamp := h.Device(custody.DeviceSpec{Label: "lamp", Owner: home.ID})
	for name, d := range map[string]custody.Device{"Kim": bracelet, "Home": lamp} {
		h.Send(d, reading("state", h.Now(), "first"))
		h.asFor(h.anna, name, "POST", "/v1/grants", fmt.Sprintf(`{"recipient":%q,"purpose":"study","until":"+30d"}`, h.instituteID)).is(201)
		h.reads(h.institute, d, only("first"), nil)
	}

	restrict := `{"kind":"restriction","devices":["bracelet"]}`
	h.asFor(h.ben, "Kim", "POST", "/v1/holds", restrict).is(404)
	h.ask(h.ben, "POST", "/v1/holds", restrict).is(404)
	h.asFor(h.anna, "Kim", "POST", "/v1/holds", `{"kind":"restriction","devices":["watch"]}`).is(404)
	h.asFor(h.anna, "Kim", "POST", "/v1/holds", `{"kind":"claim","reason":"school"}`).is(403).shows("administrator")
	var childs, homes Hold
	h.asFor(h.anna, "Kim", "POST", "/v1/holds", restrict).is(201).into(&childs)
	if !childs.OwnWord || childs.Party.ID != kim.ID.String() {
		t.Errorf("%+v", childs)
	}
	h.reads(h.institute, bracelet, nil, only("first"))
	h.reads(h.anna, bracelet, only("first"), nil)
	h.reads(h.institute, lamp, only("first"), nil)
	h.ask(h.anna, "GET", "/v1/holds", "").is(200).hides(childs.ID)
	h.asFor(h.anna, "Kim", "GET", "/v1/holds", "").is(200).shows(childs.ID)
	h.ask(h.admin, "DELETE", "/v1/holds/"+childs.ID, "").is(403).shows("only his own credential")

	h.asFor(h.anna, "Home", "POST", "/v1/holds", `{"kind":"objection","purpose":"study"}`).is(201).into(&homes)
	h.reads(h.institute, lamp, nil, only("first"))
	h.asFor(h.ben, "Home", "DELETE", "/v1/holds/"+homes.ID, "").is(200).shows(`"state":"ended"`)
	h.reads(h.institute, lamp, only("first"), nil)
	h.asFor(h.ben, "Home", "POST", "/v1/holds", `{"kind":"collection","devices":["lamp"]}`).is(201)
	b := h.Gate.Batch(t.Context(), identity.Peer{Device: lamp.ID, Assignment: lamp.Assignment}, "")
	if err := b.Add("", []holdfast.Sample{reading("state", h.Now(), "second")}, ingest.Delivery{}); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("collected: %v", err)
	}
	h.asFor(h.ben, "Home", "DELETE", "/v1/holds/"+childs.ID, "").is(404)

	h.Later(day.Sub(h.Now()))
	h.asFor(h.anna, "Kim", "DELETE", "/v1/holds/"+childs.ID, "").is(404)
	h.ask(h.anna, "DELETE", "/v1/holds/"+childs.ID, "").is(404)
	token := h.redeem(kim.ID)
	h.ask(token, "GET", "/v1/ledger/entries", "").is(200).shows("hold set")
	h.ask(token, "DELETE", "/v1/holds/"+childs.ID, "").is(200).shows(`"state":"ended"`)
}
