// Package blobtest is the contract of blob.Store as tests. Every driver runs it;
// what only one driver promises is tested beside that driver.
package blobtest

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/blob"
)

// Run tests a driver. open returns an empty store.
func Run(t *testing.T, open func(t *testing.T) blob.Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s blob.Store)
	}{
		{"put and read", testPutRead},
		{"put again", testPutAgain},
		{"ranges", testRanges},
		{"missing", testMissing},
		{"delete", testDelete},
		{"punch", testPunch},
		{"list", testList},
		{"cancelled", testCancelled},
		{"many at once", testConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func newID() holdfast.BlobID {
	var id holdfast.BlobID
	for i := range id {
		id[i] = byte(rand.Uint32())
	}
	return id
}

// drawn returns n bytes without structure; the same for the same n.
func drawn(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b)
	return b
}

func mustPut(t *testing.T, s blob.Store, data []byte) holdfast.BlobID {
	t.Helper()
	id := newID()
	if err := s.Put(t.Context(), id, data); err != nil {
		t.Fatal(err)
	}
	return id
}

func mustRead(t *testing.T, s blob.Store, id holdfast.BlobID) []byte {
	t.Helper()
	n, err := s.Size(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	if err := s.ReadAt(t.Context(), id, b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// want fails the test if err is not of the kind.
func want(t *testing.T, what string, err error, kind holdfast.Kind) {
	t.Helper()
	if err == nil || holdfast.KindOf(err) != kind {
		t.Errorf("%s: %v, want an error of kind %v", what, err, kind)
	}
}

func testPutRead(t *testing.T, s blob.Store) {
	for _, n := range []int{0, 1, 4095, 4096, 100_000, 3<<20 + 17} {
		data := drawn(n)
		id := mustPut(t, s, slices.Clone(data))
		if !bytes.Equal(mustRead(t, s, id), data) {
			t.Errorf("a blob of %d bytes came back different", n)
		}
	}
}

func testPutAgain(t *testing.T, s blob.Store) {
	data := drawn(100_000)
	id := mustPut(t, s, data)
	if err := s.Put(t.Context(), id, data); err != nil {
		t.Errorf("the same again: %v", err)
	}
	last := slices.Clone(data)
	last[len(last)-1]++
	for _, other := range [][]byte{nil, data[:len(data)-1], append(slices.Clone(data), 0), last} {
		want(t, "other bytes", s.Put(t.Context(), id, other), holdfast.Conflict)
	}
	if !bytes.Equal(mustRead(t, s, id), data) {
		t.Error("the blob was changed")
	}
}

func testRanges(t *testing.T, s blob.Store) {
	data := drawn(10_000)
	id := mustPut(t, s, data)
	for _, r := range [][2]int{{0, 10_000}, {0, 0}, {10_000, 0}, {9_999, 1}, {4_000, 200}} {
		p := make([]byte, r[1])
		if err := s.ReadAt(t.Context(), id, p, int64(r[0])); err != nil {
			t.Errorf("%d bytes from %d: %v", r[1], r[0], err)
		}
		if !bytes.Equal(p, data[r[0]:][:r[1]]) {
			t.Errorf("%d bytes from %d: others", r[1], r[0])
		}
	}
	for _, r := range [][2]int{{-1, 1}, {0, 10_001}, {10_000, 1}, {10_001, 0}, {9_999, 2}} {
		want(t, "a range outside", s.ReadAt(t.Context(), id, make([]byte, r[1]), int64(r[0])), holdfast.Invalid)
		want(t, "a range outside", s.Punch(t.Context(), id, int64(r[0]), int64(r[1])), holdfast.Invalid)
	}
	want(t, "a negative length", s.Punch(t.Context(), id, 5, -1), holdfast.Invalid)
	if !bytes.Equal(mustRead(t, s, id), data) {
		t.Error("the blob was changed")
	}
}

func testMissing(t *testing.T, s blob.Store) {
	mustPut(t, s, drawn(10))
	id := newID()
	_, err := s.Size(t.Context(), id)
	want(t, "size", err, holdfast.NotFound)
	want(t, "read", s.ReadAt(t.Context(), id, make([]byte, 1), 0), holdfast.NotFound)
	want(t, "punch", s.Punch(t.Context(), id, 0, 0), holdfast.NotFound)
	if err := s.Delete(t.Context(), id); err != nil {
		t.Errorf("delete what is missing: %v", err)
	}
}

func testDelete(t *testing.T, s blob.Store) {
	data := drawn(50_000)
	id, other := mustPut(t, s, data), mustPut(t, s, data)
	mustRead(t, s, id) // a driver may have it open now
	for range 2 {
		if err := s.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Size(t.Context(), id)
	want(t, "size", err, holdfast.NotFound)
	want(t, "read", s.ReadAt(t.Context(), id, make([]byte, 1), 0), holdfast.NotFound)
	if !bytes.Equal(mustRead(t, s, other), data) {
		t.Error("another blob was changed")
	}
	if err := s.Put(t.Context(), id, data[:100]); err != nil {
		t.Fatalf("put after delete: %v", err)
	}
	if !bytes.Equal(mustRead(t, s, id), data[:100]) {
		t.Error("the new blob has other bytes")
	}
}

func testPunch(t *testing.T, s blob.Store) {
	data := drawn(300_000)
	id := mustPut(t, s, slices.Clone(data))
	mustRead(t, s, id)
	for _, r := range [][2]int{{100, 50}, {4096, 200_000}, {120, 10_000}, {299_999, 1}, {300_000, 0}, {77, 0}} {
		for range 2 {
			if err := s.Punch(t.Context(), id, int64(r[0]), int64(r[1])); err != nil {
				t.Fatal(err)
			}
		}
		clear(data[r[0]:][:r[1]])
		if !bytes.Equal(mustRead(t, s, id), data) {
			t.Fatalf("after punching %d bytes from %d the blob is not as expected", r[1], r[0])
		}
	}
	if err := s.Punch(t.Context(), id, 0, int64(len(data))); err != nil {
		t.Fatal(err)
	}
	if b := mustRead(t, s, id); len(b) != len(data) || len(bytes.Trim(b, "\x00")) != 0 {
		t.Error("after punching all of it the blob is not zeros of the same length")
	}
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func testList(t *testing.T, s blob.Store) {
	list := func() map[string]bool {
		all := map[string]bool{}
		for id, err := range s.List(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if all[id.String()] {
				t.Errorf("%s twice", id)
			}
			all[id.String()] = true
		}
		return all
	}
	if all := list(); len(all) != 0 {
		t.Errorf("an empty store lists %v", all)
	}
	ids := map[string]bool{}
	var last holdfast.BlobID
	for range 40 {
		last = mustPut(t, s, drawn(10))
		ids[last.String()] = true
	}
	if diff := cmp.Diff(ids, list()); diff != "" {
		t.Error(diff)
	}
	if err := s.Delete(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	delete(ids, last.String())
	if diff := cmp.Diff(ids, list()); diff != "" {
		t.Error(diff)
	}
	for range s.List(t.Context()) { // one may leave early
		break
	}
}

func testCancelled(t *testing.T, s blob.Store) {
	id := mustPut(t, s, drawn(10))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Size(ctx, id)
	for what, err := range map[string]error{
		"size": err, "put": s.Put(ctx, newID(), nil), "read": s.ReadAt(ctx, id, make([]byte, 1), 0),
		"delete": s.Delete(ctx, id), "punch": s.Punch(ctx, id, 0, 10),
	} {
		if err == nil {
			t.Errorf("%s with an ended context succeeds", what)
		}
	}
	for _, err := range s.List(ctx) {
		if err == nil {
			t.Error("list with an ended context yields")
		}
	}
	if !bytes.Equal(mustRead(t, s, id), drawn(10)) {
		t.Error("the blob was changed")
	}
}

// testConcurrent lets readers, writers of the same id and a deleter at each
// other: a read gives the blob's bytes or NotFound, never zeros.
func testConcurrent(t *testing.T, s blob.Store) {
	data := drawn(200_000)
	var wg sync.WaitGroup
	for range 8 {
		id := newID()
		ready := make(chan struct{})
		for range 2 {
			wg.Go(func() {
				if err := s.Put(t.Context(), id, data); err != nil {
					t.Errorf("put by two: %v", err)
				}
				ready <- struct{}{}
			})
		}
		<-ready
		<-ready
		for range 3 {
			wg.Go(func() {
				for range 50 {
					p := make([]byte, 1000)
					off := rand.IntN(len(data) - len(p))
					err := s.ReadAt(t.Context(), id, p, int64(off))
					if err == nil && !bytes.Equal(p, data[off:][:len(p)]) {
						t.Error("a reader got other bytes")
					}
					if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
						t.Errorf("read: %v", err)
					}
				}
			})
		}
		wg.Go(func() {
			if err := s.Delete(t.Context(), id); err != nil {
				t.Errorf("delete: %v", err)
			}
		})
	}
	wg.Wait()
}
