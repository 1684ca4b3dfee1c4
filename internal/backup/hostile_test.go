package backup

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// tree is what lies in and below a folder.
func tree(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What a hub says of its backup names files and sizes buffers: none of it is believed.
func TestPlansThatThereCantBe(t *testing.T) {
	segment := func(p *Plan) *Part { return &p.Parts[2] }
	for what, bend := range map[string]func(*Plan){
		"an id that leads elsewhere":     func(p *Plan) { p.ID = "../../../../tmp/aaaaaaaaaaa" },
		"a short id":                     func(p *Plan) { p.ID = "aaaaaaa" },
		"no hub":                         func(p *Plan) { p.Hub = "" },
		"a hub with a line":              func(p *Plan) { p.Hub = "a\nb" },
		"a short key":                    func(p *Plan) { p.Key = p.Key[:31] },
		"the year 20000":                 func(p *Plan) { p.Began = time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"no parts":                       func(p *Plan) { p.Parts = nil },
		"no tally":                       func(p *Plan) { p.Parts = p.Parts[:len(p.Parts)-1] },
		"two tallies":                    func(p *Plan) { p.Parts = append(p.Parts, p.Parts[len(p.Parts)-1]) },
		"another order":                  func(p *Plan) { p.Parts[0], p.Parts[2] = p.Parts[2], p.Parts[0] },
		"a part of another kind":         func(p *Plan) { p.Parts[0].Kind = "root key" },
		"a part of no bytes":             func(p *Plan) { p.Parts[0].Size = 0 },
		"a part of fewer than no bytes":  func(p *Plan) { segment(p).Size = -1 },
		"a segment of an exabyte":        func(p *Plan) { segment(p).Size = 1 << 60 },
		"a page of a gigabyte":           func(p *Plan) { p.Parts[0].Size = 1 << 30 },
		"a tally that is cut off":        func(p *Plan) { p.Parts[len(p.Parts)-1].Size-- },
		"a segment that leads elsewhere": func(p *Plan) { segment(p).ID = "../" + segment(p).ID[3:] },
		"a segment with a line":          func(p *Plan) { segment(p).ID = segment(p).ID[:26] + ".\n" + segment(p).ID[28:] },
		"a tag that leads elsewhere":     func(p *Plan) { p.Parts[0].Tag = strings.Repeat("../", 17) + "a" },
		"a page without a tag":           func(p *Plan) { p.Parts[0].Tag = "" },
		"too many parts":                 func(p *Plan) { p.Parts = append(make([]Part, maxPieces), p.Parts...) },
	} {
		h, dir := newHub(t), newDir(t)
		h.bend = bend
		if _, err := takeInto(t, h, dir); holdfast.KindOf(err) != holdfast.Invalid && holdfast.KindOf(err) != holdfast.TooLarge {
			t.Errorf("%s: %v", what, err)
		}
		if len(h.fetched) > 0 {
			t.Errorf("%s: %d parts were asked for", what, len(h.fetched))
		}
		if all := tree(t, filepath.Dir(dir)); len(all) != 6 { // the folder's own
			t.Errorf("%s: it left %v", what, all)
		}
		if what == "too many parts" {
			continue // TestAPlanWithoutAnEnd has those
		}
		p, err := newHub(t).Begin(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		bend(&p)
		text, err := json.Marshal(p)
		if err != nil {
			continue // of that year there is no JSON
		}
		if _, err := ReadPlan(bytes.NewReader(text)); holdfast.KindOf(err) != holdfast.Invalid && holdfast.KindOf(err) != holdfast.TooLarge {
			t.Errorf("%s, in JSON: %v", what, err)
		}
	}
}

// endless is an answer that has no end.
type endless struct {
	head, again string
	at          int
}

func (e *endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		rest := e.head
		if rest == "" {
			rest = e.again[e.at%len(e.again):]
			e.at += len(rest)
		} else {
			e.head = ""
		}
		some := copy(p[n:], rest)
		e.at -= (len(rest) - some) * min(e.at, 1)
		n += some
	}
	return n, nil
}

// An answer without an end costs no more memory than the largest backup.
func TestAPlanWithoutAnEnd(t *testing.T) {
	most, parts := int64(4<<20), maxPieces>>6
	if os.Getenv("HOLDFAST_LONG") != "" {
		most, parts = maxPlan, maxPieces
	}
	part := `{"kind":"segment","id":"` + strings.Repeat("a", 26) + "." + strings.Repeat("0", 24) + `","size":9},`
	for what, from := range map[string]io.Reader{
		"parts":  &endless{head: `{"parts":[`, again: part},
		"a text": &endless{head: `{"id":"`, again: "aaaaaaaaaaaaaaaa"},
		"spaces": &endless{head: `{`, again: "        "},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := readPlan(from, most, parts)
		runtime.ReadMemStats(&after)
		if holdfast.KindOf(err) != holdfast.TooLarge {
			t.Errorf("%s without an end: %v", what, err)
		}
		had := after.Sys - before.Sys
		t.Logf("%s without an end: %d MiB", what, had>>20)
		if had > 8*uint64(most) {
			t.Errorf("%s without an end cost %d MiB", what, had>>20)
		}
	}
	p, err := newHub(t).Begin(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ReadPlan(bytes.NewReader(text)); err != nil || !slices.Equal(got.Parts, p.Parts) || got.ID != p.ID || !got.Began.Equal(p.Began) {
		t.Errorf("a sound plan is read as %+v (%v)", got, err)
	}
	for _, end := range []int{0, 1, len(text) / 2, len(text) - 1} {
		if _, err := ReadPlan(bytes.NewReader(text[:end])); holdfast.KindOf(err) != holdfast.Unavailable {
			t.Errorf("%d of %d bytes of a plan: %v", end, len(text), err)
		}
	}
}

func TestPartsThatAreNotWhatWasOffered(t *testing.T) {
	for what, alter := range map[string]func(int, []byte) []byte{
		"too long":  func(_ int, b []byte) []byte { return append(slices.Clone(b), 'x') },
		"too short": func(n int, b []byte) []byte { return b[:len(b)-n%2] },
		"altered":   func(n int, b []byte) []byte { b = slices.Clone(b); b[0] ^= byte(1 - n%2); return b },
	} {
		h, dir := newHub(t), newDir(t)
		mustTake(t, h, dir)
		h.grow(9)
		h.alter = alter
		if what == "altered" { // of a segment only the hub knows; of pages and tallies the tag is known
			h.segments = h.segments[:2]
		}
		if _, err := takeInto(t, h, dir); holdfast.KindOf(err) != holdfast.Unavailable {
			t.Errorf("%s: %v", what, err)
		}
		h.alter = nil
		if all, bad := checkAll(t, dir); len(all) != 1 || len(bad) > 0 {
			t.Errorf("%s: backups %v, wrong: %v", what, all, bad)
		}
		mustTake(t, h, dir)
		if all, bad := checkAll(t, dir); len(all) != 2 || len(bad) > 0 {
			t.Errorf("%s, and then not: backups %v, wrong: %v", what, all, bad)
		}
	}
}

// A statement of something else makes no backup.
func TestStatementsOfAnotherBackup(t *testing.T) {
	for what, forge := range map[string]func(*Statement){
		"another run":  func(st *Statement) { st.ID = strings.Repeat("a", 26) },
		"another hub":  func(st *Statement) { st.Hub = "another" },
		"another time": func(st *Statement) { st.Began = st.Began.Add(time.Hour) },
		"another list": func(st *Statement) { st.List = strings.Repeat("0", 64) },
		"another key":  func(st *Statement) { st.Key = make([]byte, 32) },
		"other counts": func(st *Statement) { st.Pieces++ },
	} {
		h, dir := newHub(t), newDir(t)
		h.forge = forge
		if _, err := takeInto(t, h, dir); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v", what, err)
		}
		if all, _ := checkAll(t, dir); len(all) > 0 {
			t.Errorf("%s: it is a backup all the same", what)
		}
	}
}

// Nothing is written or removed outside, whatever links lie in the folder.
func TestLinksLeadNowhere(t *testing.T) {
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious.tmp")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{piecesDir, snapshotsDir, hubFile, lockName, layoutName + tempSuffix} {
		h, dir := newHub(t), newDir(t)
		if link != layoutName+tempSuffix {
			mustTake(t, h, dir)
		} else if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		h.grow(9)
		if err := os.RemoveAll(filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
		to := outside
		if link == hubFile || link == lockName || link == layoutName+tempSuffix {
			to = precious
		}
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
		if _, err := takeInto(t, h, dir); err == nil {
			t.Errorf("%s is a link to elsewhere, and was followed", link)
		}
		if f, err := OpenFolder(dir); err == nil {
			f.Prune(t.Context(), 24*time.Hour, time.Now(), PruneOptions{})
			f.Close()
		}
	}
	// Each folder of pieces.
	h, dir := newHub(t), newDir(t)
	p, err := h.Begin(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, part := range p.Parts {
		os.Symlink(outside, filepath.Join(dir, pieceDir(name(testKey, h.to(), part))))
	}
	if _, err := takeInto(t, h, dir); err == nil {
		t.Error("folders of pieces are links to elsewhere, and were followed")
	}
	if all := tree(t, outside); len(all) != 2 {
		t.Errorf("outside: %v", all)
	}
	if b, err := os.ReadFile(precious); err != nil || string(b) != "x" {
		t.Errorf("a file outside holds %q (%v)", b, err)
	}
}

// A pipe in place of a file keeps nobody waiting.
func TestPipesAreNoFiles(t *testing.T) {
	h, dir := newHub(t), newDir(t)
	r := mustTake(t, h, dir)
	for _, name := range []string{listPath(r.Snapshot), manifestPath(r.Snapshot), hubFile, layoutName} {
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := ReadFolder(dir)
		if err == nil {
			_, err = f.Open("", identities(t), "")
			f.Close()
		}
		if err == nil {
			t.Errorf("%s is a pipe, and was read", name)
		}
	}
}

func TestBackupsOfTwoHubsInOneFolder(t *testing.T) {
	h, dir, other := newHub(t), newDir(t), newDir(t)
	own := mustTake(t, h, dir)
	stranger := newHub(t)
	stranger.id, stranger.run = "hubbbbbbbbbbbbbbbbbbbbbbbb", 5
	foreign := mustTake(t, stranger, other)
	if _, err := takeInto(t, stranger, dir); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "a folder of its own") {
		t.Errorf("another hub's run into the folder: %v", err)
	}
	// All that lies there, and then only a part.
	if err := os.Remove(filepath.Join(other, hubFile)); err != nil {
		t.Fatal(err)
	}
	merge(t, other, dir)
	f, err := ReadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Open(foreign.Snapshot, identities(t), ""); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "put together from two") {
		t.Errorf("another hub's backup in the folder: %v", err)
	}
	if _, err := f.Open(own.Snapshot, identities(t), ""); err != nil {
		t.Errorf("the folder's own: %v", err)
	}
	// The manifest of one, the list of the other.
	h.grow(9)
	second := mustTake(t, h, dir)
	list := filepath.Join(dir, listPath(second.Snapshot))
	mine, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(filepath.Join(dir, listPath(own.Snapshot)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, theirs, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Open(second.Snapshot, identities(t), ""); holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), "is of another backup") {
		t.Errorf("the list of another backup: %v", err)
	}
	if err := os.WriteFile(list, mine, 0o600); err != nil {
		t.Fatal(err)
	}
	// An old manifest under the newest name.
	b, err := os.ReadFile(filepath.Join(dir, manifestPath(own.Snapshot)))
	if err != nil {
		t.Fatal(err)
	}
	late := own.Snapshot[:2] + "9" + own.Snapshot[3:]
	for name, content := range map[string][]byte{manifestPath(late): b, listPath(late): theirs} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Open("", identities(t), ""); holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), "renamed") {
		t.Errorf("an old manifest under a new name: %v", err)
	}
	// A piece under the name of another.
	r, err := f.Open(own.Snapshot, identities(t), "")
	if err != nil {
		t.Fatal(err)
	}
	a, z := filepath.Join(dir, piecePath(r.entries[0].File)), filepath.Join(dir, piecePath(r.entries[1].File))
	if err := os.Rename(a, z); err != nil {
		t.Fatal(err)
	}
	c, err := r.Check(t.Context(), nil)
	if err != nil || c.BadPieces != 2 || !strings.Contains(c.Bad[0], "missing") || !strings.Contains(c.Bad[1], "of another hub") {
		t.Errorf("a piece under another's name: %d, %v (%v)", c.BadPieces, c.Bad, err)
	}
}

