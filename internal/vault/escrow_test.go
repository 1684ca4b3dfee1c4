package vault

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/escrow"
)

func dealt(t *testing.T) (escrow.Public, *escrow.Private) {
	t.Helper()
	p, shares, err := escrow.Deal("holdfast/test", 2, []string{"notary", "safe", "board"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	private, err := escrow.Combine(shares[1:])
	if err != nil {
		t.Fatal(err)
	}
	return p, private
}

// TestLostHolder: with the only holder lost, shareholders bring the root key back, of
// whatever generation it is by then, and what was erased stays erased.
func TestLostHolder(t *testing.T) {
	h := build(t)
	gone, stays := h.owner(), h.owner()
	box := h.field(stays)
	deal, private := dealt(t)
	if _, err := Recover(t.Context(), Dir(h.keyring()), private, nil); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("without a deal: %v", err)
	}
	if err := h.SetEscrow(t.Context(), &deal); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	if id, ok := h.Escrow(); !ok || id != deal.ID {
		t.Fatalf("after a start the deal is %v, %v", id, ok)
	}
	if _, err := h.Destroy(t.Context(), Destruction{Owners: []Owner{gone}}); err != nil {
		t.Fatal(err)
	}
	h.Close()
	if err := os.Remove(h.root); err != nil {
		t.Fatal(err)
	}

	_, strangers := dealt(t)
	fresh, err := CreateFileHolder(h.root, nil)
	if err != nil {
		t.Fatal(err)
	}
	before := contents(t, h.keyring())
	if _, err := Recover(t.Context(), Dir(h.keyring()), strangers, fresh); holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), deal.ID.String()) {
		t.Errorf("with shares of another deal: %v", err)
	}
	if after := contents(t, h.keyring()); after != before {
		t.Error("a refusal changes the keyring")
	}
	got, err := Recover(t.Context(), Dir(h.keyring()), private, fresh)
	if err != nil || got.Generation != 2 || len(got.Lost) != 0 {
		t.Fatalf("%+v: %v", got, err)
	}
	if h.Vault, err = Open(t.Context(), h.db, Dir(h.keyring()), []Holder{h.holder()}, Options{}); err != nil {
		t.Fatal(err)
	}
	if !h.opens(stays, box) {
		t.Error("what was kept does not open")
	}
	if h.HasOwner(gone) {
		t.Error("what was erased is back")
	}
	if _, err := h.Destroy(t.Context(), Destruction{Owners: []Owner{stays}}); err != nil {
		t.Errorf("the next erasure: %v", err)
	}
}

// TestOldHeadAndOldShares is why a certificate is pending until shares are gone: who
// kept a copy of an old head opens with the shares of its time what was erased since.
// A new deal ends that for what comes after it.
func TestOldHeadAndOldShares(t *testing.T) {
	h := build(t)
	first, second := h.owner(), h.owner()
	deal, private := dealt(t)
	if err := h.SetEscrow(t.Context(), &deal); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copied")
	if err := os.CopyFS(copied, os.DirFS(h.keyring())); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Destroy(t.Context(), Destruction{Owners: []Owner{first}}); err != nil {
		t.Fatal(err)
	}
	if got, err := Recover(t.Context(), Dir(copied), private, mustHolder(t)); err != nil || got.Generation != 1 {
		t.Errorf("%+v: %v", got, err)
	}

	again, _ := dealt(t)
	if err := h.SetEscrow(t.Context(), &again); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Destroy(t.Context(), Destruction{Owners: []Owner{second}}); err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(t.Context(), Dir(h.keyring()), private, mustHolder(t)); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("the first deal opens what the second is wrapped to: %v", err)
	}
	if err := h.SetEscrow(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	if _, ok := h.Escrow(); ok {
		t.Error("a deal that was ended is in force")
	}
}

func mustHolder(t *testing.T) *FileHolder {
	t.Helper()
	holder, err := CreateFileHolder(filepath.Join(t.TempDir(), "root.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return holder
}

// contents is what lies in a folder, as one text.
func contents(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(e.Name() + " " + string(b))
	}
	return out.String()
}

// TestCopiesHaveTheShareholdersBox: the box is in every copy of the keyring, which is
// what there is when the data folder is lost too.
func TestCopiesHaveTheShareholdersBox(t *testing.T) {
	c := newCopied(t, time.Minute)
	deal, private := dealt(t)
	if err := c.SetEscrow(t.Context(), &deal); err != nil {
		t.Fatal(err)
	}
	for _, copied := range c.options.Copies {
		if _, err := Recover(t.Context(), copied.Place, private, mustHolder(t)); err != nil {
			t.Errorf("copy %s: %v", copied.Name, err)
		}
	}
}

// A root key file takes its place whole, and never another's.
func TestRootKeyFileMoves(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	for _, path := range []string{first, second} {
		h, err := CreateFileHolder(path+".new", nil)
		if err == nil {
			err = h.Prepare(t.Context(), 1)
		}
		if err == nil {
			err = h.MoveTo(path)
		}
		if err == nil {
			err = h.Prepare(t.Context(), 2) // where it is now
		}
		if err != nil {
			t.Fatal(err)
		}
		if path == second {
			if err := h.MoveTo(first); holdfast.KindOf(err) != holdfast.Conflict {
				t.Errorf("onto another: %v", err)
			}
		}
	}
	if err := DiscardFileHolder(OSFiles(), second); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 || left[0] != first {
		t.Errorf("left: %v", left)
	}
	h, err := OpenFileHolder(first, nil)
	if err != nil {
		t.Fatal(err)
	}
	if has, err := h.Generations(t.Context()); err != nil || len(has) != 2 {
		t.Errorf("it has %v, %v", has, err)
	}
}
