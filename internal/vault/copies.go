package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Copy is another place that has the keyring, for when the first is lost.
type Copy struct {
	Name  string
	Place Place
}

// CopyState says how a copy fares.
type CopyState struct {
	Name   string    `json:"name"`
	Late   bool      `json:"late"`
	Reason string    `json:"reason,omitempty"` // why it is late
	Since  time.Time `json:"since,omitzero"`   // since when
}

// Companion is what copies keep beside the keyring: the ledger's take-backs. File
// names are its own, and no page's, head's or list's.
type Companion interface {
	// Prepare brings the files up to date, for a generation of the keyring.
	Prepare(ctx context.Context, generation uint64) error
	// Files returns the names and the SHA-256 of every file.
	Files(ctx context.Context) (map[string][sha256.Size]byte, error)
	File(ctx context.Context, name string) ([]byte, error)
	// Ahead reports that theirs, a copy's file, knows more than ours.
	Ahead(ours, theirs []byte) bool
}

// copies keeps the copies of a keyring in step with its place. What the place gets,
// each copy that is in step gets before it counts; one that fails is late, and
// caught up later.
type copies struct {
	all     []*copyOf
	timeout time.Duration

	mu     sync.Mutex
	beside Companion
}

type copyOf struct {
	Copy
	busy chan struct{} // held by who works on the place, for as long as that hangs

	catching atomic.Bool // it is being caught up

	mu     sync.Mutex // guards what follows
	step   bool
	reason string
	since  time.Time

	known  bool                         // it was held against the place since the start; guarded by busy
	beside map[string][sha256.Size]byte // companion's files that it has; guarded by busy
	looked time.Time                    // when they were last looked at; guarded by busy
	at     string                       // the last that was; guarded by busy
}

// defaultCopyTimeout is how long one piece of work on a copy may take.
const defaultCopyTimeout = 30 * time.Second

func newCopies(o Options) *copies {
	c := &copies{timeout: o.CopyTimeout}
	if c.timeout == 0 {
		c.timeout = defaultCopyTimeout
	}
	for _, one := range o.Copies {
		c.all = append(c.all, &copyOf{Copy: one, busy: make(chan struct{}, 1), reason: "it was not looked at since the start", since: time.Now(),
			beside: map[string][sha256.Size]byte{}})
	}
	return c
}

// Copies says how each copy fares.
func (v *Vault) Copies() []CopyState {
	out := []CopyState{}
	for _, c := range v.copies.all {
		c.mu.Lock()
		s := CopyState{Name: c.Name, Late: !c.step}
		if s.Late {
			s.Reason, s.Since = c.reason, c.since.UTC()
		}
		c.mu.Unlock()
		out = append(out, s)
	}
	return out
}

// Accompany gives the copies what they keep beside the keyring from now on.
func (v *Vault) Accompany(with Companion) {
	v.copies.mu.Lock()
	defer v.copies.mu.Unlock()
	v.copies.beside = with
}

func (c *copies) companion() Companion {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.beside
}

// dirty has every copy be held against the place again.
func (c *copies) dirty() {
	for _, one := range c.all {
		one.mark(false, errors.New("the keyring's files were put in order"))
	}
}

func (c *copyOf) inStep() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.step
}

// mark says whether the copy is in step, and if not why.
func (c *copyOf) mark(step bool, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.step && !step {
		c.since = time.Now()
	}
	if c.step = step; !step {
		c.reason = why.Error()
	}
}

// lag is for how long the copy has not been in step, in seconds.
func (c *copyOf) lag() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.step {
		return 0
	}
	return time.Since(c.since).Seconds()
}

// work does f on the copy, alone, and waits for it as long as the bound allows. What
// hangs is left behind and keeps others from the copy until it ends.
func (c *copyOf) work(ctx context.Context, timeout time.Duration, f func() error) error {
	bound, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	late := func() error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return holdfast.Errorf(holdfast.Unavailable, "it did not answer within %s", timeout)
	}
	select {
	case c.busy <- struct{}{}:
	case <-bound.Done():
		return late()
	}
	done := make(chan error, 1)
	go func() {
		err := f()
		<-c.busy // before anybody hears of it: whoever comes next finds the copy free
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-bound.Done():
		return late()
	}
}

// change does the same on every copy that is in step, side by side. If that leaves
// none in step, the others are caught up, with all that the place has, at once. It
// fails if there are copies and no one has all of it. The caller keeps the place
// from changing.
func (v *Vault) changeCopies(ctx context.Context, f func(*copyOf) error) error {
	if len(v.copies.all) == 0 {
		return nil
	}
	ctx = context.WithoutCancel(ctx) // that one who asked goes away says nothing of a copy
	try := func(f func(*copyOf) error, pick func(*copyOf) bool) (done bool) {
		var wg sync.WaitGroup
		for _, c := range v.copies.all {
			if !pick(c) {
				continue
			}
			wg.Go(func() {
				err := c.work(ctx, v.copies.timeout, func() error { return f(c) })
				c.mark(err == nil, err)
			})
		}
		wg.Wait()
		for _, c := range v.copies.all {
			done = done || c.inStep()
		}
		return done
	}
	if try(f, (*copyOf).inStep) {
		return nil
	}
	everyone := func(*copyOf) bool { return true }
	if try(func(c *copyOf) error { return v.mirror(ctx, c) }, everyone) {
		return nil
	}
	var why []string
	for _, s := range v.Copies() {
		why = append(why, fmt.Sprintf("%s (%s)", s.Name, s.Reason))
	}
	return holdfast.Errorf(holdfast.Unavailable, "no copy of the keyring can take what changes: %s. Mend one, or take it out with `holdfast keyring remove-copy`", strings.Join(why, "; "))
}

