package vault

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// pair is a house whose root key two files hold.
type pair struct {
	*house
	second string
	fenced []Fenced
	said   []Statement
}

func buildPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{house: build(t), second: filepath.Join(t.TempDir(), "second.key")}
	h, err := CreateFileHolder(p.second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Join(t.Context(), Registered(h, "second", ""), true); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pair) file(name string) Holder {
	p.t.Helper()
	path := p.root
	if name == "second" {
		path = p.second
	}
	h, err := OpenFileHolder(path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return Registered(h, name, "")
}

// start opens the vault as a start does, with those who are not fenced.
func (p *pair) start(holders ...Holder) error {
	p.t.Helper()
	v, err := Open(p.t.Context(), p.db, Dir(p.keyring()), holders, Options{Fenced: p.fenced, Statements: p.said})
	if err == nil {
		p.Vault = v
	}
	return err
}

func (p *pair) restart(names ...string) {
	p.t.Helper()
	var holders []Holder
	for _, name := range names {
		holders = append(holders, p.file(name))
	}
	if err := p.start(holders...); err != nil {
		p.t.Fatalf("start with %v: %v", names, err)
	}
}

func (p *pair) fence(name string) {
	p.fenced = append(p.fenced, Fenced{Name: name, Kind: "file", Grade: Clear})
}

// Any one of two opens what both hold; both destroy.
func TestAnyHolderOpensAllDestroy(t *testing.T) {
	p := buildPair(t)
	dead, alive := p.owner(), p.owner()
	deadBox, aliveBox := p.field(dead), p.field(alive)
	old, err := os.ReadFile(filepath.Join(p.keyring(), headName(1)))
	if err != nil {
		t.Fatal(err)
	}
	rot, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{dead}})
	if err != nil || len(rot.Holders) != 2 {
		t.Fatalf("%+v, %v", rot, err)
	}
	for _, e := range rot.Holders {
		if e.State != HolderDestroyed || e.Kind != "file" || e.At.IsZero() {
			t.Errorf("evidence %+v", e)
		}
	}
	head, err := parseHead(old)
	if err != nil || len(head.boxes) != 2 {
		t.Fatalf("%d boxes, %v", len(head.boxes), err)
	}
	for _, b := range head.boxes {
		if _, err := p.file(b.name).Open(t.Context(), 1, b.box); holdfast.KindOf(err) != holdfast.NotFound {
			t.Errorf("the old box of %s: %v", b.name, err)
		}
	}
	for _, lost := range []string{"file", "second"} {
		p.fenced = nil
		p.fence(lost)
		p.restart(map[string]string{"file": "second", "second": "file"}[lost])
		if !p.opens(alive, aliveBox) || p.opens(dead, deadBox) {
			t.Errorf("without %s", lost)
		}
	}
}

// A holder that is not there, and not fenced, stops the start and changes nothing.
func TestHolderThatDoesNotAnswerStopsTheStart(t *testing.T) {
	p := buildPair(t)
	before := snapshot(t, p.keyring(), p.root, p.second)
	for name, holder := range map[string]Holder{
		"away":             away{p.file("second")},
		"of another hub":   Registered(stranger(t), "second", ""),
		"with another key": otherKey{p.file("second")},
	} {
		err := p.start(p.file("file"), holder)
		if err == nil || !strings.Contains(err.Error(), "second") || !strings.Contains(err.Error(), "holdfast holder fence") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Nor do holders that the head does not know, or that nobody has registered.
	for name, holders := range map[string][]Holder{
		"left out": {p.file("file")}, "one more": {p.file("file"), p.file("second"), Registered(p.holder(), "third", "")},
	} {
		if err := p.start(holders...); holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), "Nothing was changed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := snapshot(t, p.keyring(), p.root, p.second); !slices.Equal(got, before) {
		t.Error("something was changed")
	}
	p.restart("file", "second")
}

func snapshot(t *testing.T, dir string, more ...string) (out []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, more...) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, name+string(b))
	}
	return out
}

var errAway = holdfast.Errorf(holdfast.Unavailable, "the line is dead")

type away struct{ Holder }

func (away) Generations(context.Context) ([]uint64, error)   { return nil, errAway }
func (away) Prepare(context.Context, uint64) error           { return errAway }
func (away) Destroy(context.Context, uint64) ([]byte, error) { return nil, errAway }
func (away) Open(context.Context, uint64, []byte) (seal.Key, error) {
	return seal.Key{}, errAway
}

