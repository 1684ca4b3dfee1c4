package vault

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
)

// faulty is a place whose writing fails, or hangs, when it is told to.
type faulty struct {
	Place
	fail atomic.Bool
	hang atomic.Pointer[chan struct{}]
}

func (f *faulty) err() error {
	if wait := f.hang.Load(); wait != nil {
		<-*wait
	}
	if f.fail.Load() {
		return errors.New("no space left on device")
	}
	return nil
}

func (f *faulty) Write(name string, data []byte) error {
	return errors.Join(f.err(), f.Place.Write(name, data))
}

func (f *faulty) Create(files []NewFile) error {
	if err := f.err(); err != nil {
		return err
	}
	return f.Place.Create(files)
}

func (f *faulty) Append(name string, at int64, data []byte) error {
	if err := f.err(); err != nil {
		return err
	}
	return f.Place.Append(name, at, data)
}

// besideFile is a companion of one file, which says the generation.
type besideFile struct{ text atomic.Value }

func (b *besideFile) Prepare(_ context.Context, generation uint64) error {
	b.text.Store("generation " + string(rune('0'+generation)))
	return nil
}
func (b *besideFile) Files(context.Context) (map[string][sha256.Size]byte, error) {
	return map[string][sha256.Size]byte{"beside": sha256.Sum256([]byte(b.text.Load().(string)))}, nil
}
func (b *besideFile) File(context.Context, string) ([]byte, error) {
	return []byte(b.text.Load().(string)), nil
}
func (*besideFile) Owns(name string) bool { return strings.HasPrefix(name, "beside") }

func (*besideFile) Follows(ours, theirs []byte) error {
	if string(theirs) > string(ours) {
		return errors.New("goes on further")
	}
	return nil
}

// copied is a vault with two copies.
type copied struct {
	*Vault
	db      *catalog.DB
	dir     string
	holder  *FileHolder
	one     *faulty
	two     *faulty
	beside  besideFile
	options Options
}

