package vault

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// takeAway is what happens to the file of a root key while the hub runs. It returns how
// it comes back.
func takeAway(t *testing.T, path string) (back func()) {
	t.Helper()
	aside := filepath.Join(t.TempDir(), "aside")
	if err := os.Rename(path, aside); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Rename(aside, path); err != nil {
			t.Fatal(err)
		}
	}
}

// A root key file that is taken away while the hub runs does not answer: nothing is
// changed, and no other is made in its place. When it is back all goes on.
func TestNoRotationWithoutTheFileOfAHolder(t *testing.T) {
	for name, path := range map[string]func(p *pair) string{
		"the first":  func(p *pair) string { return p.root },
		"the second": func(p *pair) string { return p.second },
	} {
		t.Run(name, func(t *testing.T) {
			p := buildPair(t)
			dead, alive := p.owner(), p.owner()
			deadBox, aliveBox := p.field(dead), p.field(alive)
			before := p.Generation()
			file := path(p)
			back := takeAway(t, file)
			ring := snapshot(t, p.keyring())
			_, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{dead}})
			if holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "mount") || !strings.Contains(err.Error(), "holder fence") {
				t.Errorf("without the file: %v", err)
			}
			if _, err := os.Lstat(file); err == nil {
				t.Error("a root key file was made anew")
			}
			if p.Generation() != before || !slices.Equal(ring, snapshot(t, p.keyring())) {
				t.Error("something was changed")
			}
			if !p.opens(dead, deadBox) || !p.opens(alive, aliveBox) {
				t.Error("what is in memory does not open")
			}
			back()
			rot, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{dead}})
			if err != nil || len(rot.Holders) != 2 || p.opens(dead, deadBox) {
				t.Errorf("with the file back: %+v, %v", rot, err)
			}
			p.restart("file", "second")
			if p.opens(dead, deadBox) || !p.opens(alive, aliveBox) {
				t.Error("after a start")
			}
		})
	}
}

// So it is with the only holder.
func TestNoRotationWithoutTheOnlyFile(t *testing.T) {
	h := build(t)
	o := h.owner()
	back := takeAway(t, h.root)
	if _, err := h.Destroy(t.Context(), Destruction{Owners: []Owner{o}}); holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), h.root) {
		t.Errorf("without the file: %v", err)
	}
	if _, err := os.Lstat(h.root); err == nil {
		t.Fatal("a root key file was made anew")
	}
	back()
	if _, err := h.Destroy(t.Context(), Destruction{Owners: []Owner{o}}); err != nil {
		t.Error(err)
	}
}

// A file that is put back as it was, byte for byte and whatever its inode is, answers;
// an older one, or another hub's, does not, is not written over, and the error says which
// generation stands there and which is needed.
func TestOnlyTheSameFileAnswers(t *testing.T) {
	p := buildPair(t)
	first, second := p.owner(), p.owner()
	older, err := os.ReadFile(p.second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{first}}); err != nil {
		t.Fatal(err)
	}
	same, err := os.ReadFile(p.second)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(stranger(t).Path())
	if err != nil {
		t.Fatal(err)
	}
	for what, b := range map[string][]byte{"older": older, "another": other, "nothing": nil} {
		if err := os.WriteFile(p.second, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{second}})
		if holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), p.second) {
			t.Errorf("%s: %v", what, err)
		}
		if what == "older" && (!strings.Contains(err.Error(), "generation 1,") || !strings.Contains(err.Error(), "generation 2")) {
			t.Errorf("%s: %v", what, err)
		}
		if now, err := os.ReadFile(p.second); err != nil || !bytes.Equal(now, b) {
			t.Errorf("%s: it was written over, %v", what, err)
		}
		if p.Generation() != 2 {
			t.Errorf("%s: rotated", what)
		}
	}
	if err := os.Remove(p.second); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.second, same, 0o600); err != nil { // another inode
		t.Fatal(err)
	}
	if _, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{second}}); err != nil {
		t.Error(err)
	}
}

// A file that is taken away in the middle of a rotation, when the other holder has
// destroyed already, is not said to have destroyed. When it is back the next rotation
// begins with it.
func TestFileTakenAwayInTheMiddle(t *testing.T) {
	p := buildPair(t)
	dead, next := p.owner(), p.owner()
	box := p.field(dead)
	old := boxOf(t, p.ring.boxes, "second")
	var back func()
	p.holders[0] = before{p.holders[0], func() { back = takeAway(t, p.second) }}
	rot, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{dead}})
	if err == nil || len(rot.Holders) != 0 || !strings.Contains(err.Error(), p.second) {
		t.Errorf("in the middle: %+v, %v", rot, err)
	}
	if p.Generation() != 2 || p.opens(dead, box) {
		t.Error("the new generation is not in force")
	}
	if _, err := os.Lstat(p.second); err == nil {
		t.Error("a root key file was made anew")
	}
	p.holders[0] = p.holders[0].(before).Holder
	if _, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{next}}); err == nil {
		t.Error("went on without the file")
	}
	back()
	if _, err := p.file("second").Open(t.Context(), 1, old); err != nil {
		t.Errorf("what the file holds: %v", err)
	}
	if _, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{next}}); err != nil {
		t.Error(err)
	}
	if _, err := p.file("second").Open(t.Context(), 1, old); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("the file that came back still opens: %v", err)
	}
	p.restart("file", "second")
}

// A holder of any kind that answers from an empty store (a program whose folder is not
// mounted) has destroyed nothing.
func TestEmptyStoreDestroysNothing(t *testing.T) {
	p := buildPair(t)
	o := p.owner()
	whole := p.holders[1]
	p.holders[1] = emptied{whole}
	_, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{o}})
	if err == nil || p.Generation() != 1 || !strings.Contains(err.Error(), "second") || !strings.Contains(err.Error(), "holder fence") {
		t.Errorf("before a rotation: %v, generation %d", err, p.Generation())
	}
	// In the middle: what was just sealed there must still open.
	p.holders[1] = whole
	p.holders[0] = before{p.holders[0], func() { p.holders[1] = emptied{whole} }}
	rot, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{o}})
	if err == nil || len(rot.Holders) != 0 || !strings.Contains(err.Error(), "second") {
		t.Errorf("in the middle: %+v, %v", rot, err)
	}
	p.holders[0], p.holders[1] = p.holders[0].(before).Holder, whole
	if _, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{p.owner()}}); err != nil {
		t.Error(err)
	}
}

func boxOf(t *testing.T, boxes []holderBox, name string) []byte {
	t.Helper()
	i := slices.IndexFunc(boxes, func(b holderBox) bool { return b.name == name })
	if i < 0 {
		t.Fatalf("%s has no box", name)
	}
	return boxes[i].box
}

// before does something before the holder destroys.
type before struct {
	Holder
	do func()
}

func (b before) Destroy(ctx context.Context, below uint64) ([]byte, error) {
	b.do()
	return b.Holder.Destroy(ctx, below)
}

// emptied is a holder that answers, and has nothing.
type emptied struct{ Holder }

func (emptied) Generations(context.Context) ([]uint64, error)   { return nil, nil }
func (emptied) Destroy(context.Context, uint64) ([]byte, error) { return nil, nil }
func (emptied) Open(context.Context, uint64, []byte) (seal.Key, error) {
	return seal.Key{}, holdfast.Errorf(holdfast.NotFound, "gone")
}
