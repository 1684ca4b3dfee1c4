package vault

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// In the same generation a newer folder may differ from an older one by a page alone,
// which is full of keys that the older has not heard of; the pages that both have are
// the same. The older one leaves the copy's head, which names that page.
func TestAPageThatOnlyTheCopyHasIsKept(t *testing.T) {
	c := newCopied(t, 0)
	c.add(t, PageEntries-c.Owners())
	old := t.TempDir()
	if err := os.CopyFS(old, os.DirFS(filepath.Join(c.dir, "keyring"))); err != nil {
		t.Fatal(err)
	}
	c.add(t, 1)
	if pages, _ := filepath.Glob(filepath.Join(c.dir, "one", "page-*")); len(pages) != 2 {
		t.Fatalf("the copy has %d pages: the test fills none", len(pages))
	}
	before := contents(t, filepath.Join(c.dir, "one"))
	ring, err := recoverRing(t.Context(), c.db, Dir(old), []Holder{c.holder}, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := newVault(c.db, Dir(old), []Holder{c.holder}, c.options, ring.ring)
	for range 2 {
		if err := v.TendCopies(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range v.Copies() {
		if !s.Ahead || !strings.Contains(s.Reason, "does not have") {
			t.Errorf("an older folder without the page: %+v, want the copy ahead", s)
		}
	}
	if contents(t, filepath.Join(c.dir, "one")) != before {
		t.Error("the copy was written to")
	}
}

// What somebody else put in place of a copy's head is not written over unseen: the copy
// is late until all of it was looked at.
func TestAHeadThatIsNotOursIsLookedAt(t *testing.T) {
	c := newCopied(t, 0)
	c.add(t, PageEntries-c.Owners())
	head := filepath.Join(c.dir, "one", headName(c.Generation()))
	if err := os.WriteFile(head, []byte("another's"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.add(t, 1) // makes a page, and a head that names it
	if why := c.late("one"); !strings.Contains(why, "is not what this hub gave it") || c.late("two") != "" {
		t.Errorf("one is late for %q, two for %q", why, c.late("two"))
	}
	if b, err := os.ReadFile(head); err != nil || string(b) != "another's" {
		t.Errorf("the head was written over: %d bytes, %v", len(b), err)
	}
	c.tend(t) // it tells of nothing that this hub does not know
	c.same(t, c.one)
}

// behind lets a copy miss something, and puts something of another history beside it.
func (c *copied) behind(t *testing.T, beside string, which ...*faulty) {
	t.Helper()
	for _, f := range which {
		f.fail.Store(true)
	}
	if err := c.AddOwner(t.Context(), OfAssignment(holdfast.NewID[holdfast.AssignmentID]())); (err == nil) != (len(which) < 2) {
		t.Fatal(err)
	}
	for _, f := range which {
		f.fail.Store(false)
		if err := f.Place.Write("beside", []byte(beside)); err != nil {
			t.Fatal(err)
		}
	}
}

// A copy that is late and knows the generation that a rotation is about to make is found
// ahead before the hub says that generation itself, and stays so: then it would look as
// if it were the hub's own.
func TestARotationLooksAtLateCopiesFirst(t *testing.T) {
	c := newCopied(t, 0)
	owners := c.add(t, 2)
	c.behind(t, "generation 2", c.one)
	before := contents(t, filepath.Join(c.dir, "one"))
	if _, err := c.Destroy(t.Context(), Destruction{Owners: owners[:1]}); err != nil || c.Generation() != 2 {
		t.Fatalf("with one copy in step: generation %d, %v", c.Generation(), err)
	}
	c.tend(t)
	if contents(t, filepath.Join(c.dir, "one")) != before || !strings.Contains(c.late("one"), "another hub of the same keyring") {
		t.Errorf("a copy of generation 2 from elsewhere is written to, or taken for the hub's: late for %q", c.late("one"))
	}
	c.same(t, c.two)
}

// With no copy but such a rotation does not begin: the hub says no next generation.
func TestARotationDoesNotBeginWithCopiesAheadAlone(t *testing.T) {
	c := newCopied(t, 0)
	owners := c.add(t, 2)
	c.behind(t, "generation 2", c.one, c.two)
	if _, err := c.Destroy(t.Context(), Destruction{Owners: owners[:1]}); holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "another hub of the same keyring") {
		t.Errorf("destroy: %v", err)
	}
	if said := c.beside.text.Load().(string); said != "generation 1" || c.Generation() != 1 {
		t.Errorf("it is said beside the keyring: %s, which is of generation %d", said, c.Generation())
	}
}