type otherKey struct{ Holder }

func (otherKey) Open(context.Context, uint64, []byte) (seal.Key, error) { return seal.NewKey(), nil }

// stranger is another hub's holder, of the same generation.
func stranger(t *testing.T) *FileHolder {
	t.Helper()
	h, err := CreateFileHolder(filepath.Join(t.TempDir(), "root.key"), nil)
	if err == nil {
		err = h.Prepare(t.Context(), 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func fresh(t *testing.T) *FileHolder {
	t.Helper()
	h, err := CreateFileHolder(filepath.Join(t.TempDir(), "root.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A fenced holder is named as pending until it has returned; then what it says
// completes the rotations of meanwhile, and its old boxes are dead.
func TestFencedHolderIsPendingUntilItReturns(t *testing.T) {
	p := buildPair(t)
	dead, late := p.owner(), p.owner()
	p.field(dead)
	old, err := os.ReadFile(filepath.Join(p.keyring(), headName(1)))
	if err != nil {
		t.Fatal(err)
	}
	p.fence("second")
	p.restart("file")
	rot, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{dead}})
	if err != nil || len(rot.Holders) != 2 || rot.Holders[1].Holder != "second" || rot.Holders[1].State != HolderPending {
		t.Fatalf("%+v, %v", rot, err)
	}
	if _, done := p.Completed("second", rot.To); done || len(p.Pending()) != 1 {
		t.Error("completed before it returned")
	}
	head, err := parseHead(old)
	if err != nil {
		t.Fatal(err)
	}
	box := head.boxes[1].box
	if _, err := p.file("second").Open(t.Context(), 1, box); err != nil {
		t.Fatalf("that is why it is pending: %v", err)
	}
	said, err := p.Join(t.Context(), p.file("second"), false)
	if err != nil || said.Below != rot.To {
		t.Fatalf("%+v, %v", said, err)
	}
	if e, done := p.Completed("second", rot.To); !done || e.State != HolderDestroyed || len(p.Pending()) > 0 {
		t.Errorf("not completed: %+v", e)
	}
	if _, done := p.Completed("second", rot.To+1); done {
		t.Error("completes what it was not asked for")
	}
	if _, err := p.file("second").Open(t.Context(), 1, box); err == nil {
		t.Error("an old box opens")
	}
	// From here on it has a part like any other.
	p.fenced, p.said = nil, []Statement{said}
	p.restart("file", "second")
	if _, done := p.Completed("second", rot.To); !done {
		t.Error("forgotten at the start")
	}
	if rot, err = p.Destroy(t.Context(), Destruction{Owners: []Owner{late}}); err != nil || rot.Holders[1].State != HolderDestroyed {
		t.Errorf("%+v, %v", rot, err)
	}
}

// A holder may leave if another stays, and holds nothing then.
func TestHolderLeaves(t *testing.T) {
	p := buildPair(t)
	o := p.owner()
	box := p.field(o)
	if said, err := p.Leave(t.Context(), p.file("second")); err != nil || said.Below != 2 {
		t.Fatalf("%+v, %v", said, err)
	}
	if gens, err := p.file("second").Generations(t.Context()); err != nil || len(gens) > 0 {
		t.Errorf("it holds %v, %v", gens, err)
	}
	if _, err := p.Leave(t.Context(), p.file("file")); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("the last one leaves: %v", err)
	}
	p.restart("file")
	if !p.opens(o, box) {
		t.Error("the owner is lost")
	}
	// Of one that is fenced somebody may answer.
	h, err := CreateFileHolder(p.second+".3", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Join(t.Context(), Registered(h, "third", ""), true); err != nil {
		t.Fatal(err)
	}
	if _, err := p.LeaveFor(t.Context(), "third", "Ada Lovelace"); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("of one that is asked: %v", err)
	}
	p.fence("third")
	p.restart("file")
	if said, err := p.LeaveFor(t.Context(), "third", "Ada Lovelace"); err != nil || said.Vouched != "Ada Lovelace" || said.State != HolderDestroyed {
		t.Errorf("%+v, %v", said, err)
	}
	p.fenced = nil
	p.restart("file")
}

// Whose place holds keys already does not join: they may be another hub's. Nor does
// one that can't do what it must; the keyring is as it was.
func TestHolderThatDoesNotJoin(t *testing.T) {
	p := buildPair(t)
	other := stranger(t)
	for name, h := range map[string]Holder{
		"another hub's": other, "away": away{other}, "twice": p.file("second"), "with another key": otherKey{fresh(t)},
	} {
		if name != "twice" {
			h = Registered(h, "third", "")
		}
		if _, err := p.Join(t.Context(), h, true); err == nil {
			t.Errorf("%s joined", name)
		}
	}
	if gens, err := other.Generations(t.Context()); err != nil || len(gens) != 1 {
		t.Errorf("the other hub's key: %v, %v", gens, err)
	}
	p.restart("file", "second")
}

// liar says that it has destroyed, and has not.
type liar struct{ Holder }

func (liar) Destroy(context.Context, uint64) ([]byte, error) { return nil, nil }

// deaf has destroyed, says so, and fails when it is tried.
type deaf struct {
	Holder
	now *bool
}

func (d deaf) Open(ctx context.Context, n uint64, box []byte) (seal.Key, error) {
	if *d.now {
		return seal.Key{}, errAway
	}
	return d.Holder.Open(ctx, n, box)
}

func (d deaf) Destroy(ctx context.Context, below uint64) ([]byte, error) {
	*d.now = true
	return d.Holder.Destroy(ctx, below)
}

// No holder is believed: the first that lies undoes the rotation, a later one leaves
// it uncertified.
func TestHolderThatLiesIsNotBelieved(t *testing.T) {
	for _, first := range []bool{true, false} {
		p := buildPair(t)
		dead, alive := p.owner(), p.owner()
		deadBox, aliveBox := p.field(dead), p.field(alive)
		p.holders = []Holder{p.file("file"), liar{p.file("second")}}
		if first {
			p.holders = []Holder{liar{p.file("file")}, p.file("second")}
		}
		d := Destruction{Owners: []Owner{dead}}
		rot, err := p.Destroy(t.Context(), d)
		if err == nil || rot.To != 0 || !strings.Contains(err.Error(), "lies") {
			t.Fatalf("first %v: %+v, %v", first, rot, err)
		}
		if p.opens(dead, deadBox) != first || !p.opens(alive, aliveBox) {
			t.Errorf("first %v: half of it happened", first)
		}
		if _, err := p.Destroy(t.Context(), d); err == nil {
			t.Error("certified at the second try")
		}
		p.holders = []Holder{p.file("file"), p.file("second")}
		if rot, err = p.Destroy(t.Context(), d); err != nil || len(rot.Holders) != 2 {
			t.Errorf("first %v: %+v, %v", first, rot, err)
		}
		p.restart("file", "second")
		if p.opens(dead, deadBox) || !p.opens(alive, aliveBox) {
			t.Errorf("first %v: after a restart", first)
		}
	}
}

func TestFailureIsNoProofOfDestruction(t *testing.T) {
	p := buildPair(t)
	dead := p.owner()
	var now bool
	p.holders = []Holder{p.file("file"), deaf{p.file("second"), &now}}
	if rot, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{dead}}); !errors.Is(err, errAway) || rot.To != 0 {
		t.Errorf("%+v, %v", rot, err)
	}
	p.holders = []Holder{p.file("file"), p.file("second")}
	if _, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{dead}}); err != nil {
		t.Error(err)
	}
}

