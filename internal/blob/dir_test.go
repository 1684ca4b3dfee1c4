package blob

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/holdfast-iot/holdfast"
)

func mustOpen(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// goldenID is the blob in docs/format/blob-folder.md.
const goldenID = "mhoboykelkwxa5qpxjwp6lyyve"

func parseID(t *testing.T, s string) holdfast.BlobID {
	t.Helper()
	var id holdfast.BlobID
	if err := id.UnmarshalText([]byte(s)); err != nil {
		t.Fatal(err)
	}
	return id
}

func newID() holdfast.BlobID {
	var id holdfast.BlobID
	rand.Read(id[:])
	return id
}

// tree lists the files below a folder, with their mode and content.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		what := info.Mode().String()
		if !e.IsDir() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += " " + string(b)
		}
		all[filepath.ToSlash(rel)] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestLayout(t *testing.T) {
	root := filepath.Join(t.TempDir(), "blobs")
	d := mustOpen(t, root)
	if err := d.Put(t.Context(), parseID(t, goldenID), []byte("sealed")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{
		".":               "drwx------",
		"LAYOUT":          "-rw------- holdfast blob folder 1\n",
		"m":               "drwx------",
		"m/h":             "drwx------",
		"m/h/" + goldenID: "-rw------- sealed",
	}, tree(t, root)); diff != "" {
		t.Error(diff)
	}
}

