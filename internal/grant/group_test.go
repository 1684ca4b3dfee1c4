package grant

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// All groups of a party together are bounded, also when they are declared at once, for
// they are read to list them; an ended one does not have its devices any more.
func TestGroupsTogetherAreBounded(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	s := GroupSpec{Every: "1d", Devices: make([]holdfast.DeviceID, MaxGroupDevices)}
	for i := range s.Devices {
		s.Devices[i] = holdfast.DeviceID{byte(i >> 16), byte(i >> 8), byte(i)}
	}
	var at sync.WaitGroup
	var made atomic.Int32
	var last atomic.Pointer[Group]
	for i := range maxDeclared/MaxGroupDevices + 2 {
		at.Go(func() {
			s := s
			s.Name = "g" + string(rune('a'+i))
			if g, err := h.AddGroup(ctx, h.admin, h.lab, s); err == nil {
				made.Add(1)
				last.Store(&g)
			} else if holdfast.KindOf(err) != holdfast.TooLarge {
				t.Error(err)
			}
		})
	}
	at.Wait()
	if n := made.Load(); n != maxDeclared/MaxGroupDevices {
		t.Errorf("%d groups", n)
	}
	if err := h.EndGroup(ctx, h.admin, last.Load().ID); err != nil {
		t.Fatal(err)
	}
	if g, err := h.Group(ctx, last.Load().ID); err != nil || len(g.Devices) != 0 {
		t.Errorf("%d devices of an ended group, %v", len(g.Devices), err)
	}
}

func TestGroupsAreDeclaredOnce(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	s := GroupSpec{Name: "house", Devices: []holdfast.DeviceID{{3}, {1}, {3}, {2}}, Every: "1d", Zone: "Europe/Warsaw"}
	g, err := h.AddGroup(ctx, h.admin, h.lab, s)
	if err != nil {
		t.Fatal(err)
	}
	h.restart()
	got, err := h.Group(ctx, g.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(g, got); diff != "" || !slices.Equal(got.Devices, []holdfast.DeviceID{{1}, {2}, {3}}) {
		t.Error(diff, got.Devices)
	}
	for want, change := range map[string]func(*GroupSpec){
		"there is a group of this name": func(*GroupSpec) {},
		"has devices":                   func(s *GroupSpec) { s.Devices = nil },
		"at most 100000 devices": func(s *GroupSpec) {
			s.Devices = nil
			for range MaxGroupDevices + 1 {
				s.Devices = append(s.Devices, holdfast.NewID[holdfast.DeviceID]())
			}
		},
		"windows are of":   func(s *GroupSpec) { s.Every = "5h" },
		"named as in":      func(s *GroupSpec) { s.Zone = "Local" },
		"time zone is nam": func(s *GroupSpec) { s.Zone = "Mars/Olympus" },
		"group":            func(s *GroupSpec) { s.Name = "" },
	} {
		bad := s
		change(&bad)
		if _, err := h.AddGroup(ctx, h.admin, h.lab, bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := h.EndGroup(ctx, h.admin, g.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.EndGroup(ctx, h.admin, g.ID); holdfast.KindOf(err) != holdfast.Conflict {
		t.Error(err)
	}
	if _, err := h.AddGroup(ctx, h.admin, h.lab, s); err != nil { // the name is free again
		t.Error(err)
	}
	if got := h.diary.kinds(vault.OfParty(h.lab)); !slices.Equal(got, []string{"group declared", "group ended", "group declared"}) {
		t.Error(got)
	}
	if err := h.Erase(ctx, holdfast.Scope{Party: h.lab, Whole: true, Span: holdfast.Always}); err != nil {
		t.Fatal(err)
	}
	if all, err := h.Groups(ctx, h.lab); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
}

// answerOf is an answer about so many subjects, from one on.
func (h *hub) answerOf(g holdfast.GroupID, from, to int, windows ...Cell) Answer {
	p := AnswerPart{Key: "number", Windows: windows}
	for i := from; i < to; i++ {
		p.Members = append(p.Members, Member{Subject: holdfast.PartyID{byte(i), 1}, Streams: []holdfast.StreamID{{byte(i)}}})
	}
	return Answer{Recipient: h.lab, Stream: "energy", Group: g, Least: 3, Parts: []AnswerPart{p}}
}

func TestAnswersAreRemembered(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	a, b := holdfast.GroupID{1}, holdfast.GroupID{2}
	day := func(n int64, sum byte) Cell { return Cell{Start: n * int64(24*time.Hour), Sum: [8]byte{sum}} }
	tell := func(want string, x Answer) {
		t.Helper()
		switch err := h.Told(ctx, x); {
		case want == "" && err != nil:
			t.Error(err)
		case want != "" && (holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), want)):
			t.Errorf("%v, want %q", err, want)
		}
	}
	const changed, overlaps, differs = "fewer than 3 data subjects", "shares data subjects", "has changed since"
	if err := h.MayAnswer(ctx, h.answerOf(b, 0, 10)); err != nil { // remembers nothing
		t.Fatal(err)
	}
	tell("", h.answerOf(a, 0, 10, day(1, 1), day(2, 1)))
	h.restart()
	tell("", h.answerOf(a, 0, 10, day(2, 1), day(3, 1)))
	tell(differs, h.answerOf(a, 0, 10, day(2, 2)))
	tell(differs, h.answerOf(a, 0, 10, day(2, 1), day(3, 2), day(4, 1)))
	tell("", h.answerOf(a, 0, 10, day(4, 2))) // what was refused is not remembered
	tell(changed, h.answerOf(a, 0, 11, day(5, 1)))
	tell(changed, h.answerOf(a, 1, 11, day(5, 1)))
	tell("", h.answerOf(a, 0, 14, day(5, 1)))
	tell(changed, h.answerOf(a, 0, 12, day(6, 1))) // two more than the first
	tell("", h.answerOf(a, 0, 10, day(6, 1)))
	tell(overlaps, h.answerOf(b, 13, 20, day(7, 1)))
	tell("", h.answerOf(b, 14, 20, day(7, 1)))
	tell(overlaps, h.answerOf(a, 4, 15, day(8, 1)))
	other := h.answerOf(a, 0, 10, day(9, 1))
	other.Parts[0].Members[4].Streams = []holdfast.StreamID{{200}}
	tell(changed, other) // one has another device
	other = h.answerOf(b, 13, 20, day(7, 1))
	other.Stream = "water"
	tell("", other)
	other.Recipient = h.ada
	tell("", other)
	if err := h.Erase(ctx, holdfast.Scope{Party: h.lab, Whole: true, Span: holdfast.Always}); err != nil {
		t.Fatal(err)
	}
	tell("", h.answerOf(b, 0, 5, day(1, 9)))
}

func TestManyWindowsAreRemembered(t *testing.T) {
	h := newHub(t)
	g := holdfast.GroupID{1}
	var all []Cell
	for i := range maxCells {
		all = append(all, Cell{Start: int64(i)})
	}
	for _, x := range []struct {
		cells []Cell
		ok    bool
	}{
		{all, true}, {all[:5], true}, {[]Cell{{Start: maxCells}, {Start: maxCells + 1}}, true}, {all[:3], false}, {all[2:5], true},
	} {
		if err := h.Told(t.Context(), h.answerOf(g, 0, 5, x.cells...)); (err == nil) != x.ok {
			t.Errorf("%d cells from %d: %v", len(x.cells), x.cells[0].Start, err)
		}
	}
}
