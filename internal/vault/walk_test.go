package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// walk makes the nth operation on a place or a holder go wrong, and no other.
type walk struct {
	flavour
	mu   sync.Mutex
	n    int
	dead chan struct{} // closed when the process has died
}

// flavour is how an operation goes wrong: it is done or not, and then it fails, or
// the process is killed.
type flavour struct{ done, kill bool }

func (f flavour) String() string {
	return map[bool]string{true: "done and ", false: "not done and "}[f.done] + map[bool]string{true: "killed", false: "failed"}[f.kill]
}

// do does op, or as much of it as half does, if it is the one.
func (w *walk) do(op, half func() error) error {
	w.mu.Lock()
	w.n--
	hit := w.n == 0
	w.mu.Unlock()
	if !hit {
		return op()
	}
	if w.done {
		op()
	} else if half != nil {
		half()
	}
	if w.kill {
		close(w.dead)
		select {} // nothing that this process would do is done
	}
	return errFault
}

// end reports whether the operation was reached; from here on none goes wrong.
func (w *walk) end() (reached bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	reached, w.n = w.n <= 0, 0
	return reached
}

type walkedPlace struct {
	Place
	*walk
}

func (p walkedPlace) Write(name string, b []byte) error {
	return p.do(func() error { return p.Place.Write(name, b) }, nil)
}
func (p walkedPlace) Create(files []NewFile) error {
	return p.do(func() error { return p.Place.Create(files) }, func() error {
		return p.Place.Create([]NewFile{{files[0].Name, files[0].Data[:len(files[0].Data)/2]}})
	})
}
func (p walkedPlace) Append(name string, at int64, b []byte) error {
	return p.do(func() error { return p.Place.Append(name, at, b) }, func() error { return p.Place.Append(name, at, b[:len(b)/2]) })
}
func (p walkedPlace) Remove(names ...string) error {
	return p.do(func() error { return p.Place.Remove(names...) }, func() error { return p.Place.Remove(names[:len(names)/2]...) })
}
func (p walkedPlace) Read(name string) (b []byte, err error) {
	err = p.do(func() error { b, err = p.Place.Read(name); return err }, nil)
	return b, err
}
func (p walkedPlace) ReadAt(name string, b []byte, at int64) error {
	return p.do(func() error { return p.Place.ReadAt(name, b, at) }, nil)
}
func (p walkedPlace) List() (names []string, err error) {
	err = p.do(func() error { names, err = p.Place.List(); return err }, nil)
	return names, err
}

type walkedHolder struct {
	Holder
	*walk
}

func (h walkedHolder) Generations(ctx context.Context) (out []uint64, err error) {
	err = h.do(func() error { out, err = h.Holder.Generations(ctx); return err }, nil)
	return out, err
}
func (h walkedHolder) Prepare(ctx context.Context, n uint64) error {
	return h.do(func() error { return h.Holder.Prepare(ctx, n) }, nil)
}
func (h walkedHolder) Seal(ctx context.Context, n uint64, root seal.Key) (box []byte, err error) {
	err = h.do(func() error { box, err = h.Holder.Seal(ctx, n, root); return err }, nil)
	return box, err
}
func (h walkedHolder) Open(ctx context.Context, n uint64, box []byte) (root seal.Key, err error) {
	var opened error
	if err = h.do(func() error { root, opened = h.Holder.Open(ctx, n, box); return opened }, nil); opened == nil && err != nil {
		root.Wipe()
	}
	return root, err
}
func (h walkedHolder) Destroy(ctx context.Context, below uint64) (said []byte, err error) {
	err = h.do(func() error { said, err = h.Holder.Destroy(ctx, below); return err }, nil)
	return said, err
}

// terrain is what a walk goes over: how a vault is set up, and what goes on beside.
type terrain struct {
	roots    int
	shares   bool // the root key is wrapped to shareholders
	copied   bool
	allPages bool
	growing  bool
}

// trail is a folder with a vault, and what must become of what is in it.
type trail struct {
	t   *testing.T
	at  string // for messages
	dir string
	terrain
	*pathData
	db *catalog.DB
	*Vault
	added map[Owner][]byte // beside the destruction
}

