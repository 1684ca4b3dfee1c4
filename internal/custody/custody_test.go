package custody

import (
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func TestPartyIsFoundByNameAndByID(t *testing.T) {
	h := newHub(t)
	ada := h.party("Ada")
	for _, s := range []string{"Ada", ada.String()} {
		if p, err := h.ResolveParty(t.Context(), s); err != nil || p.ID != ada || p.Name != "Ada" || p.Kind != Person || p.State != Active {
			t.Errorf("%q: %+v, %v", s, p, err)
		}
	}
	_, err := h.ResolveParty(t.Context(), "ada")
	wants(t, err, holdfast.NotFound, "no such party")
	_, err = h.AddParty(t.Context(), h.admin, "Ada", Household)
	wants(t, err, holdfast.Conflict, "of this name")
	_, err = h.AddParty(t.Context(), h.admin, ada.String(), Person)
	wants(t, err, holdfast.Invalid, "look like an id")
	_, err = h.AddParty(t.Context(), h.admin, "Eve", "robot")
	wants(t, err, holdfast.Invalid, "person, household")
	_, err = h.AddOperating(t.Context(), "Other")
	wants(t, err, holdfast.Conflict, "already")

	all, err := h.Parties(t.Context())
	if err != nil || len(all) != 2 || all[0].Name != "Acme" || all[0].State != Operating || all[1].Name != "Ada" {
		t.Errorf("parties %+v, %v", all, err)
	}
	h.restart()
	if id, err := h.Operating(t.Context()); err != nil || id != h.acme {
		t.Errorf("operating organisation %v, %v", id, err)
	}
	if got := h.diary.kinds(vault.OfParty(ada)); !slices.Equal(got, []string{"party added"}) {
		t.Errorf("recorded %v", got)
	}
}

func TestNothingHappensUnrecorded(t *testing.T) {
	h := newHub(t)
	h.diary.broken = errors.New("ledger away")
	if _, err := h.AddParty(t.Context(), h.admin, "Ada", Person); !errors.Is(err, h.diary.broken) {
		t.Errorf("party added without a record: %v", err)
	}
	if _, err := h.AddDevice(t.Context(), h.admin, DeviceSpec{Label: "pump"}); !errors.Is(err, h.diary.broken) {
		t.Errorf("device added without a record: %v", err)
	}
	h.diary.broken = nil
	h.party("Ada")
	h.device(DeviceSpec{Label: "pump"})
}

func TestDeviceIsFoundByLabelAndByID(t *testing.T) {
	h := newHub(t)
	ada, bob := h.party("Ada"), h.party("Bob")
	mine := h.device(DeviceSpec{Label: "pump"})
	if mine.Owner != h.acme || mine.State != Active {
		t.Errorf("a device without an owner given: %+v", mine)
	}
	got, err := h.ResolveDevice(t.Context(), "pump")
	if err != nil || !cmp.Equal(got, mine) {
		t.Errorf("by label: %v\n%s", err, cmp.Diff(mine, got))
	}
	_, err = h.AddDevice(t.Context(), h.admin, DeviceSpec{Label: "pump"})
	wants(t, err, holdfast.Conflict, "of this label")

	hers := h.device(DeviceSpec{Label: "pump", Owner: ada})
	_, err = h.ResolveDevice(t.Context(), "pump")
	wants(t, err, holdfast.Conflict, "use the id")
	if got, err := h.ResolveDevice(t.Context(), hers.ID.String()); err != nil || got.Owner != ada {
		t.Errorf("by id: %+v, %v", got, err)
	}
	if got, err := h.DeviceByLabel(t.Context(), ada, "pump"); err != nil || got.ID != hers.ID {
		t.Errorf("by owner and label: %+v, %v", got, err)
	}
	_, err = h.DeviceByLabel(t.Context(), bob, "pump")
	wants(t, err, holdfast.NotFound, "no such device")

	// A closed device gives its label up, and is found by it until another takes it.
	if err := h.CloseAssignment(t.Context(), h.admin, hers.Assignment); err != nil {
		t.Fatal(err)
	}
	if got, err := h.DeviceByLabel(t.Context(), ada, "pump"); err != nil || got.State != Closed {
		t.Errorf("closed: %+v, %v", got, err)
	}
	next := h.device(DeviceSpec{Label: "pump", Owner: ada})
	if got, err := h.DeviceByLabel(t.Context(), ada, "pump"); err != nil || got.ID != next.ID {
		t.Errorf("after the closed one: %+v, %v", got, err)
	}
	list, err := h.Devices(t.Context(), ada)
	if err != nil || len(list) != 2 {
		t.Errorf("her devices %+v, %v", list, err)
	}
	wants(t, h.CloseAssignment(t.Context(), h.admin, hers.Assignment), holdfast.Conflict, "not open")
	a, err := h.Assignment(t.Context(), hers.Assignment)
	if err != nil || a.State != Closed || !a.From.Equal(h.clock) || !a.To.Equal(h.clock) {
		t.Errorf("closed assignment %+v, %v", a, err)
	}
	want := []string{"party added", "device added", "assignment closed", "device added"}
	if got := h.diary.kinds(vault.OfParty(ada)); !slices.Equal(got, want) {
		t.Errorf("recorded %v", got)
	}
}

func TestUnclaimedDeviceHasNoRouteUntilItsCodeIsUsed(t *testing.T) {
	h := newHub(t)
	ada, bob := h.party("Ada"), h.party("Bob")
	h.device(DeviceSpec{Label: "band", Owner: ada})
	added, err := h.AddDevice(t.Context(), h.admin, DeviceSpec{Label: "band", Unclaimed: true})
	if err != nil {
		t.Fatal(err)
	}
	band := added.Device.ID
	for range 2 { // from the catalog, then from memory
		_, err = h.Route(t.Context(), band)
		wants(t, err, holdfast.Denied, "has no owner")
	}
	if h.onDisk(added.ClaimCode) || h.onDisk(strings.ReplaceAll(added.ClaimCode, "-", "")) {
		t.Error("the claim code is on disk")
	}

	// Typed in capitals with spaces, it is the same code.
	d, err := h.Claim(t.Context(), h.admin, ada, strings.ToUpper(strings.ReplaceAll(added.ClaimCode, "-", " ")))
	if err != nil {
		t.Fatal(err)
	}
	if d.ID != band || d.Owner != ada || d.State != Active || d.Label != "band 2" || d.Assignment != added.Device.Assignment {
		t.Errorf("claimed %+v", d)
	}
	if r := h.route(band); r.Owner != ada || r.Assignment != d.Assignment {
		t.Errorf("route %+v", r)
	}
	if got, err := h.DeviceByLabel(t.Context(), ada, "band 2"); err != nil || got.ID != band {
		t.Errorf("by its new label: %+v, %v", got, err)
	}
	_, err = h.Claim(t.Context(), h.admin, bob, added.ClaimCode)
	wants(t, err, holdfast.Denied, "wrong or was used")
	_, err = h.NewClaimCode(t.Context(), h.admin, band)
	wants(t, err, holdfast.Conflict, "not unclaimed")
}

func TestNewClaimCodeReplacesTheOld(t *testing.T) {
	h := newHub(t)
	ada := h.party("Ada")
	added, err := h.AddDevice(t.Context(), h.admin, DeviceSpec{Label: "band", Unclaimed: true})
	if err != nil {
		t.Fatal(err)
	}
	code, err := h.NewClaimCode(t.Context(), h.admin, added.Device.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Claim(t.Context(), h.admin, ada, added.ClaimCode)
	wants(t, err, holdfast.Denied, "wrong or was used")
	if _, err := h.Claim(t.Context(), h.admin, ada, code); err != nil {
		t.Error(err)
	}
}

func TestWrongClaimCodesAreLimited(t *testing.T) {
	h := newHub(t)
	ada, bob := h.party("Ada"), h.party("Bob")
	added, err := h.AddDevice(t.Context(), h.admin, DeviceSpec{Label: "band", Unclaimed: true})
	if err != nil {
		t.Fatal(err)
	}
	for range claimAttempts {
		_, err := h.Claim(t.Context(), h.admin, ada, "aaaa-bbbb-cccc-dddd")
		wants(t, err, holdfast.Denied, "wrong or was used")
	}
	_, err = h.Claim(t.Context(), h.admin, ada, added.ClaimCode)
	wants(t, err, holdfast.Denied, "too many wrong claim codes")
	_, err = h.Claim(t.Context(), h.admin, bob, "aaaa-bbbb-cccc-dddd")
	wants(t, err, holdfast.Denied, "wrong or was used") // another's tries don't count against him
	h.clock = h.clock.Add(claimWindow)
	if _, err := h.Claim(t.Context(), h.admin, ada, added.ClaimCode); err != nil {
		t.Errorf("an hour later: %v", err)
	}
}

func TestChildOfGatewayHasAnOwnerOfItsOwn(t *testing.T) {
	h := newHub(t)
	ada := h.party("Ada")
	gate := h.device(DeviceSpec{Label: "gate"})
	other := h.device(DeviceSpec{Label: "other gate"})
	kitchen := h.device(DeviceSpec{Label: "kitchen", Owner: ada, Gateway: gate.ID})
	for range 2 { // from the catalog, then from memory
		if id, err := h.Child(t.Context(), gate.ID, "kitchen"); err != nil || id != kitchen.ID {
			t.Errorf("child %v, %v", id, err)
		}
	}
	if r := h.route(kitchen.ID); r.Owner != ada || r.Gateway != gate.ID {
		t.Errorf("route %+v", r)
	}
	_, err := h.Child(t.Context(), other.ID, "kitchen")
	wants(t, err, holdfast.NotFound, "no child of this name")
	_, err = h.Child(t.Context(), gate.ID, "cellar")
	wants(t, err, holdfast.NotFound, "no child of this name")
	_, err = h.AddDevice(t.Context(), h.admin, DeviceSpec{Label: "kitchen", Gateway: gate.ID})
	wants(t, err, holdfast.Conflict, "child of this name")
	_, err = h.AddDevice(t.Context(), h.admin, DeviceSpec{Label: "sub", Gateway: kitchen.ID})
	wants(t, err, holdfast.Invalid, "can't be a gateway")
	if list, err := h.Children(t.Context(), gate.ID); err != nil || len(list) != 1 || list[0].Child != "kitchen" {
		t.Errorf("children %+v, %v", list, err)
	}

	if err := h.CloseAssignment(t.Context(), h.admin, gate.Assignment); err != nil {
		t.Fatal(err)
	}
	_, err = h.Child(t.Context(), gate.ID, "kitchen")
	wants(t, err, holdfast.NotFound, "no child of this name")
	h.route(kitchen.ID) // the child itself is not closed
}

func TestDataSubjectMustExistAndIsKept(t *testing.T) {
	h := newHub(t)
	ada := h.party("Ada")
	d := h.device(DeviceSpec{Label: "badge", Subject: ada})
	if got, err := h.Device(t.Context(), d.ID); err != nil || got.Subject != ada || got.Owner != h.acme {
		t.Errorf("device %+v, %v", got, err)
	}
	if d := h.device(DeviceSpec{Label: "own", Owner: ada, Subject: ada}); !d.Subject.IsZero() {
		t.Error("an owner stands as his own data subject")
	}
	_, err := h.AddDevice(t.Context(), h.admin, DeviceSpec{Label: "x", Subject: holdfast.NewID[holdfast.PartyID]()})
	wants(t, err, holdfast.NotFound, "no such party")
	_, err = h.AddDevice(t.Context(), h.admin, DeviceSpec{Label: "x", Owner: ada, Unclaimed: true})
	wants(t, err, holdfast.Invalid, "unclaimed device has no owner")
}

// What identifies is on disk only as what nobody can read.
func TestNothingThatIdentifiesIsOnDiskInClear(t *testing.T) {
	h := newHub(t)
	ada := h.party("Ada Lovelace")
	h.profile(`{"name":"EngineModel","version":1,"streams":[{"name":"steam-pressure","type":"number","purposes":["operation"]}]}`)
	gate := h.device(DeviceSpec{Label: "gate-label"})
	d := h.device(DeviceSpec{Label: "engine-label", Owner: ada, Profile: "EngineModel", Gateway: gate.ID, Serial: "SERIAL-0815"})
	h.send(d.ID, number("steam-pressure", 1))
	h.send(gate.ID, number("gate-stream", 1))
	for _, text := range []string{"Lovelace", "EngineModel", "steam-pressure", "engine-label", "gate-label", "SERIAL-0815", "gate-stream"} {
		if h.onDisk(text) {
			t.Errorf("%q is on disk", text)
		}
	}
	if !h.onDisk("CREATE TABLE party") {
		t.Error("the search finds nothing at all")
	}
}

func TestErasedPartyLeavesIdsAndStates(t *testing.T) {
	h := newHub(t)
	ada, bob := h.party("Ada"), h.party("Bob")
	hers := h.device(DeviceSpec{Label: "band", Owner: ada, Serial: "S1"})
	worn := h.device(DeviceSpec{Label: "badge", Subject: ada})
	his := h.device(DeviceSpec{Label: "scale", Owner: bob, Gateway: hers.ID})
	h.send(hers.ID, number("pulse", 60))
	h.send(his.ID, number("weight", 80))
	if _, err := h.Child(t.Context(), hers.ID, "scale"); err != nil {
		t.Fatal(err)
	}

	s, err := h.ScopeOfParty(t.Context(), ada)
	if err != nil || !s.Whole || s.Partial() || s.Before != h.clock.UnixNano() || len(s.Assignments) != 2 ||
		!slices.Contains(s.Assignments, hers.Assignment) || !slices.Contains(s.Assignments, worn.Assignment) {
		t.Fatalf("scope %+v, %v", s, err)
	}
	for range 2 { // a crash in between makes it run again
		if err := h.Erase(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	_, err = h.Route(t.Context(), hers.ID)
	wants(t, err, holdfast.Denied, "is erased")
	_, err = h.ResolveParty(t.Context(), "Ada")
	wants(t, err, holdfast.NotFound, "no such party")
	_, err = h.ResolveParty(t.Context(), ada.String())
	wants(t, err, holdfast.NotFound, "no such party")
	_, err = h.ResolveDevice(t.Context(), "band")
	wants(t, err, holdfast.NotFound, "no such device")
	if p, err := h.Party(t.Context(), ada); err != nil || !cmp.Equal(p, Party{ID: ada, State: Erased}) {
		t.Errorf("what is left of the party: %+v, %v", p, err)
	}
	if d, err := h.Device(t.Context(), hers.ID); err != nil || !cmp.Equal(d, Device{ID: hers.ID, Assignment: hers.Assignment, State: Erased}) {
		t.Errorf("what is left of the device: %+v, %v", d, err)
	}
	if a, err := h.Assignment(t.Context(), hers.Assignment); err != nil || !cmp.Equal(a, Assignment{ID: hers.Assignment, State: Erased}) {
		t.Errorf("what is left of the assignment: %+v, %v", a, err)
	}
	if list, err := h.StreamsOf(t.Context(), hers); err != nil || len(list) != 0 {
		t.Errorf("streams %+v, %v", list, err)
	}

	// Bob's is not touched, but for the gateway that is gone.
	if r := h.route(his.ID); !r.Gateway.IsZero() {
		t.Error("the child names an erased gateway")
	}
	if _, ok := h.route(his.ID).Stream("weight"); !ok {
		t.Error("another's stream is gone")
	}
	_, err = h.Child(t.Context(), hers.ID, "scale")
	wants(t, err, holdfast.NotFound, "no child")

	// The name and the unit are free again; a party that comes back is a new one.
	if again := h.party("Ada"); again == ada {
		t.Error("the erased party came back")
	}
	h.device(DeviceSpec{Label: "band", Serial: "S1"})
}

// Between asking and erasing a party gets nothing that the erasure would miss.
func TestLeavingPartyGetsNothingNew(t *testing.T) {
	h := newHub(t)
	ada := h.party("Ada")
	h.device(DeviceSpec{Label: "band", Owner: ada})
	added, err := h.AddDevice(t.Context(), h.admin, DeviceSpec{Label: "scale", Unclaimed: true})
	if err != nil {
		t.Fatal(err)
	}
	early, err := h.ScopeOfParty(t.Context(), ada)
	if err != nil {
		t.Fatal(err)
	}
	h.device(DeviceSpec{Label: "late", Subject: ada})
	leave := func(s holdfast.Scope) error {
		return h.handle.Write(t.Context(), func(tx *sql.Tx) error { return h.Leave(t.Context(), tx, s) })
	}
	wants(t, leave(early), holdfast.Conflict, "ask again")
	h.device(DeviceSpec{Label: "still taken", Owner: ada})

	s, err := h.ScopeOfParty(t.Context(), ada)
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.planDevice(t.Context(), DeviceSpec{Label: "on its way", Owner: ada}) // checked before, written after
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := leave(s); err != nil {
			t.Fatal(err)
		}
	}
	_, err = h.AddDevice(t.Context(), h.admin, DeviceSpec{Label: "new", Owner: ada})
	wants(t, err, holdfast.Conflict, "is leaving")
	_, err = h.Claim(t.Context(), h.admin, ada, added.ClaimCode)
	wants(t, err, holdfast.Conflict, "is leaving")
	wants(t, h.handle.Write(t.Context(), func(tx *sql.Tx) error { return p.insert(t.Context(), tx) }), holdfast.Conflict, "is being erased")

	if err := h.Erase(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	wants(t, leave(s), holdfast.Conflict, "can't be erased")
	wants(t, leave(holdfast.Scope{Party: h.acme, Whole: true}), holdfast.Conflict, "can't be erased")
	if err := leave(holdfast.Scope{Party: h.acme}); err != nil {
		t.Errorf("a device's erasure: %v", err)
	}
}

func TestOperatingOrganisationCannotBeErased(t *testing.T) {
	h := newHub(t)
	_, err := h.ScopeOfParty(t.Context(), h.acme)
	wants(t, err, holdfast.Denied, "can't be erased")
	err = h.Erase(t.Context(), holdfast.Scope{Party: h.acme, Whole: true, Span: holdfast.Always})
	wants(t, err, holdfast.Denied, "can't be erased")
	d := h.device(DeviceSpec{Label: "pump"})
	s, err := h.ScopeOfDevice(t.Context(), d.ID)
	if err != nil || s.Whole || s.Party != h.acme {
		t.Fatalf("scope %+v, %v", s, err)
	}
	if err := h.Erase(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := h.ResolveParty(t.Context(), "Acme"); err != nil {
		t.Errorf("the organisation went with its device: %v", err)
	}
	_, err = h.ScopeOfDevice(t.Context(), d.ID)
	wants(t, err, holdfast.NotFound, "no such device")
}

// A stream that was erased and is sent again keeps its id, which the bar names.
func TestErasedStreamComesBackUnderItsID(t *testing.T) {
	h := newHub(t)
	d := h.device(DeviceSpec{Label: "pump"})
	first := h.send(d.ID, number("temp", 20))
	other := h.send(d.ID, number("load", 3))
	part, err := h.ScopeOfStream(t.Context(), d.ID, "temp")
	if err != nil || !slices.Equal(part.Streams, []holdfast.StreamID{first.ID}) || part.Partial() {
		t.Fatalf("scope %+v, %v", part, err)
	}
	span := part
	span.Span = holdfast.Span{From: 1, To: 2}
	if err := h.Erase(t.Context(), span); err != nil {
		t.Fatal(err)
	}
	if s, err := h.StreamByName(t.Context(), d.ID, "temp"); err != nil || s.ID != first.ID {
		t.Errorf("a span took the whole stream: %+v, %v", s, err)
	}
	if err := h.Erase(t.Context(), part); err != nil {
		t.Fatal(err)
	}
	_, err = h.StreamByName(t.Context(), d.ID, "temp")
	wants(t, err, holdfast.NotFound, "no such stream")
	if _, ok := h.route(d.ID).Stream("temp"); ok {
		t.Error("the route still has it")
	}
	again := h.send(d.ID, holdfast.Sample{Stream: "temp", Value: holdfast.TextValue("warm")})
	if again.ID != first.ID || again.Type != holdfast.Text {
		t.Errorf("came back as %+v", again)
	}
	if s := h.send(d.ID, number("load", 4)); s.ID != other.ID {
		t.Error("another stream changed")
	}
}

// When the key dies before the rows, what they held reads as erased.
func TestDestroyedKeyReadsAsErased(t *testing.T) {
	h := newHub(t)
	ada := h.party("Ada")
	d := h.device(DeviceSpec{Label: "band", Owner: ada})
	h.send(d.ID, number("pulse", 60))
	h.keys.destroy(vault.OfAssignment(d.Assignment))
	h.Forget(d.Assignment)
	_, err := h.Route(t.Context(), d.ID)
	wants(t, err, holdfast.Denied, "is erased")
	if list, err := h.Devices(t.Context(), ada); err != nil || len(list) != 0 {
		t.Errorf("devices %+v, %v", list, err)
	}
	h.keys.destroy(vault.OfParty(ada))
	_, err = h.ResolveParty(t.Context(), "Ada")
	wants(t, err, holdfast.NotFound, "no such party")
	if all, err := h.Parties(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("parties %+v, %v", all, err)
	}
}

func TestTimesSurvive(t *testing.T) {
	h := newHub(t)
	h.clock = h.clock.Add(123456789 * time.Nanosecond)
	d := h.device(DeviceSpec{Label: "pump", Serial: "S"})
	h.restart()
	got, err := h.Device(t.Context(), d.ID)
	if err != nil || !got.Added.Equal(h.clock) {
		t.Errorf("added %v, %v", got.Added, err)
	}
	u, err := h.Unit(t.Context(), d.Unit)
	if err != nil || u.Serial != "S" || !u.Added.Equal(h.clock) {
		t.Errorf("unit %+v, %v", u, err)
	}
}
