package backup

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata anew: the format on disk has changed")

const (
	goldenFolder = "testdata/folder1" // as it lies on a disk
	goldenPlain  = "testdata/plain1.txt"
)

// plain is everything in the newest backup of a folder, decrypted.
func plain(t *testing.T, dir string) string {
	t.Helper()
	f, err := ReadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := f.Open("", identities(t), testVerifier)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range []string{layoutName, hubFile, listPath(r.Snapshot)} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "== %s\n%s", name, text)
	}
	fmt.Fprintf(&b, "== %s\n%s", manifestPath(r.Snapshot), r.Signed)
	for _, e := range r.entries {
		var content bytes.Buffer
		if err := r.read(t.Context(), e, &content); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "== %s\n%x\n", piecePath(e.File), content.Bytes())
	}
	return b.String()
}

func filesBelow(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What version 1 of the format is: a folder that was written once is read, and what is
// written today differs from it in nothing but what age draws at random.
func TestGolden(t *testing.T) {
	dir := newDir(t)
	mustTake(t, newHub(t), dir)
	if *update {
		if err := os.RemoveAll(goldenFolder); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(goldenFolder, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenPlain, []byte(plain(t, dir)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenPlain)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), plain(t, goldenFolder)); d != "" {
		t.Errorf("what was written is read otherwise:\n%s", d)
	}
	if d := cmp.Diff(string(want), plain(t, dir)); d != "" {
		t.Errorf("what is written now is another:\n%s", d)
	}
	if d := cmp.Diff(filesBelow(t, goldenFolder), filesBelow(t, dir)); d != "" {
		t.Errorf("files:\n%s", d)
	}
}

// The page of the format has a script that reads a backup with tools of others: what
// it finds is what we say.
func TestTheFormatIsWhatOthersRead(t *testing.T) {
	for _, program := range []string{"age", "openssl", "bash", "sha256sum", "basenc"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("HOLDFAST_NO_TOOLS") == "1" {
				t.Skipf("SKIPPED: %s is not installed and HOLDFAST_NO_TOOLS=1: nobody else has read a backup", program)
			}
			t.Fatalf("%s is not installed (Debian: age, openssl, bash, coreutils); HOLDFAST_NO_TOOLS=1 skips what needs it", program)
		}
	}
	page, err := os.ReadFile("../../docs/format/backup.md")
	if err != nil {
		t.Fatal(err)
	}
	script := regexp.MustCompile("(?s)```bash\n(.*?)```").FindSubmatch(page)
	if script == nil {
		t.Fatal("docs/format/backup.md has no script")
	}
	identity := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(identity, []byte(testIdentity+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(dir string) string {
		dir, err := filepath.Abs(dir)
		if err != nil {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), "bash", "-c", string(script[1]), "check.sh", dir, "identity")
		c.Dir = filepath.Dir(identity) // both may be named from where one is
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return string(out)
	}
	if got := check(goldenFolder); got != "5 pieces\n" {
		t.Errorf("of the golden folder:\n%s", got)
	}
	// It can fail: another list, another piece, another signature.
	h, dir := newHub(t), newDir(t)
	r := mustTake(t, h, dir)
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	reader, err := f.Open("", identities(t), "")
	if err != nil {
		t.Fatal(err)
	}
	a, z := reader.entries[2].File, reader.entries[3].File
	b, err := os.ReadFile(filepath.Join(dir, piecePath(z)))
	if err != nil {
		t.Fatal(err)
	}
	st := r.Statement
	st.Verifier = strings.Replace(testVerifier, "Aepw", "Aepx", 1)
	if err := errors.Join(write(f.disk, piecePath(a), b), f.writeManifest(r.Snapshot, sign(t, statementHeader, st), recipients(t)), write(f.disk, listPath(r.Snapshot), append(listText(reader.entries), listText(reader.entries[:1])[len(listHeader)+1:]...))); err != nil {
		t.Fatal(err)
	}
	damaged := reader.entries[1].File
	if b, err = os.ReadFile(filepath.Join(dir, piecePath(damaged))); err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := write(f.disk, piecePath(damaged), b); err != nil {
		t.Fatal(err)
	}
	got := check(dir)
	for _, want := range []string{damaged + " is altered or missing: ", "the signature is of another key", "the list is not the one that was signed", a + " is ", "6 pieces"} {
		if !strings.Contains(got, want) {
			t.Errorf("of a folder that was tampered with it says:\n%swithout %q", got, want)
		}
	}
}
