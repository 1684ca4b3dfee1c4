package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// How RunCopies looks after the copies.
const (
	copiesEvery = time.Second      // new take-backs
	copiesRetry = 10 * time.Second // late copies
)

// RunCopies catches up copies that are late and gives all of them what the
// companion has of new, until ctx ends. What fails is tried again; report hears of
// it when it is the companion that failed, and apart of each copy that is found ahead.
func (v *Vault) RunCopies(ctx context.Context, report func(error), apart func(CopyState)) error {
	if len(v.copies.all) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	tick := time.NewTicker(copiesEvery)
	defer tick.Stop()
	var tried time.Time
	told := map[string]bool{}
	for {
		late := time.Since(tried) >= copiesRetry
		if _, err := v.tendCopies(ctx, late); err != nil && ctx.Err() == nil {
			report(err)
		}
		if late {
			tried = time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		for _, s := range v.Copies() {
			if s.Ahead && !told[s.Name] {
				apart(s)
			}
			told[s.Name] = s.Ahead
		}
	}
}

// TendCopies is one round of RunCopies, late copies included.
func (v *Vault) TendCopies(ctx context.Context) error {
	catching, err := v.tendCopies(ctx, true)
	if err != nil {
		return err
	}
	catching.Wait()
	return nil
}

// AddCopy gives the keyring another copy, which has all of it when this returns.
func (v *Vault) AddCopy(ctx context.Context, with Copy) error {
	with.New = true
	c := newCopies(Options{Copies: []Copy{with}}).all[0]
	if beside := v.copies.companion(); beside != nil {
		if err := beside.Prepare(ctx, v.Generation()); err != nil {
			return err
		}
	}
	return v.catchUp(ctx, c)
}

// tendCopies begins to catch up late copies, each beside the others: one that hangs
// keeps nobody.
func (v *Vault) tendCopies(ctx context.Context, late bool) (catching *sync.WaitGroup, err error) {
	catching = new(sync.WaitGroup)
	if late {
		if err := v.mergeLists(); err != nil {
			return catching, fmt.Errorf("merge reissued key lists: %w", err)
		}
	}
	if with := v.copies.companion(); with != nil {
		if err := with.Prepare(ctx, v.Generation()); err != nil {
			return catching, err
		}
	}
	for _, c := range v.copies.all {
		step := c.inStep()
		if !step && !late || !c.catching.CompareAndSwap(false, true) {
			continue
		}
		catching.Go(func() {
			defer c.catching.Store(false)
			var err error
			if step { // if it is not late by now for another reason, it still is not
				err = c.work(ctx, v.copies.timeout, func() error { return v.accompany(ctx, c) })
			} else {
				err = v.catchUp(ctx, c)
			}
			if err != nil && ctx.Err() == nil {
				c.mark(false, err)
			}
		})
	}
	return catching, nil
}

// catchUp brings a late copy into step. Most of it is copied while the keyring goes
// on; only what has changed meanwhile is copied while it waits.
func (v *Vault) catchUp(ctx context.Context, c *copyOf) error {
	v.rotating.RLock()
	v.adding.Lock()
	names, err := v.place.List()
	v.adding.Unlock()
	v.rotating.RUnlock()
	if err != nil {
		return err
	}
	// Without a bound: it may be gigabytes, and nothing waits for it.
	done := make(chan error, 1)
	select {
	case c.busy <- struct{}{}:
	default:
		return holdfast.Errorf(holdfast.Unavailable, "it has not answered yet")
	}
	go func() {
		err := v.mirrorNames(ctx, c, names)
		<-c.busy
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a rotation came between
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	v.rotating.RLock()
	defer v.rotating.RUnlock()
	v.adding.Lock()
	defer v.adding.Unlock()
	err = c.work(ctx, v.copies.timeout, func() error { return v.mirror(ctx, c) })
	c.mark(err == nil, err)
	return err
}

// mirror makes a copy what the place is, file by file, and checks each. The caller
// has the copy, and keeps the place from changing.
func (v *Vault) mirror(ctx context.Context, c *copyOf) error {
	names, err := v.place.List()
	if err != nil {
		return err
	}
	if err := v.mirrorNames(ctx, c, names); err != nil {
		return err
	}
	theirs, err := c.Place.List()
	if err != nil {
		return err
	}
	theirs = slices.DeleteFunc(theirs, func(name string) bool { return slices.Contains(names, name) || !ours(name) })
	if err := c.Place.Remove(theirs...); err != nil {
		return err
	}
	if err := v.accompany(ctx, c); err != nil {
		return err
	}
	c.known, c.New = true, false
	return nil
}

// ours reports whether a file in the keyring's folder, or in a copy, is the keyring's.
func ours(name string) bool {
	return strings.HasPrefix(name, "head-") || strings.HasPrefix(name, "page-") || strings.HasPrefix(name, listsPrefix)
}

// mirrorNames copies files that the copy lacks or has otherwise, after it has looked
// at all that is there.
func (v *Vault) mirrorNames(ctx context.Context, c *copyOf, names []string) error {
	if err := v.belongs(c); err != nil {
		return err
	}
	if _, err := v.look(ctx, c); err != nil {
		return err
	}
	lacks, err := v.differ(ctx, c, names)
	if err != nil {
		return err
	}
	for _, name := range lacks {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		want, err := v.place.Read(name)
		if err != nil {
			return err
		}
		if err := c.Place.Write(name, want); err != nil {
			return err
		}
		if have, err := c.Place.Read(name); err != nil || !bytes.Equal(have, want) {
			return holdfast.Errorf(holdfast.Unavailable, "%s does not read back as it was written", name)
		}
	}
	return nil
}

// entriesIn counts the entries of a page's file that can be read.
func entriesIn(page []byte) (n int) {
	for at := pageHeaderSize; at < len(page); at += entrySize {
		if _, ok := parseEntry(page[at:]); !ok {
			break
		}
		n++
	}
	return n
}

// belongs refuses a copy that has another hub's keyring, or none where one was.
func (v *Vault) belongs(c *copyOf) error {
	names, err := c.Place.List()
	if err != nil {
		return err
	}
	heads := 0
	for _, name := range names {
		if !strings.HasPrefix(name, "head-") {
			continue
		}
		heads++
		b, err := c.Place.Read(name)
		if err != nil {
			return err
		}
		if h, err := parseHead(b); err == nil && h.ring != v.ring.id {
			return holdfast.Errorf(holdfast.Conflict, "it has the keyring of another hub: name an empty folder")
		}
	}
	if heads == 0 && !c.New {
		return errNotThere
	}
	return nil
}

// CopyCheck is what VerifyCopy found.
type CopyCheck struct {
	Files     int      `json:"files"`      // that it should have
	Missing   []string `json:"missing"`    // and lacks
	Different []string `json:"different"`  // and has otherwise
	Besides   int      `json:"take_backs"` // batches of take-backs in it
}

// VerifyCopy holds the files of a copy against those of a keyring's place. It
// changes nothing but what a crash has left half done. Nothing else may use either.
func VerifyCopy(place, other Place) (r CopyCheck, err error) {
	names, err := place.List()
	if err != nil {
		return r, fmt.Errorf("verify copy: %w", err)
	}
	theirs, err := other.List()
	if err != nil {
		return r, fmt.Errorf("verify copy: %w", err)
	}
	for _, name := range theirs {
		if !ours(name) {
			r.Besides++
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !ours(name) })
	r.Files, r.Missing, r.Different = len(names), []string{}, []string{}
	for _, name := range names {
		want, err := place.Read(name)
		if err != nil {
			return r, fmt.Errorf("verify copy: %w", err)
		}
		switch have, err := other.Read(name); {
		case errors.Is(err, fs.ErrNotExist):
			r.Missing = append(r.Missing, name)
		case err != nil:
			return r, fmt.Errorf("verify copy: %w", err)
		case sha256.Sum256(have) != sha256.Sum256(want):
			r.Different = append(r.Different, name)
		}
	}
	return r, nil
}
