package journal

import (
	"errors"
	"fmt"

	"github.com/holdfast-iot/holdfast"
)

// Trim implements Log. It takes whole segment files that end at or before the
// position, oldest first, and never the one being written: Cut ends that.
//
// Their bytes are overwritten with zeros before the file is used again or
// unlinked. If that fails the file is unlinked all the same, since a full disk
// must be able to get room, and the error says that old bytes may be left.
func (f *File) Trim(before Pos) error {
	f.trim.Lock()
	defer f.trim.Unlock()
	for {
		select {
		case <-f.stopped:
			return errClosed()
		case <-f.failed:
			return f.refusal()
		default:
		}
		segments := f.snapshot()
		if len(segments) < 2 || segments[1].base > before {
			return nil
		}
		if err := f.drop(segments[0], segments[1].base); err != nil {
			return holdfast.Errorf(holdfast.Unavailable, "trim journal segment %s: %w", segments[0].path, err)
		}
	}
}

// drop takes the oldest segment, whose records end at end, out of the log.
//
// The new name is durable before a byte changes: after a crash, recovery must
// not meet a segment of the log with a hole in it.
func (f *File) drop(s *segment, end Pos) error {
	name := trimmedName(s.num)
	if err := f.disk.Rename(segmentName(s.num), name); err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	f.mu.Lock()
	f.segments = f.segments[1:]
	f.mu.Unlock()
	s.gone.Store(true)
	if err := f.disk.Sync(); err != nil { // its bytes must stay until the next open
		return errors.Join(fmt.Errorf("sync folder: %w", err), s.file.Close())
	}
	err := zeroRange(s.file, 0, s.offset(end)) // the rest was never written
	if err == nil {
		err = s.file.Sync()
	}
	if err == nil && f.reuse(s) {
		return nil
	}
	if err != nil {
		err = fmt.Errorf("it is removed, but bytes of it may be left on the disk: overwrite with zeros: %w", err)
	}
	err = errors.Join(err, s.file.Close(), f.disk.Remove(name))
	return errors.Join(err, f.disk.Sync())
}

// reuse keeps a zeroed file for a later segment, if one is wanted.
func (f *File) reuse(s *segment) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := fmt.Sprintf("%s%016x", sparePrefix, s.num)
	if s.size != f.opts.SegmentSize || len(f.spares) >= maxSpares || f.disk.Rename(trimmedName(s.num), name) != nil {
		return false
	}
	f.spares = append(f.spares, spare{name, s.file, s.size})
	return true
}
