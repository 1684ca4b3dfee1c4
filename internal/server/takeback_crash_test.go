package server

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// fate is what befalls a copy of the keyring.
type fate int

const (
	fine   fate = iota
	full        // this one write fails
	killed      // it fails, and all after it
	torn        // half of the file is there, and nothing after it
	after       // it is there, and nothing after it
)

func (f fate) String() string {
	return [...]string{"fine", "full disk", "killed before", "torn file", "killed after"}[f]
}

// fated is a copy's place to which something happens at one of the changes to it.
type fated struct {
	vault.Place
	*doom
}

type doom struct {
	at   int // the change; those before it are well
	fate fate
	done int
	dead bool
}

func (d *doom) arm(at int, f fate) { *d = doom{at: at, fate: f} }

var errFate = errors.New("the copy is gone")

func (f fated) change(do func() error, half func() error) error {
	if f.dead {
		return errFate
	}
	f.done++
	if f.fate == fine || f.done != f.at {
		return do()
	}
	f.dead = f.fate != full
	switch f.fate {
	case torn:
		return errors.Join(half(), errFate)
	case after:
		return errors.Join(do(), errFate)
	}
	return errFate
}

func (f fated) Write(name string, data []byte) error {
	return f.change(func() error { return f.Place.Write(name, data) }, func() error { return f.Place.Write(name, data[:len(data)/2]) })
}

func (f fated) Create(files []vault.NewFile) error {
	return f.change(func() error { return f.Place.Create(files) }, func() error {
		return f.Place.Create([]vault.NewFile{{Name: files[0].Name, Data: files[0].Data[:len(files[0].Data)/2]}})
	})
}

func (f fated) Append(name string, at int64, data []byte) error {
	return f.change(func() error { return f.Place.Append(name, at, data) }, func() error { return f.Place.Append(name, at, data[:len(data)/2]) })
}

func (f fated) Remove(names ...string) error {
	return f.change(func() error { return f.Place.Remove(names...) }, func() error { return nil })
}

func (f fated) Read(name string) ([]byte, error) {
	if f.dead {
		return nil, errFate
	}
	return f.Place.Read(name)
}

// pushing is a hub with one copy of its keyring, to which things happen.
type pushing struct {
	*house
	kept string
	doom *doom
}

func newPushing(t *testing.T) *pushing {
	t.Helper()
	p := &pushing{kept: t.TempDir(), doom: &doom{}}
	g := Machine()
	g.Keyring = func(dir string) vault.Place {
		if dir == p.kept {
			return fated{vault.Dir(dir), p.doom}
		}
		return vault.Dir(dir)
	}
	p.house = newHouseOn(t, g)
	p.halt()
	if err := AddCopy(t.Context(), Config{Data: p.dir, RootKey: p.rootKey}, "safe", "file:"+p.kept); err != nil {
		t.Fatal(err)
	}
	p.start()
	return p
}

// copied reports whether the copy has a take-back, by its words.
func (p *pushing) copied(id string) bool {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(p.kept, takeBackPrefix+"*"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			p.t.Fatal(err)
		}
		if strings.Contains(string(b), `"kind":"erasure.accepted"`) && strings.Contains(string(b), `"id":"`+id+`"`) {
			return true
		}
	}
	return false
}

// whole fails unless the copy has every take-back there is, in one chain, and the
// keyring's newest head.
func (p *pushing) whole(when string) {
	p.t.Helper()
	if err := p.stores.vault.TendCopies(p.t.Context()); err != nil {
		p.t.Fatalf("%s: %v", when, err)
	}
	for _, c := range p.stores.vault.Copies() {
		if c.Late {
			p.t.Fatalf("%s: the copy is late: %s", when, c.Reason)
		}
	}
	files, err := takeBacksIn(p.kept)
	if err != nil {
		p.t.Fatalf("%s: %v", when, err)
	}
	got, err := p.ledger.ReadTakeBacks(p.t.Context(), files, p.stores.vault.Generation())
	if err != nil {
		p.t.Fatalf("%s: %v", when, err)
	}
	all, signed, err := p.ledger.TakeBacks(p.t.Context())
	if err != nil || got.Last != all || signed != all || got.Short != "" {
		p.t.Fatalf("%s: the copy has %d take-backs, %d are signed, there are %d: %q, %v", when, got.Last, signed, all, got.Short, err)
	}
}

