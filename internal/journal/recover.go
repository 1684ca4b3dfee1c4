package journal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// tail is how the newest segment ends.
type tail struct {
	end   Pos   // just past its last whole record
	group Pos   // where the group of that record began
	mark  bool  // that record is a mark
	dirt  int64 // end of the last bytes past end that are not zero; 0 if there are none
}

// recover finds the log in the folder, checks all of it, and only then repairs
// what a crash left: spares, files half trimmed, a torn tail.
func (f *File) recover() error {
	names, err := f.disk.List()
	if err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "list journal folder: %w", err)
	}
	slices.Sort(names)
	if err := f.openSegments(names); err != nil {
		return err
	}
	var t tail
	for i, s := range f.segments {
		if i+1 < len(f.segments) {
			err = s.checkSealed(f.segments[i+1].base)
		} else {
			t, err = s.findTail()
		}
		if err != nil {
			return err
		}
	}
	if err := f.sweep(names); err != nil {
		return err
	}
	if len(f.segments) == 0 {
		return f.create()
	}
	if err := f.active().mend(t, Pos(groupLimit+recordSize(max(f.opts.MaxRecord, defaultMaxRecord)))); err != nil {
		return err
	}
	f.end.Store(uint64(t.end))
	f.marked = t.mark
	return nil
}

// openSegments opens the log's files and checks that they are one log without a
// gap.
func (f *File) openSegments(names []string) error {
	trimmed := false
	for _, name := range names {
		if _, ok := segmentNumber(name, trimmedSuffix); ok {
			trimmed = true
		}
		num, ok := segmentNumber(name, segmentSuffix)
		if !ok {
			continue
		}
		s, err := openSegment(f.disk, name)
		if err != nil {
			return err
		}
		f.segments = append(f.segments, s)
		if len(f.segments) == 1 {
			f.id = s.id
		}
		if s.num != num {
			return damaged(s.path, 32, fmt.Sprintf("its header says it is %s", segmentName(s.num)))
		}
		if s.id != f.id {
			return damaged(s.path, 16, "it belongs to another log")
		}
	}
	if len(f.segments) == 0 && trimmed {
		return holdfast.Errorf(holdfast.Internal, "open journal: %s holds trimmed segments and no other: the newest are missing. Nothing was changed. Put them back", f.disk.Path(""))
	}
	for i := range len(f.segments) - 1 {
		if have, want := f.segments[i+1], f.segments[i].num+1; have.num != want {
			return damaged(f.disk.Path(segmentName(want)), 0, fmt.Sprintf("the file is missing, while %s is there", have.path))
		}
	}
	return nil
}

func openSegment(d Disk, name string) (*segment, error) {
	path := d.Path(name)
	file, err := d.Open(name)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Unavailable, "open journal segment: %w; the process needs to read and write it", err)
	}
	s, err := checkHeader(file, path)
	if err != nil {
		file.Close()
		return nil, err
	}
	return s, nil
}

func checkHeader(file DiskFile, path string) (*segment, error) {
	size, err := file.Size()
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Unavailable, "open journal segment %s: %w", path, err)
	}
	b := make([]byte, segmentHeaderUsed)
	n, err := file.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, holdfast.Errorf(holdfast.Unavailable, "read journal segment %s at byte 0: %w", path, err)
	}
	h, err := decodeSegmentHeader(b[:n])
	switch {
	case errors.Is(err, errNewer):
		return nil, holdfast.Errorf(holdfast.Conflict, "open journal segment %s: %w. Nothing was changed. Start the version of Holdfast that wrote it, or a later one", path, err)
	case err != nil:
		return nil, damaged(path, 0, err.Error())
	case h.size != size:
		return nil, damaged(path, min(h.size, size), fmt.Sprintf("the file has %d bytes, its header says %d", size, h.size))
	}
	return &segment{segmentHeader: h, path: path, file: file}, nil
}

// walk reads whole records from the segment's beginning and returns where the
// first that is not whole would begin.
func (s *segment) walk(limit Pos) (tail, error) {
	w := window{file: s.file, limit: s.size, ahead: 1 << 20}
	t := tail{end: s.base, group: s.base}
	for {
		r, ok, err := s.load(&w, t.end, limit)
		if err != nil {
			return t, holdfast.Errorf(holdfast.Unavailable, "read journal segment %s at byte %d: %w", s.path, s.offset(t.end), err)
		}
		if !ok {
			return t, nil
		}
		t = tail{end: r.next, group: r.group, mark: r.mark}
	}
}

// checkSealed checks a segment that is not the newest: all of it was durable
// before the next one, which begins at next, got its name.
func (s *segment) checkSealed(next Pos) error {
	if next < s.base || next > s.limit() {
		return damaged(s.path, 40, "the next segment does not begin where this one can end")
	}
	t, err := s.walk(next)
	if err == nil && t.end != next {
		err = damaged(s.path, s.offset(t.end), "a record is missing or does not check, and the next segment says that it was durable")
	}
	return err
}