func merge(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNewerFormatsAreRefused(t *testing.T) {
	h, dir := newHub(t), newDir(t)
	r := mustTake(t, h, dir)
	refused := func(what string, err error) {
		t.Helper()
		if holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "newer") {
			t.Errorf("a newer %s: %v", what, err)
		}
	}
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	signed := sign(t, "holdfast backup 2", h.statement(Done{List: r.Statement.List}))
	if err := f.writeManifest(r.Snapshot, signed, recipients(t)); err != nil {
		t.Fatal(err)
	}
	_, err = f.Open("", identities(t), "")
	refused("manifest", err)
	_, err = parseList(strings.NewReader("holdfast backup pieces 2\n"), func(Entry) error { return nil })
	refused("list", err)
	if err := write(f.disk, listPath(r.Snapshot), []byte("holdfast backup pieces 2\n")); err != nil {
		t.Fatal(err)
	}
	pieces, _ := piecesIn(t, dir)
	_, err = f.Prune(t.Context(), 24*time.Hour, time.Now(), PruneOptions{})
	refused("list, of which nothing is pruned", err)
	if left, _ := piecesIn(t, dir); len(left) != len(pieces) {
		t.Errorf("%d of %d pieces are left", len(left), len(pieces))
	}
	if err := write(f.disk, layoutName, []byte("holdfast backup folder 2\n")); err != nil {
		t.Fatal(err)
	}
	f.Close()
	_, err = ReadFolder(dir)
	refused("layout", err)
	_, err = OpenFolder(dir)
	refused("layout, to write", err)
}