// finally revokes a device, pushes that, and erases its owner, while something befalls
// the copy at one of its changes. It returns how many of them there were and whether
// the erasure has to wait.
func (p *pushing) finally(at int, f fate) (changes int, waits bool) {
	p.t.Helper()
	ctx, when := p.t.Context(), fmt.Sprintf("%s at change %d", f, at)
	o := p.owner(when)
	device := p.enrolled(o.Party, when+", enrolled")
	p.whole(when + ", before")
	p.doom.arm(at, f)
	if err := p.identity.Revoke(ctx, device.Device, "lost"); err != nil {
		p.t.Fatal(err)
	}
	if err := p.stores.vault.TendCopies(ctx); err != nil {
		p.t.Fatal(err)
	}
	e := p.ask(o)
	p.Server.erasure.Once(ctx) // it fails if the copy takes nothing
	changes = p.doom.done
	e, err := p.Server.erasure.Erasure(ctx, e.ID)
	if err != nil {
		p.t.Fatal(err)
	}
	waits = e.State == erasure.Asked
	dead := !p.stores.vault.HasOwner(vault.OfParty(o.Party))
	if dead == waits {
		p.t.Errorf("%s: the erasure is %s, its key is dead: %v", when, e.State, dead)
	}
	if dead && !p.copied(e.ID.String()) {
		p.t.Errorf("%s: a key is dead and no copy knows why", when)
	}
	if !p.doom.dead {
		return changes, waits
	}
	p.halt() // as a crash does
	p.doom.arm(0, fine)
	p.start()
	if e, err = p.Server.erasure.Erasure(ctx, e.ID); err != nil || e.State == erasure.Asked {
		p.t.Errorf("%s: after a restart the erasure is %s, %v", when, e.State, err)
	}
	return changes, waits
}

// Whatever befalls the copy at whatever step, an owner's key dies only when the copy
// has the take-back of its erasure; after a restart it has all of them, in one chain.
func TestNothingIsFinalBeforeACopyHasIt(t *testing.T) {
	p := newPushing(t)
	changes, waits := p.finally(0, fine)
	if waits || changes < 4 {
		t.Fatalf("the copy was changed %d times, and the erasure waits: %v", changes, waits)
	}
	waited, fell := 0, map[fate]int{}
	for at := 1; at <= changes; at++ {
		for _, f := range []fate{full, killed, torn, after} {
			done, waits := p.finally(at, f)
			if waits {
				waited++
			}
			if done >= at {
				fell[f]++
			}
		}
	}
	t.Logf("%d changes, %d erasures waited", changes, waited)
	if waited == 0 || len(fell) != 4 {
		t.Errorf("%d erasures waited; it befell the copy: %v", waited, fell)
	}
	p.whole("in the end")
}

// A copy that was away while batches came, and one that has lost some, have all of them
// when they are back, whether the hub has started anew or not.
func TestACopyWithAHoleIsFilled(t *testing.T) {
	p := newPushing(t)
	p.whole("at first")
	taken := func(n int) {
		t.Helper()
		all := make([]ledger.TakeBack, n)
		for i := range all {
			all[i] = ledger.TakeBack{Kind: ledger.CodeEnded, ID: holdfast.NewID[ledger.TakenID]()}
		}
		if err := p.stores.catalog.Write(t.Context(), func(tx *sql.Tx) error { return ledger.AddTakeBacks(t.Context(), tx, all...) }); err != nil {
			t.Fatal(err)
		}
	}
	p.doom.arm(1, killed)
	taken(2500)
	if err := p.stores.vault.TendCopies(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := p.stores.vault.Copies(); !c[0].Late {
		t.Fatalf("a copy that is gone is not late: %+v", c)
	}
	taken(1)
	p.doom.arm(0, fine) // it returns
	p.whole("after it was away")
	for _, restart := range []bool{true, false} {
		files, err := filepath.Glob(filepath.Join(p.kept, takeBackPrefix+"*"))
		if err != nil || len(files) != 3 {
			t.Fatalf("%d files, %v", len(files), err)
		}
		if err := errors.Join(os.Remove(files[1]), os.Truncate(files[0], 1000)); err != nil {
			t.Fatal(err)
		}
		if restart {
			p.halt()
			p.start()
		}
		for range len(files) - 1 { // each time one is looked at
			taken(1)
			if err := p.stores.vault.TendCopies(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		p.whole(fmt.Sprintf("after it lost some, restarted: %v", restart))
	}
}
