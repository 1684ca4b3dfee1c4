package journal

import (
	"bytes"
	"encoding/binary"
	"flag"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata anew: the format on disk has changed")

// goldenID is the log id of the file in testdata.
var goldenID = logID{0x68, 0x6f, 0x6c, 0x64, 0x66, 0x61, 0x73, 0x74, 1, 2, 3, 4, 5, 6, 7, 8}

// goldenBytes is a segment as docs/format/journal.md describes it: number 3, from
// position 4080 on, a group of two records, a group of one, a mark.
func goldenBytes() []byte {
	b := segmentHeader{id: goldenID, num: 3, base: 4080, size: 8192}.encode()
	b = appendRecord(b, &goldenID, 4080, 4080, []byte("first"))
	b = appendRecord(b, &goldenID, 4080, 4104, []byte("second record"))
	b = appendRecord(b, &goldenID, 4136, 4136, []byte("8 bytes."))
	b = appendMark(b, &goldenID, 4160)
	return append(b, make([]byte, 8192-len(b))...)
}

func TestGoldenSegment(t *testing.T) {
	golden := filepath.Join("testdata", third)
	if *update {
		if err := os.WriteFile(golden, goldenBytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(goldenBytes(), want) {
		t.Error("segments are written differently than testdata and docs/format/journal.md say")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, third), want, 0o600); err != nil {
		t.Fatal(err)
	}
	f := mustOpen(t, dir, small)
	var got []Entry
	for e, err := range f.Read(0) {
		if err != nil {
			t.Fatal(err)
		}
		e.Data = bytes.Clone(e.Data)
		got = append(got, e)
	}
	if diff := cmp.Diff([]Entry{
		{4080, 4104, []byte("first")},
		{4104, 4136, []byte("second record")},
		{4136, 4160, []byte("8 bytes.")},
	}, got); diff != "" {
		t.Error(diff)
	}
	if f.Start() != 4080 || f.End() != 4176 || f.ID() != goldenID {
		t.Errorf("from %d to %d, id %x", f.Start(), f.End(), f.ID())
	}
}

// TestWhatIsWritten ties the golden file to the path that production takes.
func TestWhatIsWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	f := mustOpen(t, dir, small)
	put(t, f, "first", "second")
	mustClose(t, f)
	got, err := os.ReadFile(filepath.Join(dir, first))
	if err != nil {
		t.Fatal(err)
	}
	id := f.id
	want := segmentHeader{id: id, num: 1, size: 8192}.encode()
	want = appendRecord(want, &id, 0, 0, []byte("first"))
	want = appendRecord(want, &id, 24, 24, []byte("second"))
	want = appendMark(want, &id, 48)
	want = append(want, make([]byte, 8192-len(want))...)
	if !bytes.Equal(got, want) {
		t.Errorf("not what was expected: %s", cmp.Diff(strings.Split(string(want), "\x00"), strings.Split(string(got), "\x00")))
	}
}

// TestPlaceSum compares with the checksum as docs/format/journal.md has it.
func TestPlaceSum(t *testing.T) {
	id := logID{1, 2, 0xff, 15: 9}
	for _, pos := range []Pos{0, 1, 8, 1 << 20, 0x0123456789abcdef, 1<<62 - 8} {
		want := crc32.Checksum(binary.BigEndian.AppendUint64(id[:len(id):len(id)], uint64(pos)), castagnoli)
		if got := placeSum(&id, pos); got != want {
			t.Errorf("position %d: %08x, want %08x", pos, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { placeSum(&id, 1<<40) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