// pathData is the same in each copy of a folder.
type pathData struct {
	dead, alive, part          Owner
	deadBox, aliveBox, partBox []byte
	keep, drop                 holdfast.StreamID
	journal                    seal.KeyID // of part, since the Barrier
	deal                       escrow.ID
}

func (p *trail) place() Place { return Dir(filepath.Join(p.dir, "keyring")) }
func (p *trail) copy() Place  { return Dir(filepath.Join(p.dir, "copy")) }

func (p *trail) files() (out []Holder) {
	for i := range p.roots {
		path := filepath.Join(p.dir, fmt.Sprintf("root%d.key", i))
		open := OpenFileHolder
		if _, err := os.Lstat(path); err != nil {
			open = CreateFileHolder
		}
		h, err := open(path, nil)
		p.must(err)
		out = append(out, Registered(h, fmt.Sprint("holder", i), ""))
	}
	return out
}

func (p *trail) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%s: %v", p.at, err)
	}
}

func (p *trail) openCatalog() {
	var err error
	p.db, err = catalog.Open(p.t.Context(), p.dir, catalog.Options{})
	p.must(err)
}

// options are the vault's; with a walk, the copy goes wrong as well.
func (p *trail) options(w *walk) Options {
	if !p.copied {
		return Options{}
	}
	place := p.copy()
	if w != nil {
		place = walkedPlace{place, w}
	}
	return Options{Copies: []Copy{{Name: "copy", Place: place}}, CopyTimeout: time.Hour}
}

func (p *trail) start(w *walk) {
	p.t.Helper()
	var err error
	p.Vault, err = Open(p.t.Context(), p.db, p.place(), p.files(), p.options(w))
	p.must(err)
}

func (p *trail) field(o Owner) ([]byte, error) {
	return p.SealField(p.t.Context(), o, "t", []byte("r"), "c", []byte("secret"))
}

func (p *trail) opens(o Owner, box []byte) bool {
	plain, err := p.OpenField(p.t.Context(), o, "t", []byte("r"), "c", box)
	return err == nil && string(plain) == "secret"
}

func (p *trail) destruction() Destruction {
	return Destruction{Owners: []Owner{p.dead}, AllPages: p.allPages, Reissue: []Reissue{{
		Assignment: holdfast.AssignmentID(p.part), Drop: []StreamBucket{{p.drop, 0}}}}}
}

// layTrail makes the folder that each step of a walk begins with a copy of.
func layTrail(t *testing.T, on terrain) *trail {
	t.Helper()
	p := &trail{t: t, at: "laid", dir: t.TempDir(), terrain: on, pathData: &pathData{keep: holdfast.StreamID{1}, drop: holdfast.StreamID{2}}}
	for _, name := range []string{"keyring", "copy"} {
		p.must(os.Mkdir(filepath.Join(p.dir, name), 0o700))
	}
	p.openCatalog()
	var err error
	p.Vault, err = Create(t.Context(), p.db, p.place(), p.files(), p.options(nil))
	p.must(err)
	for _, o := range []struct {
		owner *Owner
		box   *[]byte
	}{{&p.dead, &p.deadBox}, {&p.alive, &p.aliveBox}, {&p.part, &p.partBox}} {
		*o.owner = holdfast.NewID[Owner]()
		p.must(p.AddOwner(t.Context(), *o.owner))
		*o.box, err = p.field(*o.owner)
		p.must(err)
	}
	a := holdfast.AssignmentID(p.part)
	_, err = p.StreamCiphers(t.Context(), a, 202611, []holdfast.StreamID{p.keep, p.drop})
	p.must(err)
	lease, err := p.JournalKey(t.Context(), a, 202611)
	p.must(err)
	lease.Done()
	p.must(p.Barrier(t.Context(), []holdfast.AssignmentID{a}, true))
	lease, err = p.JournalKey(t.Context(), a, 202611)
	p.must(err)
	p.journal = lease.Cipher.ID()
	lease.Done()
	p.must(p.TendCopies(t.Context()))
	if p.shares {
		deal, _ := dealt(t)
		p.deal = deal.ID
		p.must(p.SetEscrow(t.Context(), &deal))
	}
	p.must(p.Close())
	p.must(p.db.Close())
	return p
}

