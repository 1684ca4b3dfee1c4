package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
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
	// New says that the place may be empty: the copy begins there. Without it, a place
	// that has nothing of this keyring is that of a disk which is not mounted.
	New bool
}

// CopyState says how a copy fares.
type CopyState struct {
	Name   string    `json:"name"`
	Late   bool      `json:"late"`
	Reason string    `json:"reason,omitempty"` // why it is late
	Ahead  bool      `json:"ahead,omitempty"`  // it has what this hub does not know: nothing is written to it
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
	// Owns reports whether a file of this name in a copy is one of the companion's, of
	// this hub or of another.
	Owns(name string) bool
	// Follows says why ours may not take the place of theirs, a copy's file of the same
	// name: theirs has what ours does not.
	Follows(ours, theirs []byte) error
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
	ahead  bool
	since  time.Time

	known  bool                         // it was held against the place since the start; guarded by busy
	beside map[string][sha256.Size]byte // companion's files that it has; guarded by busy
	looked time.Time                    // when they were last looked at; guarded by busy
	at     string                       // the last that was; guarded by busy
	forked error                        // why nothing more is written to it until the next start; guarded by busy
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
			s.Reason, s.Since, s.Ahead = c.reason, c.since.UTC(), c.ahead
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
		if !one.inStep() {
			continue // it is for a reason of its own
		}
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
	if c.step, c.ahead = step, false; !step {
		c.reason, c.ahead = why.Error(), isAhead(why)
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
	return v.noCopy()
}

// noCopy says why no copy takes anything.
func (v *Vault) noCopy() error {
	var why []string
	for _, s := range v.Copies() {
		why = append(why, fmt.Sprintf("%s (%s)", s.Name, s.Reason))
	}
	return holdfast.Errorf(holdfast.Unavailable, "no copy of the keyring can take what changes: %s. Mend one, or take it out with `holdfast keyring remove-copy`", strings.Join(why, "; "))
}

// recording is a place that remembers what was done to it, for its copies.
type recording struct {
	Place
	checks []func(Place) error // that a copy is what the place was; they write nothing
	done   []func(Place) error
}

func (r *recording) Write(name string, data []byte) error {
	was, err := readOrNil(r.Place, name)
	if err != nil {
		return err
	}
	r.checks = append(r.checks, func(p Place) error {
		has, err := readOrNil(p, name)
		if err == nil && !bytes.Equal(has, was) && !bytes.Equal(has, data) {
			err = holdfast.Errorf(holdfast.Unavailable, "its %s is not what this hub gave it", name)
		}
		return err
	})
	r.done = append(r.done, func(p Place) error { return p.Write(name, data) })
	return r.Place.Write(name, data)
}

func (r *recording) Create(files []NewFile) error {
	r.done = append(r.done, func(p Place) error { return p.Create(files) })
	return r.Place.Create(files)
}

func (r *recording) Append(name string, at int64, data []byte) error {
	was := entryAt(r.Place, name, at)
	r.checks = append(r.checks, func(p Place) error {
		if has := entryAt(p, name, at); has != nil && !bytes.Equal(has, was) {
			return ahead("its %s has an owner key that this hub does not know", name)
		}
		return nil
	})
	r.done = append(r.done, func(p Place) error { return p.Append(name, at, data) })
	return r.Place.Append(name, at, data)
}

// readOrNil reads a file, nil if there is none.
func readOrNil(p Place, name string) ([]byte, error) {
	b, err := p.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// entryAt reads the entry of a page's file at an offset, nil if there is none that can
// be read.
func entryAt(p Place, name string, at int64) []byte {
	var b [entrySize]byte
	if p.ReadAt(name, b[:], at) != nil {
		return nil
	}
	if _, ok := parseEntry(b[:]); !ok {
		return nil
	}
	return b[:]
}

// again does to a copy what was done to the place, if it is what the place was.
func (r *recording) again(c *copyOf) error {
	for _, check := range r.checks {
		if err := check(c.Place); err != nil {
			if isAhead(err) {
				c.forked = err
			}
			return err
		}
	}
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
		if err := v.lookFirst(ctx); err != nil {
			return err
		}
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
		if err := v.begun(c); err != nil {
			return err
		}
		lacks, err := v.look(ctx, c)
		if err != nil {
			return err
		}
		if len(files) > 0 {
			if err := c.Place.Create(files); err != nil {
				return err
			}
		}
		if err := v.give(ctx, c, lacks); err != nil {
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