// recording is a place that remembers what was done to it, for its copies.
type recording struct {
	Place
	done []func(Place) error
}

func (r *recording) Write(name string, data []byte) error {
	r.done = append(r.done, func(p Place) error { return p.Write(name, data) })
	return r.Place.Write(name, data)
}

func (r *recording) Create(files []NewFile) error {
	r.done = append(r.done, func(p Place) error { return p.Create(files) })
	return r.Place.Create(files)
}

func (r *recording) Append(name string, at int64, data []byte) error {
	r.done = append(r.done, func(p Place) error { return p.Append(name, at, data) })
	return r.Place.Append(name, at, data)
}

// again does to a copy what was done to the place.
func (r *recording) again(c *copyOf) error {
	for _, do := range r.done {
		if err := do(c.Place); err != nil {
			return err
		}
	}
	return nil
}

// grow adds owners to the place and then to the copies; the caller has v.adding.
func (v *Vault) grow(ctx context.Context, owners []Owner) (growth, error) {
	if len(v.copies.all) == 0 {
		return v.ring.add(v.place, owners)
	}
	rec := &recording{Place: v.place}
	g, err := v.ring.add(rec, owners)
	if err != nil {
		v.copies.dirty() // the place may have some of it, behind what counts
		return g, err
	}
	return g, v.changeCopies(ctx, rec.again)
}

// copyStaged puts the next generation where it outlives the place: reissued lists
// beside the pages, and all of it, with the companion's files, in a copy at least.
// The caller has v.rotating.
func (v *Vault) copyStaged(ctx context.Context, next *staged, p *plan) error {
	var files []NewFile
	if len(p.lists) > 0 {
		lists := NewFile{listsName(next.generation), encodeLists(next.id, p.lists)}
		if err := v.place.Create([]NewFile{lists}); err != nil {
			return err
		}
		files = append(files, lists)
	}
	if len(v.copies.all) == 0 {
		return nil
	}
	if with := v.copies.companion(); with != nil {
		if err := with.Prepare(ctx, next.generation); err != nil {
			return err
		}
	}
	for _, pg := range next.changed {
		if pg.page == nil {
			continue
		}
		b, err := v.place.Read(pg.page.name())
		if err != nil {
			return fmt.Errorf("read keyring page: %w", err)
		}
		files = append(files, NewFile{pg.page.name(), b})
	}
	head, err := v.place.Read(headName(next.generation))
	if err != nil {
		return fmt.Errorf("read keyring head: %w", err)
	}
	return v.changeCopies(ctx, func(c *copyOf) error {
		if len(files) > 0 {
			if err := c.Place.Create(files); err != nil {
				return err
			}
		}
		if err := v.accompany(ctx, c); err != nil {
			return err
		}
		return c.Place.Write(headName(next.generation), head)
	})
}

// dropFromCopies removes what a rotation has left from the copies that are in step.
// A copy that fails is late; nobody waits for it.
func (v *Vault) dropFromCopies(ctx context.Context, names []string) {
	for _, c := range v.copies.all {
		if !c.inStep() {
			continue
		}
		if err := c.work(ctx, v.copies.timeout, func() error { return c.Place.Remove(names...) }); err != nil {
			c.mark(false, err)
		}
	}
}

// accompany gives a copy the companion's files that it lacks. The caller has the
// copy.
func (v *Vault) accompany(ctx context.Context, c *copyOf) error {
	with := v.copies.companion()
	if with == nil {
		return nil
	}
	want, err := with.Files(ctx)
	if err != nil {
		return err
	}
	if c.known && (time.Since(c.looked) >= lookEvery || !maps.Equal(want, c.beside)) {
		if err := c.look(); err != nil {
			return err
		}
	}
	for name, sum := range want {
		if c.beside[name] == sum {
			continue
		}
		ours, err := with.File(ctx, name)
		if err != nil {
			return err
		}
		if !c.known {
			theirs, err := c.Place.Read(name)
			if err == nil && with.Ahead(ours, theirs) {
				return holdfast.Errorf(holdfast.Conflict, "it knows of take-backs that this hub does not: the data folder was put back to an earlier state. Bring it up to date with `holdfast restore`")
			}
		}
		if err := c.Place.Write(name, ours); err != nil {
			return err
		}
		c.beside[name] = sum
	}
	return nil
}

// lookEvery is how often a companion's files in a copy are looked at when none is new.
const lookEvery = time.Minute

// look forgets what the copy has lost of the companion's files, and one after the
// other what it has otherwise: that is given to it again.
func (c *copyOf) look() error {
	c.looked = time.Now()
	names, err := c.Place.List()
	if err != nil {
		return err
	}
	maps.DeleteFunc(c.beside, func(name string, _ [sha256.Size]byte) bool { return !slices.Contains(names, name) })
	next := ""
	for name := range c.beside { // the one behind the last, or the first
		behind, best := name > c.at, next > c.at
		if next == "" || behind && !best || behind == best && name < next {
			next = name
		}
	}
	if c.at = next; next == "" {
		return nil
	}
	have, err := c.Place.Read(next)
	if err != nil {
		return err
	}
	if sha256.Sum256(have) != c.beside[next] {
		delete(c.beside, next)
	}
	return nil
}
