package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/holdfast-iot/holdfast"
)

// threeSegments is a log of three files: a b | c d | e f, each record in a group of
// its own, closed or killed.
func threeSegments(t *testing.T, clean bool) *memDisk {
	t.Helper()
	d := newMemDisk(1)
	f, err := memOpen(d)
	if err != nil {
		t.Fatal(err)
	}
	put(t, f, long("a"), long("b"), long("c"), long("d"), long("e"), "f")
	killed := d.restart() // no mark
	mustClose(t, f)
	if clean {
		return d.restart()
	}
	return killed
}

const (
	first  = "0000000000000001.journal"
	second = "0000000000000002.journal"
	third  = "0000000000000003.journal"
)

// edit changes a file of d, durably.
func edit(d *memDisk, name string, change func([]byte) []byte) {
	m := d.files[name]
	m.bytes = change(m.bytes)
	m.stable = bytes.Clone(m.bytes)
}

func flip(off int) func([]byte) []byte {
	return func(b []byte) []byte { b[off] ^= 0x10; return b }
}

// reheader changes the header and makes its checksum right again.
func reheader(change func(b []byte)) func([]byte) []byte {
	return func(b []byte) []byte {
		change(b)
		binary.BigEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
		return b
	}
}

func TestDamageStopsTheOpen(t *testing.T) {
	size := recordSize(1500)
	for _, c := range []struct {
		name   string
		harm   func(d *memDisk)
		path   string
		offset int64
		text   string
	}{
		{"data of the first record", func(d *memDisk) { edit(d, first, flip(4096+100)) }, first, 4096, "does not check"},
		{"head of the second record", func(d *memDisk) { edit(d, first, flip(4096+size+5)) }, first, int64(4096 + size), "does not check"},
		{"end of an older segment lost", func(d *memDisk) {
			edit(d, second, func(b []byte) []byte { clear(b[4096+size:]); return b })
		}, second, int64(4096 + size), "is missing"},
		{"record of the newest segment with one after it", func(d *memDisk) { edit(d, third, flip(4096+1000)) }, third, 4096, "says that it was durable"},
		{"last record, after a clean close", func(d *memDisk) { edit(d, third, flip(4096+size+recordHeadSize)) }, third, int64(4096 + size), "says that it was durable"},
		{"segment missing between others", func(d *memDisk) { delete(d.files, second) }, second, 0, "is missing"},
		{"newest segment emptied", func(d *memDisk) { edit(d, third, func([]byte) []byte { return nil }) }, third, 0, "no room for a header"},
		{"older segment cut short", func(d *memDisk) { edit(d, first, func(b []byte) []byte { return b[:6000] }) }, first, 6000, "has 6000 bytes"},
		{"segment grown", func(d *memDisk) { edit(d, third, func(b []byte) []byte { return append(b, 0) }) }, third, 8192, "has 8193 bytes"},
		{"magic", func(d *memDisk) { edit(d, second, flip(0)) }, second, 0, "not the header"},
		{"header", func(d *memDisk) { edit(d, second, flip(45)) }, second, 0, "checksum is wrong"},
		{"segment of another log", func(d *memDisk) { edit(d, second, reheader(func(b []byte) { b[20]++ })) }, second, 16, "another log"},
		{"wrong name", func(d *memDisk) { d.files[second], d.files[third] = d.files[third], d.files[second] }, second, 32, third},
		{"position of the next", func(d *memDisk) { edit(d, third, reheader(func(b []byte) { b[44] = 1 })) }, second, 40, "does not begin where"},
		{"senseless size", func(d *memDisk) { edit(d, third, reheader(func(b []byte) { clear(b[48:56]) })) }, third, 0, "make no sense"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := threeSegments(t, true)
			c.harm(d)
			before := d.restart()
			_, err := memOpen(d)
			harm, ok := errors.AsType[*Damage](err)
			if !ok {
				t.Fatalf("open gave %v", err)
			}
			if harm.Path != "mem/"+c.path || harm.Offset != c.offset || !strings.Contains(harm.Reason, c.text) {
				t.Errorf("reported %+v", harm)
			}
			if !strings.Contains(err.Error(), "Nothing was changed") || holdfast.KindOf(err) != holdfast.Internal {
				t.Errorf("error: %v", err)
			}
			if d.steps != 0 {
				t.Errorf("%d changes of the folder", d.steps)
			}
			for name, m := range before.files {
				if !bytes.Equal(m.bytes, d.files[name].bytes) {
					t.Errorf("%s was changed", name)
				}
			}
		})
	}
}

