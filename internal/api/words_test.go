package api

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// What is a household's is erased at the word of every adult, and by no way around it:
// not with a sale, not with a period that takes the past.
func TestOneAdultErasesNothingOfTheHousehold(t *testing.T) {
	h := build(t, Limits{})
	_, home := h.newcomer("Home", custody.Household)
	h.join(h.anna, home, h.annaID, "adult", "")
	h.join(h.ben, home, h.benID, "adult", "")
	fridge := h.Device(custody.DeviceSpec{Label: "fridge", Owner: home})
	at := time.Now()
	h.Send(fridge, reading("door", at, "open"))
	for _, fate := range []string{"erase", "export"} {
		h.asFor(h.anna, "Home", "POST", "/v1/transfers", fmt.Sprintf(`{"device":"fridge","to":%q,"readings":%q}`, h.annaID, fate)).is(403).shows("every adult")
	}
	from := fridge.Added.Add(time.Millisecond).UTC().Format(time.RFC3339Nano)
	for _, already := range []string{"erase", "move"} {
		h.asFor(h.anna, "Home", "POST", "/v1/assignments",
			fmt.Sprintf(`{"device":"fridge","owner":%q,"basis":"guest","from":%q,"already":%q}`, h.annaID, from, already)).is(403).shows("every adult")
	}
	h.reads(h.ben, fridge, only("open"), nil)

	var a ChangedAssignment
	h.asFor(h.anna, "Home", "POST", "/v1/assignments", `{"device":"fridge","basis":"own"}`).is(201).into(&a)
	h.Send(fridge, reading("door", time.Now(), "shut"))
	h.asFor(h.anna, "Home", "POST", "/v1/assignments/"+a.ID+"/end", "").is(200)
	h.asFor(h.anna, "Home", "POST", "/v1/assignments/"+a.ID+"/terms", `{"erase_after_days":1}`).is(403).shows("every adult")
	h.asFor(h.anna, "Home", "POST", "/v1/transfers", fmt.Sprintf(`{"device":"fridge","to":%q}`, h.annaID)).is(201)
}

// A period erases itself when it was agreed to. Whose the device is can't bring that
// forward over readings that are another's, nor can a credential that is not settled.
func TestAPeriodIsNotErasedSoonerThanAgreed(t *testing.T) {
	h := build(t, Limits{})
	var agreed, open ChangedAssignment
	h.ask(h.anna, "POST", "/v1/assignments", period("watch", h.benID.String(), `,"erase_after_days":30`)).is(201).into(&agreed)
	h.Send(h.watch, querytest.At("pulse", time.Now(), holdfast.NumberValue(1)))
	n := h.values(h.ben, h.watch.ID)
	terms := "/v1/assignments/" + agreed.ID + "/terms"
	h.ask(h.anna, "POST", terms, `{"erase_after_days":1}`).is(403).shows("sooner")
	past := agreed.From.Add(time.Millisecond).Format(time.RFC3339Nano)
	h.ask(h.anna, "POST", terms, fmt.Sprintf(`{"to":%q,"already":"keep"}`, past)).is(403).shows("sooner")
	h.ask(h.anna, "POST", "/v1/assignments/"+agreed.ID+"/end", fmt.Sprintf(`{"at":%q,"already":"keep"}`, past)).is(403).shows("sooner")
	h.ask(h.anna, "POST", "/v1/assignments/"+agreed.ID+"/end", "").is(200)
	h.ask(h.anna, "POST", terms, `{"never_erase":true}`).is(200)
	h.ask(h.anna, "POST", terms, `{"erase_after_days":400}`).is(403).shows("sooner")
	h.ask(h.anna, "POST", "/v1/assignments", period("watch", h.benID.String(), "")).is(201).into(&open)
	h.ask(h.anna, "POST", "/v1/assignments/"+open.ID+"/terms", `{"erase_after_days":1}`).is(403).shows("sooner")
	if left := h.values(h.ben, h.watch.ID); left != n {
		t.Errorf("%d of %d readings", left, n)
	}
}
