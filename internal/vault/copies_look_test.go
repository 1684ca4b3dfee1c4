package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// besideFiles is a companion of some files, each of which only grows.
type besideFiles map[string]string

func (besideFiles) Prepare(context.Context, uint64) error { return nil }
func (b besideFiles) Files(context.Context) (map[string][sha256.Size]byte, error) {
	out := map[string][sha256.Size]byte{}
	for name, text := range b {
		out[name] = sha256.Sum256([]byte(text))
	}
	return out, nil
}
func (b besideFiles) File(_ context.Context, name string) ([]byte, error) {
	return []byte(b[name]), nil
}
func (besideFiles) Owns(name string) bool { return strings.HasPrefix(name, "beside") }
func (besideFiles) Follows(ours, theirs []byte) error {
	if !strings.HasPrefix(string(ours), string(theirs)) {
		return errors.New("has another history")
	}
	return nil
}

// counted is a place that ends after some changes, as a hub that is killed does.
type counted struct {
	Place
	left int
}

func (c *counted) Write(name string, data []byte) error {
	if c.left == 0 {
		return errors.New("killed")
	}
	c.left--
	return c.Place.Write(name, data)
}

// A copy gets all files or none, whichever of them shows that it is of another history,
// and a hub that is killed between two leaves the first ones.
func TestACopyIsLookedAtBeforeItIsWritten(t *testing.T) {
	c := newCopied(t, 0)
	ours := besideFiles{}
	for i := range 6 {
		ours[fmt.Sprintf("beside%d", i)] = fmt.Sprintf("abc%d", i)
	}
	for at := range 7 {
		for _, known := range []bool{false, true} {
			dir := t.TempDir()
			with := Copy{Name: "new", Place: Dir(dir), New: true}
			one := newCopies(Options{Copies: []Copy{with}}).all[0]
			c.Accompany(besideFiles{"beside0": "abc0"})
			if err := c.catchUp(t.Context(), one); err != nil {
				t.Fatal(err)
			}
			one.known = known
			other := filepath.Join(dir, fmt.Sprintf("beside%d", at)) // of number 6, this hub knows nothing
			if err := os.WriteFile(other, []byte("abX, longer than all of ours"), 0o600); err != nil {
				t.Fatal(err)
			}
			c.Accompany(ours)
			before := contents(t, dir)
			for range 2 {
				err := c.catchUp(t.Context(), one)
				if !isAhead(err) || holdfast.KindOf(err) != holdfast.Conflict || contents(t, dir) != before {
					t.Fatalf("file %d, known %v: %v; the copy was changed: %v", at, known, err, contents(t, dir) != before)
				}
			}
			one.known = false // the operator decides, and the hub starts anew
			if err := os.Remove(other); err != nil {
				t.Fatal(err)
			}
			one.Place = &counted{with.Place, at}
			err := c.catchUp(t.Context(), one)
			names, lerr := os.ReadDir(dir)
			if lerr != nil {
				t.Fatal(lerr)
			}
			seen := 0
			for _, e := range names {
				if strings.HasPrefix(e.Name(), "beside") {
					if want := fmt.Sprintf("beside%d", seen); at > 0 && e.Name() != want {
						t.Errorf("killed after %d: %s is there, and no %s", at, e.Name(), want)
					}
					seen++
				}
			}
			one.Place = with.Place
			if again := c.catchUp(t.Context(), one); again != nil || at == 0 && err == nil {
				t.Errorf("killed after %d (%v), and then: %v", at, err, again)
			}
		}
	}
}

// What another hub appended to a page is not overwritten by a hub that was in step.
func TestAnOwnerKeyOfAnotherHubIsNotOverwritten(t *testing.T) {
	c := newCopied(t, 0)
	c.add(t, 2)
	ring := t.TempDir()
	if err := os.CopyFS(ring, os.DirFS(filepath.Join(c.dir, "keyring"))); err != nil {
		t.Fatal(err)
	}
	other, err := recoverRing(t.Context(), c.db, Dir(ring), []Holder{c.holder}, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := newVault(c.db, Dir(ring), []Holder{c.holder}, c.options, other.ring)
	v.Accompany(&c.beside)
	if err := errors.Join(v.TendCopies(t.Context()), v.AddOwner(t.Context(), OfAssignment(holdfast.NewID[holdfast.AssignmentID]()))); err != nil {
		t.Fatal(err)
	}
	before := contents(t, filepath.Join(c.dir, "one"))
	for range 2 {
		if err := c.AddOwner(t.Context(), OfAssignment(holdfast.NewID[holdfast.AssignmentID]())); holdfast.KindOf(err) != holdfast.Unavailable {
			t.Errorf("add an owner: %v, want Unavailable", err)
		}
		c.tend(t)
	}
	if contents(t, filepath.Join(c.dir, "one")) != before {
		t.Error("the copy was written to")
	}
	for _, s := range c.Copies() {
		if !s.Ahead {
			t.Errorf("%+v, want it ahead", s)
		}
	}
}