// again is the trail in a fresh copy of its folder.
func (p *trail) again(at string) *trail {
	p.t.Helper()
	q := &trail{t: p.t, at: at, dir: filepath.Join(p.t.TempDir(), "d"), terrain: p.terrain, pathData: p.pathData, added: map[Owner][]byte{}}
	q.must(os.CopyFS(q.dir, os.DirFS(p.dir)))
	for i := range q.roots {
		q.must(os.Chmod(filepath.Join(q.dir, fmt.Sprintf("root%d.key", i)), 0o600))
	}
	q.openCatalog()
	return q
}

// destroy destroys while the walk goes on, and returns when that has returned or the
// process has died.
func (p *trail) destroy(w *walk) (rot Rotation, err error) {
	v := p.Vault
	type said struct {
		rot Rotation
		err error
	}
	ended, beside := make(chan said, 1), make(chan map[Owner][]byte, 1)
	go func() {
		added := map[Owner][]byte{}
		for range 2 {
			o := holdfast.NewID[Owner]()
			if !p.growing || v.AddOwner(context.Background(), o) != nil {
				continue
			}
			if box, err := v.SealField(context.Background(), o, "t", []byte("r"), "c", []byte("secret")); err == nil {
				added[o] = box
			}
		}
		beside <- added
	}()
	go func() {
		rot, err := v.Destroy(context.Background(), p.destruction())
		ended <- said{rot, err}
	}()
	select {
	case s := <-ended:
		rot, err = s.rot, s.err
	case <-w.dead:
		return rot, errFault
	}
	select {
	case p.added = <-beside:
	case <-w.dead:
		err = errors.Join(err, errFault)
	}
	return rot, err
}

// erased checks that what lives opens, and tells whether all that was to die is dead.
func (p *trail) erased() bool {
	p.t.Helper()
	a := holdfast.AssignmentID(p.part)
	if !p.opens(p.alive, p.aliveBox) || !p.opens(p.part, p.partBox) {
		p.t.Fatalf("%s: one who lives lost his key", p.at)
	}
	for o, box := range p.added {
		if !p.opens(o, box) {
			p.t.Fatalf("%s: one who was added lost his key", p.at)
		}
	}
	if deal, ok := p.Escrow(); ok != p.shares || deal != p.deal {
		p.t.Fatalf("%s: the shareholders' deal is %s, %v", p.at, deal, ok)
	}
	if _, err := p.StreamCipher(p.t.Context(), a, 202611, p.keep); err != nil {
		p.t.Fatalf("%s: the kept stream: %v", p.at, err)
	}
	if _, err := p.JournalOpener(p.t.Context(), a, 202611, p.journal); err != nil {
		p.t.Fatalf("%s: the journal key in use: %v", p.at, err)
	}
	_, err := p.StreamCipher(p.t.Context(), a, 202611, p.drop)
	if gone := err != nil; gone == p.opens(p.dead, p.deadBox) {
		p.t.Fatalf("%s: half of the destruction happened: the stream is gone: %v", p.at, gone)
	}
	return err != nil
}

// inForce are the names of the head and the pages.
func (p *trail) inForce() []string {
	names := []string{headName(p.ring.generation)}
	for _, pg := range p.ring.pages {
		if pg != nil {
			names = append(names, pg.name())
		}
	}
	slices.Sort(names)
	return names
}

// tidy checks that nothing lies about that is of no generation in force.
func (p *trail) tidy() {
	p.t.Helper()
	want := p.inForce()
	for _, place := range []Place{p.place(), p.copy()} {
		names, err := place.List()
		p.must(err)
		names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, listsPrefix) && n <= listsName(p.ring.generation) })
		slices.Sort(names)
		if !slices.Equal(names, want) && (p.copied || len(names) > 0) {
			p.t.Fatalf("%s: files %v, want %v", p.at, names, want)
		}
	}
	p.must(filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); err == nil && slices.Contains([]string{tempExt, oldExt, goneExt}, ext) {
			p.t.Fatalf("%s: %s is left", p.at, path)
		}
		return err
	}))
	for _, h := range p.Holders() {
		gens, err := h.Generations(p.t.Context())
		if p.must(err); len(gens) == 0 || gens[0] != p.Generation() {
			p.t.Fatalf("%s: holder %s has generations %v, in force is %d", p.at, h.Name(), gens, p.Generation())
		}
	}
}

