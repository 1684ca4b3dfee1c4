package journal

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// spare is a file of zeros that is not yet part of the log.
type spare struct {
	name string
	file DiskFile
	size int64
}

const (
	freshSpare = sparePrefix + "fresh"
	probeSpare = sparePrefix + "probe" // made and removed at the start
	// maxSpares bounds what Trim keeps for use again. A used file of zeros is
	// better than a fresh one: a sync has no block to mark as written.
	maxSpares = 2
	// spareRetry is how long the committer leaves a full disk alone while it still
	// has room in the current segment.
	spareRetry = time.Second
)

// prepare allocates the next segment when the current one is half full, so that a
// full disk shows before it hurts and no record waits for the allocation.
func (f *File) prepare() {
	s := f.active()
	if f.hasFailed() || f.End() < s.base+(s.limit()-s.base)/2 {
		return
	}
	f.mu.Lock()
	have := len(f.spares) > 0
	f.mu.Unlock()
	if have || time.Since(f.spareTry) < spareRetry {
		return
	}
	made, err := f.makeSpare()
	if err != nil {
		f.spareTry = time.Now() // rotate tries again, and says so, when it must
		return
	}
	f.mu.Lock()
	f.spares = append(f.spares, made)
	f.mu.Unlock()
}

func (f *File) makeSpare() (spare, error) {
	file, err := f.disk.Create(freshSpare, f.opts.SegmentSize)
	return spare{freshSpare, file, f.opts.SegmentSize}, err
}

// takeSpare returns a file for the next segment, a used one if there is one.
func (f *File) takeSpare() (spare, error) {
	f.mu.Lock()
	if n := len(f.spares); n > 0 {
		i := max(0, slices.IndexFunc(f.spares, func(s spare) bool { return s.name != freshSpare }))
		s := f.spares[i]
		f.spares = slices.Delete(f.spares, i, i+1)
		f.mu.Unlock()
		return s, nil
	}
	f.mu.Unlock()
	return f.makeSpare()
}

// rotate makes the next segment the active one. A disk that has no room is not a
// failure: the records at hand are refused, and the next ones try again.
//
// The order is the point: everything in the old segment is durable already; the
// header is durable before the file gets a segment's name; the name is durable
// before the first record. So a file with that name always has a good header,
// and only the newest segment can hold a torn record.
func (f *File) rotate() error {
	made, err := f.takeSpare()
	if err != nil {
		return f.noSegment(err)
	}
	old := f.active()
	next := segmentHeader{id: f.id, num: old.num + 1, base: f.End(), size: made.size}
	s, err := enlist(f.disk, made, next)
	if err == nil {
		f.mu.Lock()
		f.segments = append(slices.Clone(f.segments), s)
		f.mu.Unlock()
		return nil
	}
	made.file.Close()
	if noRoom(err) && f.disk.Remove(made.name) == nil {
		return f.noSegment(err)
	}
	return f.fail(fmt.Errorf("begin segment %s: %w", f.disk.Path(segmentName(next.num)), err))
}

// enlist makes a spare the segment that h describes.
func enlist(d Disk, made spare, h segmentHeader) (*segment, error) {
	if _, err := made.file.WriteAt(h.encode(), 0); err != nil {
		return nil, err
	}
	if err := made.file.Sync(); err != nil {
		return nil, err
	}
	name := segmentName(h.num)
	if err := d.Rename(made.name, name); err != nil {
		return nil, err
	}
	if err := d.Sync(); err != nil {
		return nil, err
	}
	return &segment{segmentHeader: h, path: d.Path(name), file: made.file}, nil
}

// noSegment says why there is no next segment and what would help.
func (f *File) noSegment(err error) error {
	if noRoom(err) {
		return holdfast.Errorf(holdfast.Unavailable, "no space left for the journal in %s: free %d MiB there or enlarge the disk: %w",
			f.disk.Path(""), max(1, f.opts.SegmentSize>>20), err)
	}
	return holdfast.Errorf(holdfast.Unavailable, "make the next journal segment in %s: %w", f.disk.Path(""), err)
}

// noRoom reports whether err is the kind that goes away when space is freed.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
