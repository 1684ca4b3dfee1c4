package vault

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// unmount has an empty folder in the place of a copy's, as under a mount point.
func unmount(t *testing.T, dir string) (mount func()) {
	t.Helper()
	if err := os.Rename(dir, dir+".disk"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(dir); err != nil { // nothing was written there
			t.Error(err)
			os.RemoveAll(dir)
		}
		if err := os.Rename(dir+".disk", dir); err != nil {
			t.Fatal(err)
		}
	}
}

// A copy whose disk is not mounted is late, whatever the hub does, and nothing is begun
// in the folder under it; it is caught up when the disk is back.
func TestACopyIsNotBegunUnderAMountPoint(t *testing.T) {
	c := newCopied(t, 0)
	owners := c.add(t, 3)
	two := filepath.Join(c.dir, "two")
	away := func(what string) {
		t.Helper()
		if why := c.late("two"); !strings.Contains(why, "mounted") {
			t.Errorf("%s: two is late for %q", what, why)
		}
	}
	mount := unmount(t, two)
	c.tend(t)
	away("a look")
	if _, err := c.Destroy(t.Context(), Destruction{Owners: owners[:1]}); err != nil {
		t.Fatal(err)
	}
	c.add(t, PageEntries)
	c.tend(t)
	away("a rotation, a new page and a look")
	mount()
	c.tend(t)
	if why := c.late("two"); why != "" {
		t.Errorf("with its disk: %s", why)
	}
	c.same(t, c.two)

	// The rotation is the first to find it.
	mount = unmount(t, two)
	if _, err := c.Destroy(t.Context(), Destruction{Owners: owners[1:2]}); err != nil {
		t.Fatal(err)
	}
	if why := c.late("two"); why == "" {
		t.Error("a rotation has a folder without a keyring in step")
	}
	mount()
	// So is a start.
	mount = unmount(t, two)
	v, err := Open(t.Context(), c.db, c.place(), []Holder{c.holder}, c.options)
	if err != nil {
		t.Fatal(err)
	}
	c.Vault = v
	c.Accompany(&c.beside)
	c.tend(t)
	away("a start")
	mount()
	c.tend(t)
	c.same(t, c.two)
}

// With no other copy nothing can be added, and the reason is the copy's own.
func TestTheReasonOfALateCopyStays(t *testing.T) {
	c := newCopied(t, 0)
	owners := c.add(t, 2)
	c.one.fail.Store(true)
	c.two.fail.Store(true)
	if _, err := c.Destroy(t.Context(), Destruction{Owners: owners[:1]}); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("a rotation without a copy: %v", err)
	}
	for _, name := range []string{"one", "two"} {
		if why := c.late(name); !strings.Contains(why, "no space") {
			t.Errorf("%s is late for %q", name, why)
		}
	}
}
