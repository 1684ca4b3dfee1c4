package vault

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// near makes an owner whose lists share a lock with o's.
func (h *house) near(o Owner) Owner {
	h.t.Helper()
	n := holdfast.NewID[Owner]()
	n[0] = o[0]
	if err := h.AddOwner(h.t.Context(), n); err != nil {
		h.t.Fatal(err)
	}
	return n
}

// within fails if f has not returned after a time in which it could not but.
func within(t *testing.T, what string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%s: stuck", what)
	}
}

// The ledger seals within the catalog's one write transaction, while others wait
// for it with a list that grows.
func TestSealingInAWriteDoesNotWaitForGrowingLists(t *testing.T) {
	h := build(t)
	grows := h.owner()
	seals := h.near(grows)
	h.reopen() // nothing is cached
	grown := make(chan error, 1)
	within(t, "a write that seals", func() error {
		return h.db.Write(t.Context(), func(*sql.Tx) error {
			go func() {
				_, err := h.StreamCiphers(context.Background(), holdfast.AssignmentID(grows), 202611, []holdfast.StreamID{{1}})
				grown <- err
			}()
			for waiting := false; !waiting; time.Sleep(time.Millisecond) {
				h.saves.mu.Lock()
				waiting = h.saves.busy
				h.saves.mu.Unlock()
			}
			_, err := h.SealRecord(t.Context(), seals, "t", nil, "c", []byte("x"))
			return err
		})
	})
	if err := <-grown; err != nil {
		t.Error(err)
	}
}

// A key that was read from its list before a barrier renewed it, and is put into
// use only then, is not in use behind the barrier.
func TestBarrierSeesKeysOnTheirWayIntoUse(t *testing.T) {
	h := build(t)
	a := holdfast.AssignmentID(h.owner())
	lease, err := h.JournalKey(t.Context(), a, 202611)
	if err != nil {
		t.Fatal(err)
	}
	lease.Done()
	newest := func() *seal.Cipher {
		l, err := h.list(t.Context(), OfAssignment(a), 202611, nil)
		if err != nil {
			t.Error(err)
			return nil
		}
		return l.cipher(entryJournal, holdfast.StreamID{})
	}
	h.rotating.RLock() // as useJournalKey, between its reading of the list and its putting
	old := newest()
	passed := make(chan error, 1)
	go func() { passed <- h.Barrier(t.Context(), []holdfast.AssignmentID{a}, true) }()
	for newest() == old {
		time.Sleep(time.Millisecond)
	}
	early := false
	select {
	case err = <-passed:
		early = true
	case <-time.After(100 * time.Millisecond):
	}
	h.leases.put(leaseKey{a, 202611}, &journalKey{cipher: old, idle: make(chan struct{})})
	h.rotating.RUnlock()
	if !early {
		err = <-passed
	}
	if err != nil {
		t.Fatal(err)
	}
	lease, err = h.JournalKey(t.Context(), a, 202611)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Done()
	if lease.Cipher.ID() == old.ID() {
		t.Error("the key from before the barrier is in use behind it")
	}
}

// A list that was read before a rotation does not come into the cache behind it:
// there the dropped key would live on, and go into the next list that is saved.
func TestListsReadBeforeARotationStayOut(t *testing.T) {
	h := build(t)
	a := holdfast.AssignmentID(h.owner())
	keep, drop := holdfast.StreamID{1}, holdfast.StreamID{2}
	if _, err := h.StreamCiphers(t.Context(), a, 202611, []holdfast.StreamID{keep, drop}); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	_, changes := h.lists.get(OfAssignment(a), 202611)
	stale, err := h.readList(t.Context(), OfAssignment(a), 202611, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Destroy(t.Context(), Destruction{Reissue: []Reissue{{Assignment: a, Drop: []StreamBucket{{drop, 0}}}}}); err != nil {
		t.Fatal(err)
	}
	if h.lists.offer(OfAssignment(a), stale, changes) {
		t.Error("the cache took in a list from before the rotation")
	}
	if _, err := h.StreamCipher(t.Context(), a, 202611, drop); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("the dropped key: %v", err)
	}
}

