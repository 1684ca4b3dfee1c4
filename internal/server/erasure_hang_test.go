package server

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// hanging is where root keys lie, and where nothing comes back once it is told so.
type hanging struct {
	vault.Files
	mu      sync.Mutex
	release chan struct{} // nil: all comes back
	hangs   chan struct{} // closed when somebody waits
}

// hang has the next one wait until the returned function is called.
func (f *hanging) hang() (hangs <-chan struct{}, release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release, f.hangs = make(chan struct{}), make(chan struct{})
	return f.hangs, sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		close(f.release)
		f.release = nil
	})
}

func (f *hanging) wait() {
	f.mu.Lock()
	release, hangs := f.release, f.hangs
	f.hangs = nil
	f.mu.Unlock()
	if release == nil {
		return
	}
	if hangs != nil {
		close(hangs)
	}
	<-release
}

func (f *hanging) OpenFile(path string, flag int, mode fs.FileMode) (vault.File, error) {
	f.wait()
	return f.Files.OpenFile(path, flag, mode)
}

func (f *hanging) ReadDir(path string) ([]fs.DirEntry, error) {
	f.wait()
	return f.Files.ReadDir(path)
}

// hangingHolder gives a stopped hub a holder that can be told to hang.
func (h *house) hangingHolder() *hanging {
	f := &hanging{Files: vault.OSFiles()}
	h.ground = Machine()
	h.ground.RootKeys = f
	return f
}

// promptly is ten times what is promised of a refusal. What waited for the holder would
// wait as long as the test.
const promptly = 10 * time.Second

// beside fails unless what was asked for beside a holder that hangs has come back.
func beside[T any](t *testing.T, what string, do func() (T, error)) T {
	t.Helper()
	type answer struct {
		out T
		err error
	}
	got, began := make(chan answer, 1), time.Now()
	go func() {
		out, err := do()
		got <- answer{out, err}
	}()
	select {
	case a := <-got:
		if a.err != nil {
			t.Fatalf("%s: %v", what, a.err)
		}
		t.Logf("%s: %v", what, time.Since(began).Round(time.Millisecond))
		return a.out
	case <-time.After(30 * time.Second):
		t.Fatalf("%s waits for the holder", what)
		panic("unreachable")
	}
}

// While another owner's rotation hangs in a holder, whoever asks is told the id, and
// what he asked for comes out on no path any more.
func TestRefusedOnEveryPathWhileAHolderHangs(t *testing.T) {
	e := newEstate(t)
	e.scene()
	holder := e.hangingHolder()
	e.end()
	e.at, e.end = e.serve()

	reads, _ := e.split()
	anna := e.targets["anna"]
	last := ""
	given := func(readers ...string) (values int) {
		for _, r := range e.readers {
			if !slices.Contains(readers, r.name) {
				continue
			}
			for _, a := range reads {
				method, _, ok := strings.Cut(a.route, " ")
				if !ok {
					method = http.MethodGet
				}
				if strings.HasPrefix(a.route, "GET /v1/feed") || strings.Contains(a.route, "/v1/backups") {
					continue // of feeds, see below; a backup is all of the hub, sealed
				}
				for _, w := range a.ways {
					path, body, mentions := w.about(anna)
					if !mentions && !strings.Contains(a.route, "/v1/me/") && !strings.Contains(a.route, "/api/v1/") {
						continue
					}
					for _, p := range found(e.plants, r.ask(e.at.API+path, method, body).all) {
						if p.whose == "anna" && p.sort == aValue {
							values, last = values+1, fmt.Sprintf("%s asks %s %s and is given %s", r.name, method, path, p)
						}
					}
				}
			}
		}
		return values
	}
	hers, institutes := "Anna, the owner", "the institute's program, with a grant"
	before := given(institutes)
	if before == 0 {
		t.Fatal("nobody is given anything of hers: the test asks for nothing")
	}

	for _, whose := range []string{"anna", "ben"} { // what is claimed is not erased
		e.must("an administrator", "DELETE", "/v1/holds/"+e.targets[whose].names["hold"], "", nil)
	}
	hangs, release := holder.hang()
	defer release()
	e.must("Ben, another owner", "POST", "/v1/erasures?wait=0", fmt.Sprintf(`{"party":%q}`, e.targets["ben"].party), &struct{}{})
	select {
	case <-hangs:
	case <-time.After(time.Minute):
		t.Fatal("no rotation has asked the holder")
	}
	began := time.Now()
	her := e.readers[slices.IndexFunc(e.readers, func(r *reader) bool { return r.name == hers })]
	got := beside(t, "her erasure is asked for", func() (out struct{ ID, State string }, err error) {
		a := her.ask(e.at.API+"/v1/erasures?wait=0", "POST", fmt.Sprintf(`{"party":%q}`, anna.party))
		return out, json.Unmarshal(a.body, &out)
	})
	asked := time.Since(began)
	n := beside(t, "every path is tried", func() (int, error) { return given(hers, institutes, "an administrator"), nil })
	if got.ID == "" || got.State != erasure.Asked || n > 0 {
		t.Errorf("erasure %q is %q, her readings came out %d times: %s", got.ID, got.State, n, last)
	}
	if err := e.send(anna.device.Peer, number(pulseOf("anna"), time.Now(), 1)); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("a reading of hers came in: %v", err)
	}
	if asked > promptly {
		t.Errorf("refused after %v", asked)
	}
	id, err := holdfast.ParseID[holdfast.ErasureID](got.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Server.erasure.Why(id); err != nil {
		t.Errorf("it has been tried: %v", err)
	}
	release()
	if done := e.waitErased(id); done.State != erasure.Done {
		t.Errorf("in the end it is %s", done.State)
	}
}

