package series

import (
	"context"
	"errors"
	"syscall"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/blob"
)

// badSector is a store of which one blob can be read, and neither changed nor
// deleted.
type badSector struct {
	blob.Store
	bad holdfast.BlobID
}

func (b *badSector) Punch(ctx context.Context, id holdfast.BlobID, off, n int64) error {
	if id == b.bad {
		return syscall.EIO
	}
	return b.Store.Punch(ctx, id, off, n)
}

func (b *badSector) Delete(ctx context.Context, id holdfast.BlobID) error {
	if id == b.bad {
		return syscall.EIO
	}
	return b.Store.Delete(ctx, id)
}

// A segment of which the disk fails keeps those erasures from their end who have
// something in it, and nobody else: not in this life of the program, and not in the
// next. Rolls and merges go on. When the disk is well again, all is removed.
func TestABadSegmentBlocksItsOwnersAlone(t *testing.T) {
	a, b, c := holdfast.AssignmentID{1}, holdfast.AssignmentID{2}, holdfast.AssignmentID{3}
	for _, whole := range []bool{false, true} { // the segment goes with the erasure, or has others' in it
		r := newRig(t, Options{})
		stream := holdfast.StreamID{9}
		r.send(a, stream, 1e9, number(1, 1))
		if !whole {
			r.send(c, stream, 1e9, number(1, 1))
		}
		r.roll()
		var names []segmentName
		sound := func() {
			if b, ok := r.blobs.(*badSector); ok {
				r.blobs = b.Store
			}
		}
		t.Cleanup(sound)
		fails := func() {
			r.blobs = &badSector{Store: r.blobs, bad: names[0].blob}
		}
		names, err := r.segments(t.Context(), `state = 1`)
		r.must(err)
		fails()
		r.send(b, stream, 2e9, number(1, 2))
		r.roll()

		erase := func(of holdfast.AssignmentID) error {
			_, err := r.Erase(t.Context(), holdfast.Scope{Assignments: []holdfast.AssignmentID{of}, Span: holdfast.Always, Whole: true})
			return err
		}
		if err := erase(a); !errors.Is(err, syscall.EIO) {
			t.Fatalf("whole %v: an erasure whose bytes are still there is done: %v", whole, err)
		}
		delete(r.sent, of{a, stream})
		r.must(erase(b))
		delete(r.sent, of{b, stream})
		if left := r.Remains(); len(left) != 1 || left[0].Segment != names[0].blob || !errors.Is(left[0].Err, syscall.EIO) {
			t.Errorf("whole %v: remains: %v", whole, left)
		}
		r.send(b, stream, 3e9, number(1, 3))
		r.roll()
		r.merge()
		r.check("on a disk that fails in one place")

		sound()
		r.close()
		r.open()
		fails()
		r.must(r.Recover(t.Context(), nil))
		if err := erase(a); !errors.Is(err, syscall.EIO) {
			t.Errorf("whole %v: after a start, an erasure whose bytes are still there is done: %v", whole, err)
		}
		r.must(erase(b))
		delete(r.sent, of{b, stream})

		sound()
		r.must(erase(a))
		if left := r.Remains(); len(left) != 0 {
			t.Errorf("whole %v: remains on a sound disk: %v", whole, left)
		}
		if n := r.count(`SELECT count(*) FROM dead_owner`); n != 0 {
			t.Errorf("whole %v: %d owners of what is gone", whole, n)
		}
		r.tidy("when the disk is well again")
		r.check("when the disk is well again")
	}
}

// Nothing says whose a range is that died before that was written down: every erasure
// waits for it.
func TestDeadOfUnknownOwnersBlockAll(t *testing.T) {
	a, b := holdfast.AssignmentID{1}, holdfast.AssignmentID{2}
	r := newRig(t, Options{})
	r.send(a, holdfast.StreamID{9}, 1e9, number(1, 1))
	r.send(b, holdfast.StreamID{9}, 1e9, number(1, 1))
	r.roll()
	names, err := r.segments(t.Context(), `state = 1`)
	r.must(err)
	sound := r.blobs
	r.blobs = &badSector{Store: sound, bad: names[0].blob}
	defer func() { r.blobs = sound }()
	scope := func(of holdfast.AssignmentID) holdfast.Scope {
		return holdfast.Scope{Assignments: []holdfast.AssignmentID{of}, Span: holdfast.Always, Whole: true}
	}
	if _, err := r.Erase(t.Context(), scope(a)); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	r.exec(`UPDATE dead_owner SET assignment = x''`)
	if _, err := r.Erase(t.Context(), scope(holdfast.AssignmentID{7})); !errors.Is(err, syscall.EIO) {
		t.Errorf("somebody's bytes are there, nobody knows whose, and an erasure is done: %v", err)
	}
}

// Between a segment's deletion and that of its row a backup must not take it for
// damage.
func TestADeletedSegmentIsNotNamed(t *testing.T) {
	r := newRig(t, Options{})
	a, stream := holdfast.AssignmentID{1}, holdfast.StreamID{9}
	r.send(a, stream, 1e9, number(1, 1))
	r.roll()
	held, err := r.segments(t.Context(), `state = $1`, segmentInUse)
	r.must(err)
	if named, err := r.Named(t.Context(), held[0].blob); len(held) != 1 || !named || err != nil {
		t.Fatal(len(held), named, err)
	}
	asked := false
	r.fault = func(step string) error {
		if step == "deleted" {
			asked = true
			if named, err := r.Named(t.Context(), held[0].blob); named || err != nil {
				t.Errorf("named %t: %v", named, err)
			}
		}
		return nil
	}
	_, err = r.Erase(t.Context(), holdfast.Scope{Assignments: []holdfast.AssignmentID{a}, Span: holdfast.Always, Whole: true})
	r.must(err)
	if !asked {
		t.Error("no segment was deleted")
	}
}