// Whoever holds a list when its owner's key is renewed still finds the keys that
// live: to be told that there are none would look like an erasure.
func TestRenewedListsKeepTheirKeysInHands(t *testing.T) {
	h := build(t)
	a := holdfast.AssignmentID(h.owner())
	keep, drop := holdfast.StreamID{1}, holdfast.StreamID{2}
	if _, err := h.StreamCiphers(t.Context(), a, 202611, []holdfast.StreamID{keep, drop}); err != nil {
		t.Fatal(err)
	}
	inHand, err := h.list(t.Context(), OfAssignment(a), 202611, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Destroy(t.Context(), Destruction{Reissue: []Reissue{{Assignment: a, Drop: []StreamBucket{{drop, 0}}}}}); err != nil {
		t.Fatal(err)
	}
	if inHand.cipher(entryStream, keep) == nil {
		t.Error("the kept stream looks erased")
	}
}

// second is another holder, whose Destroy fails while broken is set.
type second struct {
	*FileHolder
	broken *bool
}

func (second) Name() string { return "second" }

func (s second) Destroy(ctx context.Context, n uint64) ([]byte, error) {
	if *s.broken {
		return nil, errFault
	}
	return s.FileHolder.Destroy(ctx, n)
}

// A rotation that one of two holders has done goes on with the new generation:
// what is added to the old one would be lost at the next start.
func TestRotationHalfDoneByTheHoldersGoesOn(t *testing.T) {
	for _, restart := range []bool{false, true} {
		h := build(t)
		other, err := CreateFileHolder(h.root+".2", nil)
		if err != nil {
			t.Fatal(err)
		}
		broken := true
		dir := t.TempDir()
		holders := func() []Holder { return []Holder{h.holder(), second{other, &broken}} }
		first, err := CreateFileHolder(h.root+".1", nil)
		if err != nil {
			t.Fatal(err)
		}
		h.root += ".1"
		h.db.Write(t.Context(), func(tx *sql.Tx) error { _, err := tx.Exec(`DELETE FROM key_list`); return err })
		if h.Vault, err = Create(t.Context(), h.db, Dir(dir), []Holder{first, second{other, &broken}}, Options{}); err != nil {
			t.Fatal(err)
		}
		dead, part := h.owner(), h.owner()
		deadBox := h.field(dead)
		d := Destruction{Owners: []Owner{dead}, Reissue: []Reissue{{Assignment: holdfast.AssignmentID(part), Drop: []StreamBucket{{holdfast.StreamID{1}, 0}}}}}
		if rot, err := h.Destroy(t.Context(), d); !errors.Is(err, errFault) || rot.To != 0 {
			t.Fatalf("rotation %+v, %v", rot, err)
		}
		late := h.owner()
		lateBox, partBox := h.field(late), h.field(part)
		lease, err := h.JournalKey(t.Context(), holdfast.AssignmentID(part), 202611)
		if err != nil {
			t.Fatal(err)
		}
		lease.Done()
		broken = false
		if restart {
			if h.Vault, err = Open(t.Context(), h.db, Dir(dir), holders(), Options{}); err != nil {
				t.Fatal(err)
			}
		} else if _, err := h.Destroy(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if !h.opens(late, lateBox) || !h.opens(part, partBox) {
			t.Error("an owner who lives lost his key")
		}
		if _, err := h.JournalOpener(t.Context(), holdfast.AssignmentID(part), 202611, lease.Cipher.ID()); err != nil {
			t.Errorf("a journal key that was in use: %v", err)
		}
		if h.opens(dead, deadBox) {
			t.Error("the destroyed owner's field opens")
		}
		for _, holder := range h.Holders() {
			if gens, err := holder.Generations(t.Context()); err != nil || len(gens) != 1 || gens[0] != h.Generation() {
				t.Errorf("holder %s has generations %v of %d, %v", holder.Name(), gens, h.Generation(), err)
			}
		}
	}
}

// What is sealed between a barrier and the rotation that it is for is under a key that
// lives on: it may be acknowledged when that is done, or else its sender sends again
// what is stored already. The next barrier finds the key in use, and waits for it.
func TestRotationLeavesLeasesBehindItsBarrier(t *testing.T) {
	for name, r := range map[string]Reissue{"rekey": {Fresh: true}, "erasure in part": {Drop: []StreamBucket{{holdfast.StreamID{1}, 202611}}}, "no list loses a key": {}} {
		t.Run(name, func(t *testing.T) {
			h := build(t)
			a, dead := holdfast.AssignmentID(h.owner()), h.owner()
			r.Assignment = a
			if _, err := h.StreamCiphers(t.Context(), a, 202611, []holdfast.StreamID{{1}}); err != nil {
				t.Fatal(err)
			}
			take := func(a holdfast.AssignmentID) *Lease {
				t.Helper()
				l, err := h.JournalKey(t.Context(), a, 202611)
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			take(a).Done()
			if err := h.Barrier(t.Context(), []holdfast.AssignmentID{a}, true); err != nil {
				t.Fatal(err)
			}
			lease, doomed := take(a), take(holdfast.AssignmentID(dead))
			if _, err := h.Destroy(t.Context(), Destruction{Owners: []Owner{dead}, Reissue: []Reissue{r}}); err != nil {
				t.Fatal(err)
			}
			if doomed.Valid() {
				t.Error("a lease of an owner who is gone is good")
			}
			doomed.Done()
			if !lease.Valid() {
				t.Error("a lease of a key that lives on is void")
			}
			next := take(a)
			if next.key != lease.key {
				t.Error("the next barrier would not wait for a lease that is out")
			}
			next.Done()
			lease.Done()
			for range 2 {
				if _, err := h.JournalOpener(t.Context(), a, 202611, lease.Cipher.ID()); err != nil {
					t.Errorf("what was sealed behind the barrier: %v", err)
				}
				h.reopen()
			}
		})
	}
}

// A barrier that failed has not waited for what was out: the next one does, or the key
// would die with what is acknowledged under it.
func TestBarrierWaitsForWhatOneThatFailedLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(t)
		a := holdfast.AssignmentID(h.owner())
		lease, err := h.JournalKey(t.Context(), a, 202611)
		if err != nil {
			t.Fatal(err)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if err := h.Barrier(ended, []holdfast.AssignmentID{a}, true); err == nil {
			t.Fatal("a barrier that was told to end did not fail")
		}
		passed := make(chan error, 1)
		go func() { passed <- h.Barrier(t.Context(), []holdfast.AssignmentID{a}, true) }()
		time.Sleep(leaseTime / 2)
		select {
		case err := <-passed:
			t.Fatalf("the barrier passed a lease that was out: %v", err)
		default:
		}
		if !lease.Valid() {
			t.Error("a lease that the barrier waits for is void")
		}
		if err := <-passed; err != nil {
			t.Error(err)
		}
		if lease.Valid() {
			t.Error("a lease that the barrier gave up on is good")
		}
		lease.Done()
		if n := len(h.leases.leaving); n > 0 {
			t.Errorf("%d keys are waited for", n)
		}
	})
}
