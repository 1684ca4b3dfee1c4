package ingest

import (
	"database/sql"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// client is a program of a party, or a device, whose key the vault has.
func (s *store) client(owner vault.Owner) Client {
	s.t.Helper()
	if !s.v.HasOwner(owner) {
		if err := s.v.AddOwner(s.t.Context(), owner); err != nil {
			s.t.Fatal(err)
		}
	}
	return Client{ID: holdfast.NewID[[holdfast.IDSize]byte](), Owner: owner}
}

func (s *store) opens(c Client, id string, clean bool, expiry time.Duration) Opened {
	s.t.Helper()
	o, err := s.Open(s.t.Context(), c, id, clean, expiry)
	if err != nil {
		s.t.Fatal(err)
	}
	return o
}

func (s *store) keeps(session, filter, about string) {
	s.t.Helper()
	if err := s.Keep(s.t.Context(), session, filter, []byte(about)); err != nil {
		s.t.Fatal(err)
	}
}

// rows is how many subscriptions there are, of any session.
func (s *store) rows() (n int) {
	s.t.Helper()
	err := s.db.Read(s.t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRow(`SELECT COUNT(*) FROM mqtt_subscription`).Scan(&n)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// wantSubscriptions opens a session again and compares what it has kept.
func (s *store) wantSubscriptions(c Client, id string, want map[string]string) {
	s.t.Helper()
	got := map[string]string{}
	for filter, about := range s.opens(c, id, false, time.Hour).Subscriptions {
		got[filter] = string(about)
	}
	if d := cmp.Diff(want, got); d != "" {
		s.t.Error(d)
	}
}

func party() vault.Owner { return vault.OfParty(holdfast.NewID[holdfast.PartyID]()) }

// What a session has subscribed to is there after a crash, with what was said last of
// it before that was saved; what it has dropped is not.
func TestSubscriptionsOutliveACrash(t *testing.T) {
	s := newStore(t)
	c := s.client(party())
	name := s.opens(c, "a", false, time.Hour).Name
	s.keeps(name, "feed/a/#", "one")
	s.keeps(name, "feed/b/#", "two")
	s.keeps(name, "$share/g/feed/#", "three")
	s.Note(name, "feed/a/#", []byte("one, later"))
	s.wantSubscriptions(c, "a", map[string]string{"feed/a/#": "one, later", "feed/b/#": "two", "$share/g/feed/#": "three"})
	s.restart() // the note was not durable: the client is given that much again
	s.wantSubscriptions(c, "a", map[string]string{"feed/a/#": "one", "feed/b/#": "two", "$share/g/feed/#": "three"})

	s.Note(name, "feed/a/#", []byte("one, later"))
	s.Note(name, "feed/a/#", []byte("one, at last"))
	if err := s.Drop(t.Context(), name, "feed/b/#"); err != nil {
		t.Fatal(err)
	}
	s.Note(name, "feed/b/#", []byte("after its end")) // what a stream says that has not heard of it
	if err := s.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.restart()
	s.wantSubscriptions(c, "a", map[string]string{"feed/a/#": "one, at last", "$share/g/feed/#": "three"})
	s.keeps(name, "feed/a/#", "anew") // subscribed to again
	s.restart()
	s.wantSubscriptions(c, "a", map[string]string{"feed/a/#": "anew", "$share/g/feed/#": "three"})
	if got := s.opens(c, "b", false, time.Hour).Subscriptions; len(got) > 0 {
		t.Errorf("another session has %v", got)
	}
}

// Subscriptions end with their session: on a clean start, with the connection, in time,
// and when the client has left too many sessions.
func TestSubscriptionsEndWithTheirSession(t *testing.T) {
	s := newStore(t)
	c := s.client(party())
	for name, end := range map[string]func(){
		"a clean start":          func() { s.opens(c, "a", true, time.Hour) },
		"an end with connection": func() { s.opens(c, "a", false, 0) },
		"the client's end": func() {
			if err := s.Close(t.Context(), c, "a", 0); err != nil {
				t.Fatal(err)
			}
		},
		"expiry": func() {
			if err := s.Close(t.Context(), c, "a", time.Nanosecond); err != nil {
				t.Fatal(err)
			}
			if err := s.Save(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"expiry, before it is noticed": func() {
			if err := s.Close(t.Context(), c, "a", time.Nanosecond); err != nil {
				t.Fatal(err)
			}
			s.opens(c, "a", false, time.Hour)
		},
	} {
		session := s.opens(c, "a", true, time.Hour).Name
		s.keeps(session, "feed/#", "x")
		if s.rows() != 1 {
			t.Fatalf("%s: %d subscriptions before", name, s.rows())
		}
		s.Note(session, "feed/#", []byte("y"))
		end()
		s.Note(session, "feed/#", []byte("z"))
		s.keeps(session, "feed/late", "z")
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := s.rows(); n != 0 {
			t.Errorf("%s leaves %d subscriptions", name, n)
		}
		s.restart()
		s.wantSubscriptions(c, "a", map[string]string{})
	}

	short := s.opens(c, "short", true, 0)
	s.keeps(short.Name, "feed/#", "x")
	if s.rows() != 0 {
		t.Error("a session that ends with its connection keeps a subscription")
	}
}

func TestSubscriptionsAreBounded(t *testing.T) {
	s := newStore(t)
	c := s.client(party())
	for i := range maxSessions + 20 {
		id := fmt.Sprint(i)
		s.keeps(s.opens(c, id, false, time.Hour).Name, "feed/#", id)
		if err := s.Close(t.Context(), c, id, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.rows(); n != maxSessions {
		t.Errorf("%d subscriptions of at most %d sessions", n, maxSessions)
	}
	s.restart()
	s.wantSubscriptions(c, fmt.Sprint(maxSessions+19), map[string]string{"feed/#": fmt.Sprint(maxSessions + 19)})
	s.wantSubscriptions(c, "0", map[string]string{})
}

// The sessions of one client know each other's subscriptions with a filter, as a shared
// one needs; those of others they do not.
func TestSiblings(t *testing.T) {
	s := newStore(t)
	owner := party()
	c, other := s.client(owner), s.client(owner)
	const shared = "$share/g/feed/#"
	a, b, o := s.opens(c, "a", false, time.Hour).Name, s.opens(c, "b", false, time.Hour).Name, s.opens(other, "a", false, time.Hour).Name
	s.keeps(a, shared, "of a")
	s.keeps(b, shared, "of b")
	s.keeps(b, "feed/#", "alone")
	s.keeps(o, shared, "of another credential")
	s.Note(b, shared, []byte("of b, later"))
	all, err := s.Siblings(t.Context(), a, shared)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, about := range all {
		got[string(about)]++
	}
	if d := cmp.Diff(map[string]int{"of a": 1, "of b, later": 1}, got); d != "" {
		t.Error(d)
	}
	if all, err := s.Siblings(t.Context(), "nobody's", shared); err != nil || len(all) > 0 {
		t.Errorf("of no session: %d, %v", len(all), err)
	}
}

// With a party go the subscriptions of its people and programs, with a device its own;
// what was noted and not saved comes back with nothing. Erasing a stream or a span ends
// none of them.
func TestErasedSubscriptions(t *testing.T) {
	s := newStore(t)
	anna, ben := holdfast.NewID[holdfast.PartyID](), holdfast.NewID[holdfast.PartyID]()
	watch := holdfast.NewID[holdfast.AssignmentID]()
	hers, his, device := s.client(vault.OfParty(anna)), s.client(vault.OfParty(ben)), s.client(vault.OfAssignment(watch))
	names := map[*Client]string{}
	for _, c := range []*Client{&hers, &his, &device} {
		names[c] = s.opens(*c, "a", false, time.Hour).Name
		s.keeps(names[c], "feed/#", "x")
	}
	erase := func(scope holdfast.Scope, left int) {
		t.Helper()
		for name := range maps.Values(names) {
			s.Note(name, "feed/#", []byte("noted"))
		}
		if err := s.Erase(t.Context(), scope); err != nil {
			t.Fatal(err)
		}
		for name := range maps.Values(names) {
			s.Note(name, "feed/#", []byte("noted"))
		}
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := s.rows(); n != left {
			t.Errorf("%d subscriptions are left, want %d", n, left)
		}
	}
	erase(holdfast.Scope{Assignments: []holdfast.AssignmentID{watch}, Span: holdfast.Span{From: 1, To: 2}}, 3)
	erase(holdfast.Scope{Assignments: []holdfast.AssignmentID{watch}, Streams: []holdfast.StreamID{{1}}, Span: holdfast.Always}, 3)
	erase(holdfast.Scope{Assignments: []holdfast.AssignmentID{watch}, Span: holdfast.Always}, 2)
	erase(holdfast.Scope{Party: anna, Whole: true, Span: holdfast.Always}, 1)
	s.restart()
	s.wantSubscriptions(hers, "a", map[string]string{})
	s.wantSubscriptions(device, "a", map[string]string{})
	s.wantSubscriptions(his, "a", map[string]string{"feed/#": "noted"})
}