// TestCrashLeftovers: what a Put or a Delete left is gone after the next open,
// and what is not ours stays.
func TestCrashLeftovers(t *testing.T) {
	root := filepath.Join(t.TempDir(), "blobs")
	d := mustOpen(t, root)
	id := parseID(t, goldenID)
	if err := d.Put(t.Context(), id, []byte("kept")); err != nil {
		t.Fatal(err)
	}
	before := tree(t, root)
	for _, name := range []string{"m/h/mhaaaaaaaaaaaaaaaaaaaaaaae.put", "m/h/mhbaaaaaaaaaaaaaaaaaaaaaae.gone"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	foreign := filepath.Join(root, "lost+found", "x.put")
	if err := os.Mkdir(filepath.Dir(foreign), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(foreign, []byte("foreign"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, root)
	after := tree(t, root)
	if after["lost+found/x.put"] != "-rw------- foreign" {
		t.Error("a file that is not ours was touched")
	}
	delete(after, "lost+found")
	delete(after, "lost+found/x.put")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
	if _, err := d.Size(t.Context(), id); err != nil {
		t.Error(err)
	}
}

// TestInterruptedDelete: a Delete that stopped after it took the name is finished
// by the next one.
func TestInterruptedDelete(t *testing.T) {
	root := filepath.Join(t.TempDir(), "blobs")
	d := mustOpen(t, root)
	id := parseID(t, goldenID)
	if err := d.Put(t.Context(), id, []byte("sealed")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d.path(id), d.path(id)+goneSuffix); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, ok := tree(t, root)["m/h/"+goldenID+goneSuffix]; ok {
		t.Error("the rest of the deleted blob is still there")
	}
}

// TestDeleteOverwrites keeps a second name of the file to see its last bytes.
func TestDeleteOverwrites(t *testing.T) {
	base := t.TempDir()
	d := mustOpen(t, filepath.Join(base, "blobs"))
	id := parseID(t, goldenID)
	data := bytes.Repeat([]byte("ciphertext"), 20_000)
	if err := d.Put(t.Context(), id, data); err != nil {
		t.Fatal(err)
	}
	witness := filepath.Join(base, "witness")
	if err := os.Link(d.path(id), witness); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(witness)
	if err != nil || !bytes.Equal(b, make([]byte, len(data))) {
		t.Errorf("the deleted file's bytes are not zeros (%v)", err)
	}
}

func TestPunchGivesSpaceBack(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: only Linux gives the space of a punched range back")
	}
	d := mustOpen(t, filepath.Join(t.TempDir(), "blobs"))
	id := parseID(t, goldenID)
	if err := d.Put(t.Context(), id, bytes.Repeat([]byte{1}, 1<<20)); err != nil {
		t.Fatal(err)
	}
	blocks := func() int64 {
		var st syscall.Stat_t
		if err := syscall.Stat(d.path(id), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	before := blocks()
	if err := d.Punch(t.Context(), id, 0, 1<<19); err != nil {
		t.Fatal(err)
	}
	after := blocks()
	t.Logf("%d bytes on disk, then %d", before, after)
	if after > before {
		t.Error("punching takes space")
	}
	if before >= 1<<20 && after > 1<<19+1<<16 {
		t.Error("punching half of a blob does not give the space back")
	}
}

func TestOpenRefusals(t *testing.T) {
	base := t.TempDir()
	plain := filepath.Join(base, "plain")
	if err := os.WriteFile(plain, []byte("not a folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(base, "newer")
	if err := os.Mkdir(newer, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(newer, layoutName), []byte("holdfast blob folder 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		kind holdfast.Kind
		text string
	}{
		{plain, holdfast.Invalid, "is not a folder"},
		{filepath.Join(plain, "blobs"), holdfast.Invalid, "must exist"},
		{filepath.Join(base, "no", "such"), holdfast.Invalid, "must exist"},
		{newer, holdfast.Conflict, "newer version"},
	} {
		if _, err := OpenDir(c.path); holdfast.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.path, err)
		}
	}
	if diff := cmp.Diff(map[string]string{".": "drwx------", "LAYOUT": "-rw------- holdfast blob folder 2\n"}, tree(t, newer)); diff != "" {
		t.Errorf("a newer folder was changed: %s", diff)
	}
}

// TestFailedWriteLeavesNothing uses a name that can't be made: its folder is a
// file.
func TestFailedWriteLeavesNothing(t *testing.T) {
	root := filepath.Join(t.TempDir(), "blobs")
	d := mustOpen(t, root)
	if err := os.WriteFile(filepath.Join(root, "m"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := tree(t, root)
	id := parseID(t, goldenID)
	if err := d.Put(t.Context(), id, []byte("sealed")); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("put: %v", err)
	}
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Error(diff)
	}
	if err := os.Remove(filepath.Join(root, "m")); err != nil {
		t.Fatal(err)
	}
	if err := d.Put(t.Context(), id, []byte("sealed")); err != nil {
		t.Errorf("put when the fault is mended: %v", err)
	}
}

// TestFewFilesStayOpen reads more blobs than the cache holds.
func TestFewFilesStayOpen(t *testing.T) {
	d := mustOpen(t, filepath.Join(t.TempDir(), "blobs"))
	path := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var first *openFile
	for i := range 3 * maxOpen {
		f, err := d.files.open(newID(), path)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = f // stays in use
			continue
		}
		d.files.release(f)
	}
	if n := d.files.order.Len(); n > maxOpen {
		t.Errorf("%d files are open", n)
	}
	if _, err := first.file.Stat(); err != nil {
		t.Errorf("a file in use was closed: %v", err)
	}
	d.files.release(first)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.file.Stat(); err == nil {
		t.Error("a file is open after Close")
	}
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20, 16 << 20} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			d, err := OpenDir(filepath.Join(b.TempDir(), "blobs"))
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			data := bytes.Repeat([]byte("sealed! "), size/8)
			b.SetBytes(int64(size))
			for b.Loop() {
				id := newID()
				if err := d.Put(context.Background(), id, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReadAt(b *testing.B) {
	d, err := OpenDir(filepath.Join(b.TempDir(), "blobs"))
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	id := newID()
	if err := d.Put(context.Background(), id, make([]byte, 16<<20)); err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 4<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for off := int64(0); b.Loop(); off = (off + 12345) % (15 << 20) {
		if err := d.ReadAt(context.Background(), id, p, off); err != nil {
			b.Fatal(err)
		}
	}
}