// TestEveryByteCounts flips each byte of a log that was closed cleanly: either the
// open names that file, or what was hit means nothing (the rest of the header's
// block, the closing mark, room not yet used) and no record is lost.
func TestEveryByteCounts(t *testing.T) {
	d := threeSegments(t, true)
	want := []string{long("a"), long("b"), long("c"), long("d"), long("e"), "f"}
	used := 4096 + 2*recordSize(1500)
	mark := 4096 + recordSize(1500) + recordSize(1)
	for _, name := range []string{first, second, third} {
		for off := range 2 * segmentHeaderSize {
			harmed := d.restart()
			edit(harmed, name, flip(off))
			f, err := memOpen(harmed)
			harmless := off >= segmentHeaderUsed && off < segmentHeaderSize || off >= used || name == third && off >= mark
			if !harmless {
				if harm, ok := errors.AsType[*Damage](err); !ok || harm.Path != "mem/"+name {
					t.Fatalf("%s byte %d: %v", name, off, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s byte %d means nothing: %v", name, off, err)
			}
			if off%16 == 0 { // reading all of it each time would take long
				if diff := cmp.Diff(want, get(t, f, 0)); diff != "" {
					t.Fatalf("%s byte %d: %s", name, off, diff)
				}
			}
			mustClose(t, f)
		}
	}
}

func TestTornLastRecordIsCut(t *testing.T) {
	size := recordSize(1500)
	d := threeSegments(t, false)
	edit(d, third, flip(4096+size+recordHeadSize))
	f, err := memOpen(d)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{long("a"), long("b"), long("c"), long("d"), long("e")}, get(t, f, 0)); diff != "" {
		t.Error(diff)
	}
	if tail := d.files[third].bytes[4096+size:]; !bytes.Equal(tail, make([]byte, len(tail))) {
		t.Error("the torn record's bytes are still there")
	}
	mustClose(t, f)
}

// TestTornGroupDoesNotComeBack: of a group of two, the power cut left the second
// record alone. When a later record of the first one's size fills the gap, the
// second must not follow it as if it were newer. That holds as well if the sync of
// the first repair failed and the kernel only shows the repaired file.
func TestTornGroupDoesNotComeBack(t *testing.T) {
	for _, failing := range []bool{false, true} {
		d := newMemDisk(1)
		f, err := memOpen(d)
		if err != nil {
			t.Fatal(err)
		}
		put(t, f, "durable")
		at, id, s := f.End(), f.id, f.active()
		d.dead = true
		f.Close() // its error is that the power is gone
		d = d.reboot(1)
		edit(d, first, func(b []byte) []byte {
			copy(b[s.offset(at)+24:], appendRecord(nil, &id, at, at+24, []byte("ghost")))
			return b
		})
		if failing {
			d.forgetful = true
			if _, err := memOpen(d); holdfast.KindOf(err) != holdfast.Unavailable {
				t.Fatalf("open with a sync that fails: %v", err)
			}
			d.forgetful = false
		}
		if f, err = memOpen(d); err != nil {
			t.Fatal(err)
		}
		put(t, f, "8 bytes.")
		if f, err = memOpen(d.reboot(2)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"durable", "8 bytes."}, get(t, f, 0)); diff != "" {
			t.Error(diff)
		}
		mustClose(t, f)
	}
}

func TestNewerVersion(t *testing.T) {
	d := threeSegments(t, true)
	edit(d, third, reheader(func(b []byte) { b[11] = 2 }))
	_, err := memOpen(d)
	if holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), third) || !strings.Contains(err.Error(), "newer version (2;") {
		t.Errorf("open gave %v", err)
	}
	if d.steps != 0 {
		t.Errorf("%d changes of the folder", d.steps)
	}
}

func TestOnlyTrimmedLeft(t *testing.T) {
	d := threeSegments(t, true)
	d.files = map[string]*memData{trimmedName(1): d.files[first]}
	if _, err := memOpen(d); err == nil || !strings.Contains(err.Error(), "newest are missing") {
		t.Errorf("open gave %v", err)
	}
}

func TestLeftoversAreRemoved(t *testing.T) {
	d := threeSegments(t, true)
	d.files[trimmedName(1)] = d.files[first]
	delete(d.files, first)
	d.files["spare.fresh"] = &memData{bytes: make([]byte, 10), stable: make([]byte, 10)}
	d.files["lost+found"] = &memData{} // not ours
	f, err := memOpen(d)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{long("c"), long("d"), long("e"), "f"}, get(t, f, 0)); diff != "" {
		t.Error(diff)
	}
	left := maps.Clone(d.files)
	for _, name := range []string{second, third, "lost+found"} {
		delete(left, name)
	}
	if len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	mustClose(t, f)
}

// TestReadOnlyFolder: what can't be written is found out at the start, not with
// the first record.
func TestReadOnlyFolder(t *testing.T) {
	for at := 1; ; at++ {
		d := threeSegments(t, false)
		d.files["spare.fresh"] = &memData{}
		d.fault = func() fate {
			if d.steps >= at {
				return notDone
			}
			return fine
		}
		f, err := memOpen(d)
		if err == nil {
			if at == 1 {
				t.Error("the open of a folder that can't be written went well")
			}
			d.fault = nil
			mustClose(t, f)
			break
		}
		if holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "writ") {
			t.Errorf("step %d: %v", at, err)
		}
	}
}