func TestListsThatThereCantBe(t *testing.T) {
	h, dir := newHub(t), newDir(t)
	r := mustTake(t, h, dir)
	sound, err := os.ReadFile(filepath.Join(dir, listPath(r.Snapshot)))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(sound), "\n")
	text := func(lines ...string) io.Reader { return strings.NewReader(strings.Join(lines, "")) }
	n := 0
	count := func(Entry) error { n++; return nil }
	digest, err := parseList(bytes.NewReader(sound), count)
	if err != nil || n != r.Pieces || digest != r.Statement.List {
		t.Fatalf("%d entries, digest %s (%v)", n, digest, err)
	}
	for what, list := range map[string]io.Reader{
		"nothing":           text(),
		"no tally":          text(lines[:len(lines)-2]...),
		"only a header":     text(lines[0]),
		"twice":             text(append(slices.Clone(lines), lines[1:]...)...),
		"a long line":       text(lines[0], strings.Repeat("c", 1<<20)),
		"another order":     text(lines[0], lines[3], lines[1], lines[5]),
		"a path for a name": text(lines[0], "c ../"+lines[1][5:], lines[5]),
		"a size of -1":      text(lines[0], fmt.Sprintf("c %s -1\n", lines[1][2:81]), lines[5]),
		"a size of 010":     text(lines[0], fmt.Sprintf("c %s 010\n", lines[1][2:81]), lines[5]),
		"an exabyte":        text(lines[0], fmt.Sprintf("c %s %d\n", lines[1][2:81], int64(1)<<60), lines[5]),
		"no end":            io.MultiReader(text(lines[0]), &endless{again: lines[1]}),
	} {
		if what == "no end" && os.Getenv("HOLDFAST_LONG") == "" {
			continue // a million lines
		}
		if _, err := parseList(list, func(Entry) error { return nil }); holdfast.KindOf(err) != holdfast.Invalid && holdfast.KindOf(err) != holdfast.TooLarge {
			t.Errorf("%s: %v", what, err)
		}
	}
}
