package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/holdfast-iot/holdfast"
)

// small are segments of 8 KiB, so that a few records fill several.
var small = Options{SegmentSize: 2 * segmentHeaderSize, Linger: -1}

// put appends records one after the other, each in a group of its own.
func put(t *testing.T, f *File, records ...string) []Pos {
	t.Helper()
	var at []Pos
	for _, r := range records {
		pos, err := appendOne(f, r)
		if err != nil {
			t.Fatalf("append %.20q: %v", r, err)
		}
		at = append(at, pos)
	}
	return at
}

func appendOne(f *File, record string) (Pos, error) {
	type result struct {
		pos Pos
		err error
	}
	c := make(chan result, 1)
	f.Append([]byte(record), func(pos Pos, err error) { c <- result{pos, err} })
	r := <-c
	return r.pos, r.err
}

// get reads all records from a position.
func get(t *testing.T, f *File, from Pos) []string {
	t.Helper()
	var all []string
	for e, err := range f.Read(from) {
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		all = append(all, string(e.Data))
	}
	return all
}

func mustOpen(t *testing.T, dir string, o Options) *File {
	t.Helper()
	f, err := OpenFile(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func mustClose(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// long is a record of which two fill a small segment.
func long(c string) string { return strings.Repeat(c, 1500) }

func TestFolderHoldsOnlySegmentsAfterClose(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	f := mustOpen(t, dir, small)
	put(t, f, long("a"), long("b"), long("c"), long("d"), long("e"))
	if err := f.Trim(f.End()); err != nil {
		t.Fatal(err)
	}
	mustClose(t, f)
	if diff := cmp.Diff([]string{"0000000000000003.journal"}, names(t, dir)); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(filepath.Join(dir, "0000000000000003.journal"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode of a segment: %v, %v", info.Mode(), err)
	}
	if info, err = os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the folder: %v, %v", info.Mode(), err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	d := &osDisk{dir}
	all, err := d.List()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTrimKeepsWhatComesAfter(t *testing.T) {
	f := mustOpen(t, filepath.Join(t.TempDir(), "journal"), small)
	at := put(t, f, long("a"), long("b"), long("c"), long("d"), long("e"))
	if err := f.Trim(at[3]); err != nil { // c shares a segment with d
		t.Fatal(err)
	}
	if f.Start() != at[2] {
		t.Errorf("start is %d, want %d", f.Start(), at[2])
	}
	if diff := cmp.Diff([]string{long("c"), long("d"), long("e")}, get(t, f, 0)); diff != "" {
		t.Error(diff)
	}
	if _, err := f.At(at[0]); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("at a trimmed position: %v", err)
	}
}

func TestCutLetsTrimTakeEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	f := mustOpen(t, dir, small)
	put(t, f, "planted pattern")
	for range 2 { // the second has nothing to end
		if err := f.Cut(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Trim(f.End()); err != nil {
		t.Fatal(err)
	}
	if got := get(t, f, 0); len(got) != 0 {
		t.Errorf("after trimming all: %q", got)
	}
	for _, name := range names(t, dir) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "planted") {
			t.Errorf("%s still holds the record", name)
		}
	}
	put(t, f, "next")
	if diff := cmp.Diff([]string{"next"}, get(t, f, 0)); diff != "" {
		t.Error(diff)
	}
}

// A record that is handed over together with the cut is before it too, also if it
// is the first of its file.
func TestCutBehindTheFirstRecordsOfAFile(t *testing.T) {
	f := mustOpen(t, filepath.Join(t.TempDir(), "journal"), small)
	written, cut := make(chan error, 1), make(chan error, 1)
	q := f.queue
	q.mu.Lock() // so that the committer takes both at once
	q.items = append(q.items,
		pending{data: []byte("planted pattern"), done: func(_ Pos, err error) { written <- err }},
		pending{cut: true, done: func(_ Pos, err error) { cut <- err }})
	q.bytes += len("planted pattern")
	q.rouse()
	q.mu.Unlock()
	if err := errors.Join(<-written, <-cut); err != nil {
		t.Fatal(err)
	}
	if err := f.Trim(f.End()); err != nil {
		t.Fatal(err)
	}
	if got := get(t, f, 0); len(got) != 0 {
		t.Errorf("after trimming all: %q", got)
	}
}

func TestTrimmedFilesAreUsedAgain(t *testing.T) {
	f := mustOpen(t, filepath.Join(t.TempDir(), "journal"), small)
	for i := range 40 {
		put(t, f, long(fmt.Sprint(i%10)))
		if err := f.Trim(f.End()); err != nil {
			t.Fatal(err)
		}
	}
	f.mu.Lock()
	n := len(f.spares)
	f.mu.Unlock()
	if n == 0 || n > maxSpares {
		t.Errorf("%d spares after 20 segments", n)
	}
}

func TestReaderOvertakenByTrim(t *testing.T) {
	f := mustOpen(t, filepath.Join(t.TempDir(), "journal"), Options{SegmentSize: 1 << 20, Linger: -1})
	record := strings.Repeat("x", 300<<10)
	put(t, f, record, record, record, record)
	n, last := 0, error(nil)
	for e, err := range f.Read(0) {
		if last = err; err != nil {
			break
		}
		if string(e.Data) != record {
			t.Fatal("wrong bytes")
		}
		if n++; n == 1 {
			if err := f.Trim(f.End()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n >= 3 || holdfast.KindOf(last) != holdfast.NotFound {
		t.Errorf("read %d records, then %v", n, last)
	}
}

func TestSegmentSizeMayChange(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	f := mustOpen(t, dir, small)
	put(t, f, "a", long("b"))
	mustClose(t, f)
	f = mustOpen(t, dir, Options{SegmentSize: 64 << 10})
	put(t, f, strings.Repeat("c", 40<<10))
	mustClose(t, f)
	f = mustOpen(t, dir, small)
	put(t, f, long("d"))
	if diff := cmp.Diff([]string{"a", long("b"), strings.Repeat("c", 40<<10), long("d")}, get(t, f, 0)); diff != "" {
		t.Error(diff)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{SegmentSize: 100}, {SegmentSize: 4096}, {SegmentSize: 10000}, {SegmentSize: 1 << 40}, {SegmentSize: 8192, MaxRecord: 4096}, {MaxRecord: -1},
	} {
		if _, err := OpenFile(filepath.Join(t.TempDir(), "journal"), o); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%+v: %v", o, err)
		}
	}
	o, err := Options{SegmentSize: 8192}.withDefaults()
	if err != nil || o.MaxRecord != 8192-4096-32 {
		t.Errorf("%+v, %v", o, err)
	}
	f := mustOpen(t, filepath.Join(t.TempDir(), "journal"), o)
	put(t, f, strings.Repeat("x", o.MaxRecord), strings.Repeat("y", o.MaxRecord))
	if _, err := appendOne(f, strings.Repeat("z", o.MaxRecord+1)); holdfast.KindOf(err) != holdfast.TooLarge {
		t.Errorf("one byte too many: %v", err)
	}
}

func TestOpenRefusals(t *testing.T) {
	base := t.TempDir()
	plain := filepath.Join(base, "plain")
	if err := os.WriteFile(plain, []byte("not a folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		plain:                             "is not a folder",
		filepath.Join(plain, "journal"):   "must exist",
		filepath.Join(base, "no", "such"): "must exist",
	} {
		_, err := OpenFile(name, Options{})
		if holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAfterClose(t *testing.T) {
	f := mustOpen(t, filepath.Join(t.TempDir(), "journal"), small)
	put(t, f, "a")
	mustClose(t, f)
	mustClose(t, f) // once more is fine
	if _, err := appendOne(f, "b"); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("append: %v", err)
	}
	if _, err := f.At(0); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("at: %v", err)
	}
	if err := errors.Join(f.Trim(1), f.Cut()); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("trim, cut: %v", err)
	}
	for _, err := range f.Read(0) {
		if holdfast.KindOf(err) != holdfast.Unavailable {
			t.Errorf("read: %v", err)
		}
	}
	select {
	case <-f.Failed():
		t.Error("closing is no failure")
	default:
	}
}

func TestStats(t *testing.T) {
	f := mustOpen(t, filepath.Join(t.TempDir(), "journal"), small)
	put(t, f, "four", "five5")
	s := f.Stats()
	if s.Records != 2 || s.Bytes != 9 || s.Syncs != 2 || s.SyncTime <= 0 || s.Segments != 1 || s.Queued != 0 {
		t.Errorf("%+v", s)
	}
}