// findTail finds where the newest segment ends. Past its last whole record there
// may be the remains of one group that was never acknowledged: its parts may
// have reached the disk in any order, so whole records may follow a torn one.
// But a record of a later group was written only after a sync; if one follows,
// what is missing here was durable once.
func (s *segment) findTail() (tail, error) {
	t, err := s.walk(s.limit())
	if err != nil {
		return t, err
	}
	w := window{file: s.file, limit: s.size, ahead: 1 << 20}
	for pos := t.end; pos+recordAlign <= s.limit(); pos += recordAlign {
		off := s.offset(pos)
		if off%segmentHeaderSize == 0 && s.size-off >= segmentHeaderSize { // skip empty blocks quickly
			b, err := w.at(off, segmentHeaderSize)
			if err == nil && bytes.Equal(b, zeros[:segmentHeaderSize]) {
				pos += segmentHeaderSize - recordAlign
				continue
			}
		}
		b, err := w.at(off, recordAlign)
		if err != nil {
			return t, holdfast.Errorf(holdfast.Unavailable, "read journal segment %s at byte %d: %w", s.path, off, err)
		}
		if bytes.Equal(b, zeros[:recordAlign]) {
			continue
		}
		t.dirt = off + recordAlign
		if s.limit()-pos < recordHeadSize {
			continue
		}
		if b, err = w.at(off, recordHeadSize); err != nil {
			return t, holdfast.Errorf(holdfast.Unavailable, "read journal segment %s at byte %d: %w", s.path, off, err)
		}
		if h, ok := parseHead(b, &s.id, s.base, pos, s.limit()); ok && h.group > t.end {
			return t, damaged(s.path, s.offset(t.end), fmt.Sprintf("a record does not check, and the one at byte %d says that it was durable", off))
		}
	}
	return t, nil
}

// mend cuts the torn tail and writes the last group once more. Both are done
// whether they seem needed or not, for the sync that failed before the process
// ended: the kernel may still show pages that never reached the disk, records or
// zeros, and no longer mean to write them. Writing the same bytes to the same
// place can't harm what is durable. reach is the size of the largest group.
func (s *segment) mend(t tail, reach Pos) error {
	b := make([]byte, t.end-t.group)
	_, err := s.file.ReadAt(b, s.offset(t.group))
	if err == nil {
		_, err = s.file.WriteAt(b, s.offset(t.group))
	}
	if err == nil {
		err = zeroRange(s.file, s.offset(t.end), min(s.size, max(t.dirt, s.offset(t.end+reach))))
	}
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "repair the end of journal segment %s: %w; its disk must be writable", s.path, err)
	}
	return nil
}

// sweep removes what is not part of the log, and finds out whether files can be
// made in the folder: better now than when the first segment is full.
func (f *File) sweep(names []string) error {
	unwritable := func(name string, err error) error {
		return holdfast.Errorf(holdfast.Unavailable, "clean the journal folder: %s: %w; the process must be able to write there", f.disk.Path(name), err)
	}
	for _, name := range names {
		_, trimmed := segmentNumber(name, trimmedSuffix)
		if !trimmed && !strings.HasPrefix(name, sparePrefix) {
			continue
		}
		if trimmed {
			// Where overwriting takes room and there is none, unlinking must do.
			if err := f.zeroFile(name); err != nil && !noRoom(err) {
				return unwritable(name, err)
			}
		}
		if err := f.disk.Remove(name); err != nil {
			return unwritable(name, err)
		}
	}
	switch probe, err := f.disk.Create(probeSpare, segmentHeaderSize); {
	case err == nil:
		if err := errors.Join(probe.Close(), f.disk.Remove(probeSpare)); err != nil {
			return unwritable(probeSpare, err)
		}
	case !noRoom(err): // a full disk must not keep the log from being read and trimmed
		return unwritable(probeSpare, err)
	}
	if err := f.disk.Sync(); err != nil {
		return unwritable("", err)
	}
	return nil
}

func (f *File) zeroFile(name string) error {
	file, err := f.disk.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	size, err := file.Size()
	if err == nil {
		err = zeroRange(file, 0, size)
	}
	if err == nil {
		err = file.Sync()
	}
	return err
}

// create begins a new log.
func (f *File) create() error {
	rand.Read(f.id[:]) // never fails (crypto/rand, Go 1.24)
	made, err := f.makeSpare()
	if err != nil {
		return f.noSegment(err)
	}
	s, err := enlist(f.disk, made, segmentHeader{id: f.id, num: 1, size: made.size})
	if err != nil {
		made.file.Close()
		return f.noSegment(err)
	}
	f.segments = []*segment{s}
	return nil
}