func newCopied(t *testing.T, timeout time.Duration) *copied {
	t.Helper()
	c := &copied{dir: t.TempDir()}
	for _, name := range []string{"keyring", "one", "two"} {
		if err := os.Mkdir(filepath.Join(c.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if c.db, err = catalog.Open(t.Context(), c.dir, catalog.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.db.Close() })
	if c.holder, err = CreateFileHolder(filepath.Join(t.TempDir(), "root.key"), nil); err != nil {
		t.Fatal(err)
	}
	c.one, c.two = &faulty{Place: Dir(filepath.Join(c.dir, "one"))}, &faulty{Place: Dir(filepath.Join(c.dir, "two"))}
	c.options = Options{CopyTimeout: timeout, Copies: []Copy{{Name: "one", Place: c.one}, {Name: "two", Place: c.two}}}
	if c.Vault, err = Create(t.Context(), c.db, c.place(), []Holder{c.holder}, c.options); err != nil {
		t.Fatal(err)
	}
	c.Accompany(&c.beside)
	c.tend(t)
	return c
}

func (c *copied) place() Place { return Dir(filepath.Join(c.dir, "keyring")) }

func (c *copied) tend(t *testing.T) {
	t.Helper()
	if err := c.TendCopies(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (c *copied) add(t *testing.T, n int) (out []Owner) {
	t.Helper()
	for range n {
		out = append(out, OfAssignment(holdfast.NewID[holdfast.AssignmentID]()))
	}
	if err := c.AddOwners(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	return out
}

// same checks that a copy is whole.
func (c *copied) same(t *testing.T, p Place) {
	t.Helper()
	r, err := VerifyCopy(c.place(), p)
	if err != nil || len(r.Missing)+len(r.Different) > 0 || r.Besides != 1 {
		t.Errorf("a copy: %+v, %v; want it whole, with one file beside", r, err)
	}
}

func (c *copied) late(name string) string {
	for _, s := range c.Copies() {
		if s.Name == name && s.Late {
			return s.Reason
		}
	}
	return ""
}

func TestCopiesFollow(t *testing.T) {
	c := newCopied(t, 0)
	owners := c.add(t, PageEntries+3)
	for _, p := range []Place{c.one, c.two} {
		c.same(t, p)
	}
	if _, err := c.Destroy(t.Context(), Destruction{Owners: owners[:1], Reissue: []Reissue{{Assignment: holdfast.AssignmentID(owners[5])}}}); err != nil {
		t.Fatal(err)
	}
	c.add(t, 2)
	for _, p := range []Place{c.one, c.two} {
		c.same(t, p)
	}
	for name, want := range map[string]bool{headName(2): true, headName(1): false, listsName(2): true} {
		if _, err := os.Stat(filepath.Join(c.dir, "one", name)); (err == nil) != want {
			t.Errorf("%s in the copy: %v, want it there: %v", name, err, want)
		}
	}
	if got := c.late("one") + c.late("two"); got != "" {
		t.Errorf("late: %s", got)
	}
}

func TestALateCopyIsNamedAndCaughtUp(t *testing.T) {
	c := newCopied(t, 0)
	owners := c.add(t, 3)
	c.two.fail.Store(true)
	if _, err := c.Destroy(t.Context(), Destruction{Owners: owners[:1]}); err != nil {
		t.Fatalf("with one copy that fails: %v", err)
	}
	c.add(t, 2)
	if c.late("one") != "" || !strings.Contains(c.late("two"), "no space") {
		t.Errorf("late: one %q, two %q; want two alone, with the reason", c.late("one"), c.late("two"))
	}
	c.tend(t)
	if c.late("two") == "" {
		t.Error("a copy that fails is in step")
	}
	c.two.fail.Store(false)
	c.tend(t)
	if got := c.late("two"); got != "" {
		t.Errorf("after it is back: %s", got)
	}
	c.same(t, c.two)
}

func TestWithoutACopyARotationWaits(t *testing.T) {
	c := newCopied(t, 0)
	owners := c.add(t, 3)
	c.one.fail.Store(true)
	c.two.fail.Store(true)
	_, err := c.Destroy(t.Context(), Destruction{Owners: owners[:1]})
	if holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "no space") {
		t.Fatalf("destroy without a copy: %v, want Unavailable with the reason", err)
	}
	if !c.HasOwner(owners[0]) || c.Generation() != 1 {
		t.Errorf("the owner is there: %v, generation %d; want nothing touched", c.HasOwner(owners[0]), c.Generation())
	}
	if err := c.AddOwner(t.Context(), OfAssignment(holdfast.NewID[holdfast.AssignmentID]())); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("add an owner without a copy: %v, want Unavailable", err)
	}
	c.one.fail.Store(false) // and nobody tends it: what needs it catches it up
	if _, err := c.Destroy(t.Context(), Destruction{Owners: owners[:1]}); err != nil {
		t.Fatal(err)
	}
	c.two.fail.Store(false)
	c.tend(t)
	c.same(t, c.one)
	c.same(t, c.two)
	v, err := Open(t.Context(), c.db, c.place(), []Holder{c.holder}, c.options)
	if err != nil || v.HasOwner(owners[0]) || !v.HasOwner(owners[1]) {
		t.Fatalf("open again: %v", err)
	}
}

func TestACopyThatHangsIsLeftBehind(t *testing.T) {
	c := newCopied(t, 0)
	c.copies.timeout = time.Second
	wait := make(chan struct{})
	c.two.hang.Store(&wait)
	done := make(chan error, 1)
	go func() {
		done <- c.AddOwner(context.Background(), OfAssignment(holdfast.NewID[holdfast.AssignmentID]()))
	}()
	err := <-done
	// A slow machine may have left the other copy behind as well: then nothing was added.
	if err != nil && holdfast.KindOf(err) != holdfast.Unavailable {
		t.Fatal(err)
	}
	if !strings.Contains(c.late("two"), "did not answer") {
		t.Errorf("late: %q, want that it did not answer", c.late("two"))
	}
	c.two.hang.Store(nil)
	close(wait)
	c.copies.timeout = time.Minute
	deadline := time.Now().Add(30 * time.Second)
	for c.late("two") != "" && time.Now().Before(deadline) {
		c.tend(t)
	}
	c.same(t, c.two)
}

func TestACopyOfAnotherHubIsRefused(t *testing.T) {
	c, other := newCopied(t, 0), newCopied(t, 0)
	c.options.Copies = []Copy{{Name: "theirs", Place: other.one}}
	v, err := Open(t.Context(), c.db, c.place(), []Holder{c.holder}, c.options)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.TendCopies(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := v.Copies()[0]; !s.Late || !strings.Contains(s.Reason, "another hub") {
		t.Errorf("another hub's: %+v", s)
	}
	other.same(t, other.one)
}

// An older data folder must not take from the copies what it does not know.
func TestAnOlderFolderDoesNotOverwriteACopy(t *testing.T) {
	c := newCopied(t, 0)
	c.add(t, 2)
	old := t.TempDir()
	if err := os.CopyFS(old, os.DirFS(filepath.Join(c.dir, "keyring"))); err != nil {
		t.Fatal(err)
	}
	c.add(t, 2)
	ring, err := recoverRing(t.Context(), c.db, Dir(old), []Holder{c.holder}, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := newVault(c.db, Dir(old), []Holder{c.holder}, c.options, ring.ring)
	if err := v.TendCopies(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range v.Copies() {
		if !s.Late || !strings.Contains(s.Reason, "holdfast restore") {
			t.Errorf("an older folder: %+v", s)
		}
	}
	c.same(t, c.one)
}

// What an older catalog lacks comes back from the keyring's copy, and what died in
// it does not.
func TestAnOlderCatalogAdoptsTheKeyring(t *testing.T) {
	c := newCopied(t, 0)
	owners := c.add(t, 3)
	stream := holdfast.NewID[holdfast.StreamID]()
	var before [3][]byte
	for i, o := range owners {
		var err error
		if before[i], err = c.SealField(t.Context(), o, "t", []byte("row"), "c", []byte("text")); err != nil {
			t.Fatal(err)
		}
	}
	older := t.TempDir()
	if err := c.db.Write(t.Context(), func(tx *sql.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := c.db.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{catalog.File} {
		b, err := os.ReadFile(filepath.Join(c.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(older, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := holdfast.AssignmentID(owners[1])
	if _, err := c.Destroy(t.Context(), Destruction{Owners: owners[:1], Reissue: []Reissue{{Assignment: a, Drop: []StreamBucket{{Stream: stream}}}}}); err != nil {
		t.Fatal(err)
	}
	db, err := catalog.Open(t.Context(), older, catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := Open(t.Context(), db, c.one, []Holder{c.holder}, Options{}); err == nil {
		t.Fatal("an older catalog opens with a newer keyring as if nothing were")
	}
	v, err := Open(t.Context(), db, Dir(filepath.Join(c.dir, "one")), []Holder{c.holder}, Options{Restored: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range owners {
		_, err := v.OpenField(t.Context(), o, "t", []byte("row"), "c", before[i])
		if lives := i > 0; (err == nil) != lives {
			t.Errorf("owner %d: %v, want it open: %v", i, err, lives)
		}
	}
	if err := v.AddOwner(t.Context(), OfAssignment(holdfast.NewID[holdfast.AssignmentID]())); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), db, Dir(filepath.Join(c.dir, "one")), []Holder{c.holder}, Options{}); err != nil {
		t.Errorf("open once more: %v", err)
	}
}

// A copy has the head of who holds the root key now, and without a copy nobody comes
// or goes.
func TestCopiesFollowTheHolders(t *testing.T) {
	c := newCopied(t, 0)
	c.add(t, 2)
	second, err := CreateFileHolder(filepath.Join(t.TempDir(), "second.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	h := Registered(second, "second", "")
	one, two := c.one.Place, c.two.Place
	c.one.Place, c.two.Place = Dir(filepath.Join(c.dir, "gone")), Dir(filepath.Join(c.dir, "gone"))
	before := snapshot(t, filepath.Join(c.dir, "keyring"))
	if _, err := c.Join(t.Context(), h, true); holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "no such file") {
		t.Fatalf("a holder joins without a copy: %v", err)
	}
	if len(c.ring.boxes) != 1 || len(c.holders) != 1 {
		t.Errorf("%d boxes and %d holders afterwards", len(c.ring.boxes), len(c.holders))
	}
	if _, err := c.Leave(t.Context(), h); err != nil { // as `holder add` undoes it
		t.Fatal(err)
	}
	if heads, err := readHeads(c.place()); err != nil || len(heads) != 1 || len(heads[0].boxes) != 1 || len(snapshot(t, filepath.Join(c.dir, "keyring"))) != len(before) {
		t.Errorf("the keyring afterwards: %v", err)
	}
	c.one.Place, c.two.Place = one, two
	boxes := func(want int) {
		t.Helper()
		for _, p := range []Place{c.one, c.two} {
			c.same(t, p)
			if heads, err := readHeads(p); err != nil || len(heads) != 1 || len(heads[0].boxes) != want {
				t.Errorf("a copy is to name %d holders: %v", want, err)
			}
		}
	}
	c.tend(t)
	boxes(1)
	if _, err := c.Join(t.Context(), h, true); err != nil {
		t.Fatal(err)
	}
	boxes(2)
	taken := t.TempDir()
	if err := os.CopyFS(taken, os.DirFS(filepath.Join(c.dir, "one"))); err != nil {
		t.Fatal(err)
	}
	if v, err := Open(t.Context(), c.db, Dir(taken), []Holder{c.holder, h}, Options{}); err != nil || v.Generation() != c.Generation() {
		t.Errorf("the copy opens: %v", err)
	}
	if _, err := c.Leave(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	boxes(1)
	if _, err := c.Join(t.Context(), h, false); err != nil {
		t.Fatal(err)
	}
	c.Vault.opts.Fenced = []Fenced{{Name: "second", Kind: "file", Grade: Clear}}
	if _, err := c.LeaveFor(t.Context(), "second", "Ada Lovelace"); err != nil {
		t.Fatal(err)
	}
	boxes(1)
}

// A keyring that is opened where its copy lies leaves what lies beside it.
func TestACopysFolderIsOpenedAsItIs(t *testing.T) {
	c := newCopied(t, 0)
	owners := c.add(t, 3)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	one := filepath.Join(c.dir, "one")
	before := contents(t, one)
	for _, name := range []string{"page-" + strings.Repeat("ab", 16), listsName(9)} {
		if err := os.WriteFile(filepath.Join(one, name), []byte("litter"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v, err := Open(t.Context(), c.db, Dir(one), []Holder{c.holder}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if !v.HasOwner(owners[0]) || !strings.Contains(before, "beside generation 1") {
		t.Errorf("the copy lacks an owner's key, or what is beside it")
	}
	if after := contents(t, one); after != before {
		t.Errorf("%d bytes are left of %d", len(after), len(before))
	}
}