// A rotation that was given up has used its number.
func TestNumbersAreUsedOnce(t *testing.T) {
	p := buildPair(t)
	p.holders = []Holder{liar{p.file("file")}, p.file("second")}
	for range 3 {
		if _, err := p.Destroy(t.Context(), Destruction{}); err == nil {
			t.Fatal("a liar was believed")
		}
	}
	p.restart("file", "second") // what knows the numbers are the holders
	rot, err := p.Destroy(t.Context(), Destruction{})
	if err != nil || rot.From != 1 || rot.To != 5 {
		t.Errorf("%+v, %v", rot, err)
	}
	for _, name := range []string{"file", "second"} {
		if gens, err := p.file(name).Generations(t.Context()); err != nil || !slices.Equal(gens, []uint64{5}) {
			t.Errorf("%s holds %v, %v", name, gens, err)
		}
	}
}

// cut stops a rotation behind the commit point of one holder, as a crash would.
type cut struct {
	Holder
	done bool
}

var errCut = errors.New("the power is gone")

func (c cut) Destroy(ctx context.Context, below uint64) ([]byte, error) {
	if c.done {
		c.Holder.Destroy(ctx, below)
	}
	panic(errCut)
}

// The power goes in the middle of a rotation, and one of the holders does not come
// back: whoever is fenced, a start finds one generation whole.
func TestHolderFencedInTheMiddleOfARotation(t *testing.T) {
	for _, c := range []struct {
		at, done  int // whose destruction is cut short, and whether it was done
		lost      string
		destroyed bool
	}{
		{0, 0, "second", false}, {0, 1, "second", true}, {0, 1, "file", false}, {0, 0, "file", false},
		{1, 0, "second", true}, {1, 1, "file", true}, {1, 0, "file", false},
	} {
		p := buildPair(t)
		dead, alive := p.owner(), p.owner()
		deadBox, aliveBox := p.field(dead), p.field(alive)
		p.holders = []Holder{p.file("file"), p.file("second")}
		p.holders[c.at] = cut{p.holders[c.at], c.done == 1}
		func() {
			defer func() {
				if r := recover(); r != errCut {
					t.Fatalf("%v", r)
				}
			}()
			p.Destroy(t.Context(), Destruction{Owners: []Owner{dead}})
		}()
		p.Vault = nil // its locks are held for ever
		p.fence(c.lost)
		left := map[string]string{"file": "second", "second": "file"}[c.lost]
		p.restart(left)
		if p.opens(dead, deadBox) == c.destroyed || !p.opens(alive, aliveBox) {
			t.Errorf("%+v: generation %d", c, p.Generation())
		}
		// The one that is lost comes back, and brings nothing with it.
		if _, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{dead}}); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if _, err := p.Join(t.Context(), p.file(c.lost), false); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		p.fenced = nil
		p.restart("file", "second")
		if p.opens(dead, deadBox) || !p.opens(alive, aliveBox) {
			t.Errorf("%+v: after it returned", c)
		}
	}
}

