package vault

import (
	"fmt"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// filled is a vault with n owners.
func filled(b *testing.B, n int) (*house, []Owner) {
	b.Helper()
	h := build(b)
	owners := make([]Owner, n)
	for i := range owners {
		owners[i] = holdfast.NewID[Owner]()
	}
	if err := h.AddOwners(b.Context(), owners); err != nil {
		b.Fatal(err)
	}
	return h, owners
}

// One destruction after another; each rotates the root key. vaultbench has the
// keyring of a million.
func BenchmarkDestroy(b *testing.B) {
	for _, n := range []int{1000, 20_000} {
		b.Run(fmt.Sprintf("owners=%d", n), func(b *testing.B) {
			h, owners := filled(b, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i == n {
					b.Fatal("no owner is left")
				}
				if _, err := h.Destroy(b.Context(), Destruction{Owners: owners[i : i+1]}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A page under a fresh key, without the disk.
func BenchmarkRenewPage(b *testing.B) {
	h, _ := filled(b, PageEntries)
	p := &plan{}
	b.ReportAllocs()
	for b.Loop() {
		to := stagedPage{}
		if err := h.ring.renewPage(h.place, p, &to); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/PageEntries, "ns/owner")
}

func BenchmarkAddOwners(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := build(b)
			b.ReportAllocs()
			for b.Loop() {
				owners := make([]Owner, n)
				for i := range owners {
					owners[i] = holdfast.NewID[Owner]()
				}
				if err := h.AddOwners(b.Context(), owners); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/owner")
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	h, _ := filled(b, 20_000)
	b.ReportAllocs()
	for b.Loop() {
		v, err := Open(b.Context(), h.db, h.place, h.holders, Options{})
		if err != nil {
			b.Fatal(err)
		}
		v.Close()
	}
}

func BenchmarkJournalKey(b *testing.B) {
	h := build(b)
	a := holdfast.AssignmentID(h.owner())
	b.ReportAllocs()
	for b.Loop() {
		l, err := h.JournalKey(b.Context(), a, 202611)
		if err != nil {
			b.Fatal(err)
		}
		l.Done()
	}
}
