package ingest

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/vaulttest"
)

// store is a session store that can be closed and opened again.
type store struct {
	t  *testing.T
	db *catalog.DB
	v  *vault.Vault
	*Sessions
}

func newStore(t *testing.T) *store {
	t.Helper()
	db, v := vaulttest.New(t)
	s := &store{t: t, db: db, v: v}
	s.restart()
	return s
}

// restart forgets what is in memory, as a crash does.
func (s *store) restart() {
	s.t.Helper()
	var err error
	if s.Sessions, _, err = OpenSessions(s.t.Context(), s.db, s.v); err != nil {
		s.t.Fatal(err)
	}
}

func (s *store) open(p identity.Peer, client string, clean bool, expiry time.Duration) Opened {
	s.t.Helper()
	o, err := s.Open(s.t.Context(), DeviceClient(p), client, clean, expiry)
	if err != nil {
		s.t.Fatal(err)
	}
	return o
}

func peer() identity.Peer {
	return identity.Peer{Device: holdfast.NewID[holdfast.DeviceID](), Assignment: holdfast.NewID[holdfast.AssignmentID]()}
}

func TestSessionOutlivesConnectionAndCrash(t *testing.T) {
	s, p := newStore(t), peer()
	first := s.open(p, "a", false, time.Hour)
	if first.Present || len(first.Name) != 16 {
		t.Errorf("a new session: %+v", first)
	}
	s.restart() // the client was told of it, so it is there
	again := s.open(p, "a", false, time.Hour)
	if !again.Present || again.Name != first.Name {
		t.Errorf("after a crash: %+v", again)
	}
	if other := s.open(p, "b", false, time.Hour); other.Present || other.Name == first.Name {
		t.Error("two client ids share a session")
	}
	if other := s.open(peer(), "a", false, time.Hour); other.Present {
		t.Error("two devices share a session")
	}
	if clean := s.open(p, "a", true, time.Hour); clean.Present || clean.Name == first.Name {
		t.Error("a clean start goes on")
	}
}

func TestSessionEndsInTime(t *testing.T) {
	s, p := newStore(t), peer()
	s.open(p, "a", false, 0)
	if err := s.Close(t.Context(), DeviceClient(p), "a", 0); err != nil {
		t.Fatal(err)
	}
	if s.open(p, "a", false, time.Hour).Present {
		t.Error("a session of the connection outlived it")
	}
	if err := s.Close(t.Context(), DeviceClient(p), "a", time.Nanosecond); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.open(p, "a", false, time.Hour).Present {
		t.Error("an expired session goes on")
	}
}

// What the catalog has and what the journal replays come together, also when the
// catalog is newer than the records.
func TestPacketIDsSurvive(t *testing.T) {
	s, p := newStore(t), peer()
	name := s.open(p, "a", false, time.Hour).Name
	records := []series.Content{
		{Session: []byte(name), Received: []uint16{1, 2}},
		{Session: []byte(name), Released: []uint16{1}},
		{Session: []byte(name), Received: []uint16{7}},
	}
	for i, c := range records {
		s.exchanged(name, c.Received, c.Released)
		if i == 1 {
			if err := s.Save(t.Context()); err != nil { // as before a trim
				t.Fatal(err)
			}
		}
	}
	for from := range records {
		s.restart()
		for _, c := range records[from:] { // the journal keeps a suffix
			if err := s.Replay(series.Header{}, &c); err != nil {
				t.Fatal(err)
			}
		}
		if got := s.open(p, "a", false, time.Hour).Received; !slices.Equal(got, []uint16{2, 7}) {
			t.Errorf("replay from %d: %v", from, got)
		}
	}
}

func TestErasedDeviceHasNoSession(t *testing.T) {
	s, p, other := newStore(t), peer(), peer()
	s.open(p, "a", false, time.Hour)
	s.open(other, "a", false, time.Hour)
	scope := holdfast.Scope{Assignments: []holdfast.AssignmentID{p.Assignment}, Span: holdfast.Always}
	if err := s.Erase(t.Context(), scope); err != nil {
		t.Fatal(err)
	}
	s.restart()
	if s.open(p, "a", false, time.Hour).Present {
		t.Error("an erased device's session goes on")
	}
	if !s.open(other, "a", false, time.Hour).Present {
		t.Error("another device's session went")
	}
}

func TestClockNeverRunsBack(t *testing.T) {
	ahead := time.Now().Add(time.Hour).UnixNano()
	c := NewClock(ahead) // the system's clock was set back by an hour
	last := ahead
	for range 1000 {
		now := c.Now()
		if now < last {
			t.Fatal("ran back")
		}
		last = now
	}
	if d := c.Behind(); d < 59*time.Minute || d > 61*time.Minute {
		t.Errorf("behind by %s", d)
	}
	c.AtLeast(ahead + int64(time.Hour))
	if c.Now() < ahead+int64(time.Hour) {
		t.Error("before a replayed arrival")
	}
	if d := NewClock(0).Behind(); d > time.Second {
		t.Errorf("a right clock is behind by %s", d)
	}
}

// The last arrival is known after a restart, even when no record is left.
func TestClockSurvivesRestart(t *testing.T) {
	s := newStore(t)
	s.clock.AtLeast(time.Now().Add(time.Hour).UnixNano())
	if err := s.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := s.clock.Now()
	s.restart()
	if s.clock.Now() < before-int64(time.Minute) {
		t.Error("arrival time ran back across a restart")
	}
}