// What was done under a new generation is not lost when the holder is fenced that
// had put it in force.
func TestFencingDoesNotBringAnOldGenerationBack(t *testing.T) {
	p := buildPair(t)
	dead := p.owner()
	before := t.TempDir()
	if err := os.CopyFS(before, os.DirFS(p.keyring())); err != nil {
		t.Fatal(err)
	}
	broken := &brokenDestroy{Holder: p.file("second")}
	p.holders = []Holder{p.file("file"), broken}
	if rot, err := p.Destroy(t.Context(), Destruction{Owners: []Owner{dead}}); err == nil || rot.To != 0 {
		t.Fatalf("%+v, %v", rot, err)
	}
	late := p.owner()
	box := p.field(late)
	// What a crash might have left: the holder that stays still opens the old head.
	names, err := os.ReadDir(before)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range names {
		b, err := os.ReadFile(filepath.Join(before, e.Name()))
		if err == nil && !exists(filepath.Join(p.keyring(), e.Name())) {
			err = os.WriteFile(filepath.Join(p.keyring(), e.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if gens, err := p.file("second").Generations(t.Context()); err != nil || !slices.Equal(gens, []uint64{1, 2}) {
		t.Fatalf("the second holds %v, %v", gens, err)
	}
	p.fence("file")
	p.restart("second")
	if p.Generation() != 2 || !p.opens(late, box) || p.HasOwner(dead) {
		t.Errorf("generation %d", p.Generation())
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

type brokenDestroy struct{ Holder }

func (brokenDestroy) Destroy(context.Context, uint64) ([]byte, error) { return nil, errAway }

// hanging does not answer before the context ends.
type hanging struct{ Holder }

func (hanging) Destroy(ctx context.Context, below uint64) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestHolderThatHangsIsNamed(t *testing.T) {
	file := fresh(t)
	synctest.Test(t, func(t *testing.T) {
		h := &hanging{Registered(file, "second", "")}
		b := bound([]Holder{h}, Options{})[0]
		_, err := b.Destroy(t.Context(), 2)
		if holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "holder second hangs: it did not answer within 30s") {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Destroy(ctx, 2); !errors.Is(err, context.Canceled) {
			t.Errorf("when who asked goes away: %v", err)
		}
	})
}