// whole checks that the copy lacks nothing that is in force.
func (p *trail) whole(when string) {
	p.t.Helper()
	if !p.copied {
		return
	}
	r, err := VerifyCopy(p.place(), p.copy())
	litter := func(name string) bool {
		return !ours(name) || !strings.HasPrefix(name, listsPrefix) && !slices.Contains(p.inForce(), name)
	}
	r.Missing, r.Different = slices.DeleteFunc(r.Missing, litter), slices.DeleteFunc(r.Different, litter)
	if p.must(err); len(r.Missing)+len(r.Different) > 0 {
		p.t.Fatalf("%s: %s: the copy lacks %v, has otherwise %v", p.at, when, r.Missing, r.Different)
	}
}

// step goes one step, and reports whether there was one.
func (p *trail) step(n int, f flavour) bool {
	p.t.Helper()
	defer func() { p.must(p.db.Close()) }()
	w := &walk{flavour: f, dead: make(chan struct{})}
	p.start(w)
	p.must(p.TendCopies(p.t.Context()))
	v := p.Vault
	v.place = walkedPlace{v.place, w}
	for i, h := range v.holders {
		v.holders[i] = walkedHolder{h, w}
	}
	w.mu.Lock()
	w.n = n
	w.mu.Unlock()
	rot, err := p.destroy(w)
	if err != nil && !errors.Is(err, errFault) && !strings.Contains(err.Error(), errFault.Error()) {
		p.t.Fatalf("%s: %v", p.at, err)
	}
	reached := w.end()
	if !f.kill {
		if gone := p.erased(); rot.To != 0 && !gone {
			p.t.Fatalf("%s: said to be destroyed, and is not", p.at)
		}
		if p.copied && !p.Copies()[0].Late {
			p.whole("not named late")
		}
	}
	p.start(nil)
	gone := p.erased()
	if rot.To != 0 && !gone {
		p.t.Fatalf("%s: said to be destroyed, and is not after a start", p.at)
	}
	if !p.growing { // else an owner may be on the way into the copy, not yet in use
		p.whole("after a start")
	}
	p.must(p.TendCopies(p.t.Context()))
	p.whole("caught up")
	p.tidy()
	if _, err := p.Destroy(p.t.Context(), p.destruction()); err != nil {
		p.t.Fatalf("%s: the next try: %v", p.at, err)
	}
	p.start(nil)
	if !p.erased() {
		p.t.Fatalf("%s: not erased by the next try", p.at)
	}
	p.must(p.TendCopies(p.t.Context()))
	p.whole("after the next try")
	p.tidy()
	return reached
}

// Each operation that a rotation does on a place or with a holder may fail or be the
// last of the process, done or not: who lives keeps his keys, what was to die is dead,
// all of it, or dies by the next try, and a copy has all or is named late. The default
// run takes each fourth operation of the longer ways, from a drawn one on.
func TestRotationWalk(t *testing.T) {
	draw := rand.New(rand.NewPCG(testseed.Of(t), 0))
	for _, on := range []terrain{
		{roots: 1},
		{roots: 2, copied: true, shares: true},
		{roots: 2, copied: true, allPages: true, growing: true},
	} {
		for _, f := range []flavour{{false, false}, {true, false}, {false, true}, {true, true}} {
			first, stride := 1, 1
			if on.roots > 1 && os.Getenv("HOLDFAST_LONG") == "" {
				first, stride = 1+draw.IntN(4), 4
			}
			t.Run(fmt.Sprintf("%+v %s from %d", on, f, first), func(t *testing.T) {
				t.Parallel()
				laid := layTrail(t, on)
				n := first
				for laid.again(fmt.Sprintf("operation %d", n)).step(n, f) {
					n += stride
				}
				if n < 12 { // a rotation with one holder has as many
					t.Errorf("ended at operation %d", n)
				}
			})
		}
	}
}
