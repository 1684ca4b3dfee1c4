package grant

import (
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func TestGrantIsMadeByItsOwnerAlone(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	for who, by := range map[string]Caller{
		"administrator":            {Credential: h.admin, Party: h.ada},
		"credential without party": {Credential: h.admin, Owner: true},
	} {
		_, err := h.Make(ctx, by, h.everything())
		wants(t, err, holdfast.Denied, "a grant is made with the owner's own credential")
		if t.Failed() {
			t.Fatal(who)
		}
	}
	g, err := h.Make(ctx, h.own(h.ada), h.everything(func(s *Spec) {
		s.AllDevices, s.Devices = false, []holdfast.DeviceID{{1}}
		s.AllStreams, s.Streams = false, []string{"pulse"}
		s.Data = holdfast.Span{From: 10, To: 20}
	}))
	if err != nil || g.Grantor != h.ada {
		t.Fatalf("%+v, %v", g, err)
	}
	h.restart()
	if got, err := h.Grant(ctx, g.ID); err != nil || !cmp.Equal(got, g) || !got.Live(h.clock) {
		t.Errorf("%v %s", err, cmp.Diff(g, got))
	}
	want := []policy.Grant{{
		ID: g.ID, Grantor: h.ada, Recipient: h.lab, Purpose: "research", Devices: []holdfast.DeviceID{{1}}, Streams: []string{"pulse"},
		Data: holdfast.Span{From: 10, To: 20}, Made: h.clock.UnixNano(), Until: h.clock.AddDate(0, 1, 0).UnixNano(),
	}}
	if got, err := h.For(ctx, h.lab, h.ada); err != nil || !cmp.Equal(got, want) {
		t.Errorf("%v %s", err, cmp.Diff(want, got))
	}
	for what, pair := range map[string][2]holdfast.PartyID{"another recipient": {h.bob, h.ada}, "another owner": {h.lab, h.bob}} {
		if got, err := h.For(ctx, pair[0], pair[1]); err != nil || len(got) != 0 {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}

	wants(t, h.End(ctx, Caller{Credential: h.admin, Party: h.ada}, g.ID), holdfast.Denied, "own credential")
	wants(t, h.End(ctx, h.own(h.bob), g.ID), holdfast.NotFound, "no such grant")
	h.clock = h.clock.Add(time.Hour)
	if err := h.End(ctx, h.own(h.ada), g.ID); err != nil {
		t.Fatal(err)
	}
	wants(t, h.End(ctx, h.own(h.ada), g.ID), holdfast.Conflict, "ended already")
	if got, err := h.For(ctx, h.lab, h.ada); err != nil || len(got) != 0 {
		t.Errorf("an ended grant still counts: %+v, %v", got, err)
	}
	for what, list := range map[string]func() ([]Grant, error){
		"by its owner":     func() ([]Grant, error) { return h.GrantsBy(ctx, h.ada) },
		"by its recipient": func() ([]Grant, error) { return h.GrantsTo(ctx, h.lab) },
	} {
		if got, err := list(); err != nil || len(got) != 1 || !got[0].Ended.Equal(h.clock) || got[0].Live(h.clock) {
			t.Errorf("listed %s: %+v, %v", what, got, err)
		}
	}
	if got, err := h.GrantsBy(ctx, h.lab); err != nil || len(got) != 0 {
		t.Errorf("the recipient stands as grantor: %+v, %v", got, err)
	}
	if got := h.diary.kinds(vault.OfParty(h.ada)); !slices.Equal(got, []string{"grant made", "grant ended"}) {
		t.Errorf("recorded %v", got)
	}
}

func TestGrantSaysWhatItCovers(t *testing.T) {
	h := newHub(t)
	h.research()
	for _, c := range []struct {
		reason string
		change func(*Spec)
	}{
		{"a recipient other than", func(s *Spec) { s.Recipient = holdfast.PartyID{} }},
		{"a recipient other than", func(s *Spec) { s.Recipient = h.ada }},
		{"own-access needs no grant", func(s *Spec) { s.Purpose = holdfast.OwnAccess }},
		{"does not exist or has ended", func(s *Spec) { s.Purpose = "marketing" }},
		{"names devices or says all", func(s *Spec) { s.AllDevices = false }},
		{"names devices or says all", func(s *Spec) { s.Devices = []holdfast.DeviceID{{1}} }},
		{"names streams or says all", func(s *Spec) { s.AllStreams = false }},
		{"names at most", func(s *Spec) { s.AllStreams, s.Streams = false, make([]string, 1001) }},
		{"must not contain", func(s *Spec) { s.AllStreams, s.Streams = false, []string{"#"} }},
		{"end before they begin", func(s *Spec) { s.Data = holdfast.Span{From: 2, To: 1} }},
		{"has a last day", func(s *Spec) { s.Until = time.Time{} }},
		{"have ended already", func(s *Spec) { s.Until = h.clock }},
		{"at most 2 years", func(s *Spec) { s.Until = h.clock.AddDate(2, 0, 1) }},
	} {
		_, err := h.Make(t.Context(), h.own(h.ada), h.everything(c.change))
		if err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%v, want %q", err, c.reason)
		}
	}
	if _, err := h.Make(t.Context(), h.own(h.ada), h.everything(func(s *Spec) { s.Until = h.clock.AddDate(2, 0, 0) })); err != nil {
		t.Errorf("two years: %v", err)
	}
}

// Who can write to the database can't turn a grant to another recipient.
func TestAlteredRecipientIsNoGrant(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	g, err := h.Make(ctx, h.own(h.ada), h.everything())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec(`UPDATE data_grant SET recipient = $1 WHERE id = $2`, h.bob, g.ID)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_, err = h.For(ctx, h.bob, h.ada)
	wants(t, err, holdfast.Internal, "was altered")
}

func TestGrantReachesNoFurtherThanItsGrantor(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	if _, err := h.AddPurpose(ctx, h.admin, Purpose{Name: "care", IRI: "dpv:ServiceProvision", LegalBasis: "contract", Text: "x"}); err != nil {
		t.Fatal(err)
	}
	devices := func(ids ...holdfast.DeviceID) func(*Spec) {
		return func(s *Spec) { s.AllDevices, s.Devices = false, ids }
	}
	_, err := h.Make(ctx, h.own(h.ada), h.everything(devices(holdfast.DeviceID{1}, holdfast.DeviceID{2})))
	wants(t, err, holdfast.Denied, "somebody else's to grant")
	_, err = h.Make(ctx, h.own(h.bob), h.everything(devices(holdfast.DeviceID{1})))
	wants(t, err, holdfast.Denied, "somebody else's to grant")
	as := func(ids ...holdfast.AssignmentID) func(*Spec) { return func(s *Spec) { s.Assignments = ids } }
	_, err = h.Make(ctx, h.own(h.ada), h.everything(as(holdfast.AssignmentID{1}, holdfast.AssignmentID{2})))
	wants(t, err, holdfast.Denied, "named assignment are somebody else's to grant")
	_, err = h.Make(ctx, h.own(h.ada), h.everything(as(make([]holdfast.AssignmentID, maxSelected+1)...)))
	wants(t, err, holdfast.TooLarge, "assignments")
	_, err = h.Make(ctx, h.own(h.bob), h.everything())
	wants(t, err, holdfast.Denied, "consent given to an employer")
	if _, err = h.Make(ctx, h.own(h.bob), h.everything(func(s *Spec) { s.Purpose = "care" })); err != nil {
		t.Errorf("a worker's grant for a contract: %v", err)
	}
	_, err = h.Make(ctx, h.own(h.ada), h.everything(func(s *Spec) { s.Categories = []string{"pd:Locaton"} }))
	wants(t, err, holdfast.Invalid, "not a category of DPV")
	_, err = h.Make(ctx, h.own(h.ada), h.everything(func(s *Spec) { s.MinGroup = 1 }))
	wants(t, err, holdfast.Invalid, "a group has at least 2")
	if got, _ := h.GrantsBy(ctx, h.ada); len(got) != 0 {
		t.Errorf("what was refused stands: %+v", got)
	}
	g, err := h.Make(ctx, h.own(h.ada), h.everything(func(s *Spec) {
		s.Categories, s.Every, s.Assignments = []string{"pd:Location"}, time.Minute, []holdfast.AssignmentID{{1}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	h.restart()
	if got, err := h.Grant(ctx, g.ID); err != nil || !cmp.Equal(got, g) || got.Categories[0] != "https://w3id.org/dpv/pd#Location" {
		t.Errorf("%v %s", err, cmp.Diff(g, got))
	}
}

func TestGrantTakesThePlaceOfAnother(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	old, err := h.Make(ctx, h.own(h.ada), h.everything())
	if err != nil {
		t.Fatal(err)
	}
	over := func(id holdfast.GrantID) func(*Spec) { return func(s *Spec) { s.Supersedes = id } }
	for what, try := range map[string]func() error{
		"another's": func() error {
			_, err := h.Make(ctx, h.own(h.bob), h.everything(over(old.ID), func(s *Spec) { s.Recipient = h.ada }))
			return err
		},
		"to another": func() error {
			_, err := h.Make(ctx, h.own(h.ada), h.everything(over(old.ID), func(s *Spec) { s.Recipient = h.bob }))
			return err
		},
		"not a grant": func() error { _, err := h.Make(ctx, h.own(h.ada), h.everything(over(holdfast.GrantID{1}))); return err },
	} {
		if err := try(); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	g, err := h.Make(ctx, h.own(h.ada), h.everything(over(old.ID)))
	if err != nil {
		t.Fatal(err)
	}
	if was, err := h.Grant(ctx, old.ID); err != nil || was.Ended.IsZero() || g.Supersedes != old.ID {
		t.Errorf("the old one is %+v, %v", was, err)
	}
	_, err = h.Make(ctx, h.own(h.ada), h.everything(over(old.ID)))
	wants(t, err, holdfast.Conflict, "ended already")
	if got := h.diary.kinds(vault.OfParty(h.ada)); !slices.Equal(got, []string{"grant made", "grant ended", "grant made"}) {
		t.Errorf("recorded %v", got)
	}
}

// What a party said is compiled once and anew when it says something else, whoever
// asks meanwhile.
func TestSetFollowsItsParty(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	reaches := func() bool {
		s, err := h.Set(ctx, h.ada)
		if err != nil {
			t.Fatal(err)
		}
		return s.Reaches(h.lab, "research", nil, h.clock.UnixNano())
	}
	if reaches() {
		t.Error("nothing was granted")
	}
	first, _ := h.Set(ctx, h.ada)
	if again, _ := h.Set(ctx, h.ada); again != first {
		t.Error("it is compiled twice")
	}
	asking := make(chan struct{})
	done := make(chan struct{})
	for range 2 {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				select {
				case <-asking:
					return
				default:
					if _, err := h.Set(ctx, h.ada); err != nil {
						t.Error(err)
						return
					}
				}
			}
		}()
	}
	for range 20 {
		g, err := h.Make(ctx, h.own(h.ada), h.everything())
		if err != nil {
			t.Fatal(err)
		}
		if !reaches() {
			t.Fatal("a grant is not seen once it is made")
		}
		if err := h.End(ctx, h.own(h.ada), g.ID); err != nil {
			t.Fatal(err)
		}
		if reaches() {
			t.Fatal("a grant is seen when it has ended")
		}
	}
	close(asking)
	<-done
	<-done
	if _, err := h.Make(ctx, h.own(h.ada), h.everything()); err != nil || !reaches() {
		t.Fatal(err)
	}
	if err := h.Erase(ctx, holdfast.Scope{Party: h.lab, Whole: true}); err != nil {
		t.Fatal(err)
	}
	if reaches() {
		t.Error("a grant outlives its recipient")
	}
}
