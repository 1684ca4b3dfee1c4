package vault

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// A lease that nobody waits for is good for as long as a disk takes: what it made
// durable counts, or its sender would send again what is stored already.
func TestLeaseOutlastsASlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(t)
		a := holdfast.AssignmentID(h.owner())
		lease, err := h.JournalKey(t.Context(), a, 202611)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * leaseTime)
		if !lease.Valid() {
			t.Error("it is void, and nobody has asked for it back")
		}
		lease.Done()
	})
}

// A key of a month that is long over is taken out of use while somebody is slow: a
// barrier waits for him all the same.
func TestBarrierWaitsForLeasesOfOldMonths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(t)
		a := holdfast.AssignmentID(h.owner())
		const long, now = seal.Bucket(199001), seal.Bucket(200001) // the bubble's
		slow, err := h.JournalKey(t.Context(), a, long)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		other, err := h.JournalKey(t.Context(), a, now)
		if err != nil {
			t.Fatal(err)
		}
		other.Done()
		if h.leases.get(leaseKey{a, long}) != nil {
			t.Fatal("the key of a month that is long over is in use")
		}
		passed := make(chan error, 1)
		go func() { passed <- h.Barrier(t.Context(), []holdfast.AssignmentID{a}, true) }()
		time.Sleep(leaseTime / 2)
		select {
		case err := <-passed:
			t.Fatalf("the barrier passed a lease that was out: %v", err)
		default:
		}
		slow.Done()
		if err := <-passed; err != nil {
			t.Error(err)
		}
		quick, err := h.JournalKey(t.Context(), a, long)
		if err != nil {
			t.Fatal(err)
		}
		quick.Done()
		for range 2 { // what has come back is forgotten, not kept for good
			time.Sleep(2 * time.Hour)
			for _, b := range []seal.Bucket{long, now} {
				l, err := h.JournalKey(t.Context(), a, b)
				if err != nil {
					t.Fatal(err)
				}
				l.Done()
			}
		}
		if n := len(h.leases.leaving); n > 0 {
			t.Errorf("%d keys are waited for", n)
		}
	})
}