// Each kind of scope is refused beside a rotation that hangs, of a whole owner and of a
// part, which holds on to more.
func TestEveryScopeIsRefusedWhileAHolderHangs(t *testing.T) {
	h := newHouse(t)
	h.halt()
	holder := h.hangingHolder()
	h.start()
	lender := h.person("Lender")
	y, m, _ := time.Unix(0, h.clock.Now()).UTC().Date()
	names := []string{"assignment", "category", "device", "month", "party", "slice", "span", "stream"}
	parts := []string{"party", "stream", "span", "month"}
	var pairs []*pair
	for range parts {
		for _, name := range names {
			p := &pair{house: h, one: name, lender: lender, owner: h.person(fmt.Sprint("owner ", len(pairs))), month: 100*y + int(m), since: 1}
			p.furnish(time.Now().Add(-time.Hour), fmt.Sprint(len(pairs)))
			pairs = append(pairs, p)
		}
	}
	var others []*pair
	for _, name := range parts {
		p := &pair{house: h, one: name, lender: lender, owner: h.person("other " + name), month: 100*y + int(m), since: 1}
		p.furnish(time.Now().Add(-time.Hour), name)
		others = append(others, p)
	}
	h.later(40 * day)
	h.erasing()
	var asked []holdfast.ErasureID
	for i, name := range parts {
		hangs, release := holder.hang()
		defer release()
		s, err := others[i].scopesOf(t.Context())[name]()
		if err != nil {
			t.Fatal(err)
		}
		asked = append(asked, h.wants(others[i].owner, s, erasure.Wish{}).ID)
		select {
		case <-hangs:
		case <-time.After(time.Minute):
			t.Fatal("no rotation has asked the holder")
		}
		for _, p := range pairs[i*len(names) : (i+1)*len(names)] {
			e := beside(t, p.one+" beside the rotation of a "+name, func() (erasure.Erasure, error) {
				s, err := p.scopesOf(t.Context())[p.one]()
				if err != nil {
					return erasure.Erasure{}, err
				}
				p.asked = []asking{{what: p.one, scope: s}}
				who := p.owner
				if p.one == "slice" {
					who = lender
				}
				return h.Server.erasure.Request(t.Context(), who, s, erasure.Wish{Guarded: true})
			})
			for _, r := range p.rows {
				if !covers(p.asked[0].scope, r) {
					continue
				}
				rows := beside(t, "a read of it", func() ([]holdfast.Reading, error) {
					rows, err := h.read(r.who, r.device, r.name)
					if kind := holdfast.KindOf(err); kind == holdfast.NotFound || kind == holdfast.Denied {
						err = nil
					}
					return rows, err
				})
				if slices.ContainsFunc(rows, func(x holdfast.Reading) bool { return x.Time == r.time }) {
					t.Errorf("%s beside the rotation of a %s: %s is read", p.one, name, r.name)
				}
			}
			asked = append(asked, e.ID)
		}
		release()
	}
	for _, id := range asked {
		if e := h.waitErased(id); e.State != erasure.Done {
			t.Errorf("in the end it is %s: %v", e.State, h.Server.erasure.Why(id))
		}
	}
}
