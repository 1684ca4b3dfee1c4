package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/holdfast-iot/holdfast"
)

// A segment file begins with a block of its own, so that no later write touches
// the sector of the header.
//
//	0  magic "HFJOURNL"
//	8  format version
//	12 zero
//	16 log id
//	32 number of the segment
//	40 position of its first record
//	48 size of the file
//	56 zero
//	60 CRC-32C of the 60 bytes above
//	64 zeros up to 4096
//
// Magic, version and checksum stay where they are in every version.
const (
	segmentHeaderSize = 4096
	segmentHeaderUsed = 64
	formatVersion     = 1
	segmentMagic      = "HFJOURNL"
)

// segmentHeader is the header's content.
type segmentHeader struct {
	id   logID
	num  uint64
	base Pos
	size int64
}

func (h segmentHeader) encode() []byte {
	b := make([]byte, segmentHeaderSize)
	copy(b, segmentMagic)
	binary.BigEndian.PutUint32(b[8:], formatVersion)
	copy(b[16:], h.id[:])
	binary.BigEndian.PutUint64(b[32:], h.num)
	binary.BigEndian.PutUint64(b[40:], uint64(h.base))
	binary.BigEndian.PutUint64(b[48:], uint64(h.size))
	binary.BigEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

// errNewer is returned for a header that checks and is of a later version.
var errNewer = errors.New("format of a newer version")

func decodeSegmentHeader(b []byte) (segmentHeader, error) {
	var h segmentHeader
	switch {
	case len(b) < segmentHeaderUsed:
		return h, errors.New("no room for a header")
	case string(b[:8]) != segmentMagic:
		return h, errors.New("not the header of a journal segment")
	case crc32.Checksum(b[:60], castagnoli) != binary.BigEndian.Uint32(b[60:]):
		return h, errors.New("the header's checksum is wrong")
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != formatVersion {
		return h, fmt.Errorf("%w (%d; this program knows %d)", errNewer, v, formatVersion)
	}
	copy(h.id[:], b[16:])
	h.num = binary.BigEndian.Uint64(b[32:])
	h.base = Pos(binary.BigEndian.Uint64(b[40:]))
	h.size = int64(binary.BigEndian.Uint64(b[48:]))
	if h.size < 2*segmentHeaderSize || h.base%recordAlign != 0 || uint64(h.base) > 1<<62 || h.size > 1<<40 {
		return h, errors.New("the header's numbers make no sense")
	}
	return h, nil
}

// Names of the files in a journal's folder.
const (
	segmentSuffix = ".journal" // a segment: its number in 16 hexadecimal digits, then this
	trimmedSuffix = ".trimmed" // one that Trim has taken from the log and not yet unlinked
	sparePrefix   = "spare."   // one that is not yet in the log
)

func segmentName(num uint64) string { return fmt.Sprintf("%016x%s", num, segmentSuffix) }
func trimmedName(num uint64) string { return fmt.Sprintf("%016x%s", num, trimmedSuffix) }

// segmentNumber reads the number in a segment's name.
func segmentNumber(name, suffix string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 16 || strings.ToLower(digits) != digits {
		return 0, false
	}
	num, err := strconv.ParseUint(digits, 16, 64)
	return num, err == nil
}

// segment is one open file of the log.
type segment struct {
	segmentHeader
	path string
	file DiskFile
	// gone is set before a trimmed segment's bytes change: a reader that finds
	// nonsense looks here before it cries damage.
	gone atomic.Bool
}

// offset is where in the file a position lies.
func (s *segment) offset(pos Pos) int64 { return segmentHeaderSize + int64(pos-s.base) }

// limit is the position at which the file ends.
func (s *segment) limit() Pos { return s.base + Pos(s.size-segmentHeaderSize) }

// record is one record as it was read.
type record struct {
	head
	body []byte // data, without padding; valid until the window moves
	next Pos
}

// load reads the record at pos, which must end at or before limit. It reports
// false if no whole record stands there; an error is one of the disk.
func (s *segment) load(w *window, pos, limit Pos) (record, bool, error) {
	if limit < pos+recordHeadSize {
		return record{}, false, nil
	}
	b, err := w.at(s.offset(pos), recordHeadSize)
	if err != nil {
		return record{}, false, err
	}
	h, ok := parseHead(b, &s.id, s.base, pos, limit)
	if !ok {
		return record{}, false, nil
	}
	size := recordSize(h.data)
	if b, err = w.at(s.offset(pos), size); err != nil {
		return record{}, false, err
	}
	if !h.checkBody(b[recordHeadSize:], &s.id, pos) {
		return record{}, false, nil
	}
	return record{head: h, body: b[recordHeadSize : recordHeadSize+h.data : recordHeadSize+h.data], next: pos + Pos(size)}, true, nil
}

// window reads a file in order, in large pieces.
type window struct {
	file  DiskFile
	limit int64 // bytes of the file that may be read
	ahead int   // bytes to read at once
	off   int64
	buf   []byte
}

// at returns n bytes of the file from off, valid until the next call.
func (w *window) at(off int64, n int) ([]byte, error) {
	if off >= w.off && off+int64(n) <= w.off+int64(len(w.buf)) {
		return w.buf[off-w.off:][:n], nil
	}
	want := int(min(int64(max(n, w.ahead)), w.limit-off))
	if want < n {
		return nil, io.ErrUnexpectedEOF
	}
	if cap(w.buf) < want {
		w.buf = make([]byte, want)
	}
	w.buf = w.buf[:want]
	if _, err := w.file.ReadAt(w.buf, off); err != nil {
		w.buf = w.buf[:0]
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	w.off = off
	return w.buf[:n], nil
}

// zeros is never written to.
var zeros [64 << 10]byte

// zeroRange overwrites [from, to) of f with zeros; the caller syncs. It does not
// look for zeros that are there already: after a sync that failed, they may be
// in the kernel's memory only.
func zeroRange(f DiskFile, from, to int64) error {
	for from < to {
		n := min(int64(len(zeros)), to-from)
		if _, err := f.WriteAt(zeros[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}

// Damage is a place in a segment file that does not hold what was written there.
// Nothing was changed when it is reported.
type Damage struct {
	Path   string
	Offset int64
	Reason string
}

func (d *Damage) Error() string {
	return fmt.Sprintf("journal segment %s is damaged at byte %d: %s", d.Path, d.Offset, d.Reason)
}

func damaged(path string, offset int64, reason string) error {
	return holdfast.Errorf(holdfast.Internal,
		"open journal: %w. Nothing was changed. Copy the folder, check the disk, and put back an undamaged copy of this file; docs/format/journal.md says what can be saved by hand",
		error(&Damage{Path: path, Offset: offset, Reason: reason}))
}
