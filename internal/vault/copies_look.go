package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// aheadError is why nothing is written to a copy: what is in it is not of this hub's
// history, and an operator must say which of the two counts.
type aheadError struct{ what string }

func (e *aheadError) Error() string {
	return e.what + ". This hub was put back from an older state, or another hub of the same keyring runs and writes there: nothing is written to this copy. " + aheadAdvice
}

// aheadAdvice is what to do about a copy that is ahead.
const aheadAdvice = "Stop the other hub, if one runs. Then `holdfast restore` from this copy; or, to keep this hub's state, stop it, `holdfast keyring remove-copy`, and `holdfast keyring add-copy` into a new folder"

func ahead(format string, args ...any) error {
	return holdfast.Errorf(holdfast.Conflict, "%w", &aheadError{fmt.Sprintf(format, args...)})
}

func isAhead(err error) bool {
	_, is := errors.AsType[*aheadError](err)
	return is
}

// LookBeside holds what a copy has beside the keyring against what the companion has,
// and fails if it is ahead. Nothing else may use the copy.
func LookBeside(ctx context.Context, with Companion, other Place) error {
	c := newCopies(Options{Copies: []Copy{{Place: other}}})
	c.beside = with
	_, err := (&Vault{copies: c}).look(ctx, c.all[0])
	return err
}

// look holds a copy against what the companion has, and writes nothing. It returns
// the names of the files that the copy lacks or has otherwise, in their order, if each
// may be written there. The caller has the copy.
func (v *Vault) look(ctx context.Context, c *copyOf) (lacks []string, err error) {
	if c.forked != nil {
		return nil, c.forked
	}
	with := v.copies.companion()
	if with == nil {
		return nil, nil
	}
	want, err := with.Files(ctx)
	if err != nil {
		return nil, err
	}
	if c.known && time.Since(c.looked) < lookEvery && maps.Equal(want, c.beside) {
		return nil, nil
	}
	names, err := c.Place.List()
	if err != nil {
		return nil, err
	}
	if err := c.sample(names); err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		if _, ok := want[name]; !ok && with.Owns(name) {
			return nil, ahead("it knows of take-backs that this hub does not: %s is not of this hub", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if c.beside[name] == want[name] {
			continue
		}
		if _, there := slices.BinarySearch(names, name); there {
			same, err := c.compare(ctx, with, name, want[name])
			if err != nil {
				return nil, err
			}
			if same {
				continue
			}
		}
		lacks = append(lacks, name)
	}
	return lacks, nil
}

// lookFirst looks at the copies that are late before the companion's files say the
// next generation: what tells that one knows a later generation than this hub would
// be gone then. It fails if there is no copy but such.
func (v *Vault) lookFirst(ctx context.Context) error {
	stuck := 0
	for _, c := range v.copies.all {
		if c.inStep() {
			continue
		}
		err := c.work(ctx, v.copies.timeout, func() error {
			clear(c.beside) // what was seen while it was in step counts no more
			_, err := v.look(ctx, c)
			if isAhead(err) {
				c.forked = err
			}
			return err
		})
		if isAhead(err) {
			stuck++
			c.mark(false, err)
		}
	}
	if stuck == len(v.copies.all) {
		return v.noCopy()
	}
	return nil
}

// compare reads one of a companion's files in a copy. It is ahead if the companion's
// may not take its place.
func (c *copyOf) compare(ctx context.Context, with Companion, name string, want [sha256.Size]byte) (same bool, err error) {
	theirs, err := c.Place.Read(name)
	if err != nil {
		return false, err
	}
	if sha256.Sum256(theirs) == want {
		c.beside[name] = want
		return true, nil
	}
	ours, err := with.File(ctx, name)
	if err != nil {
		return false, err
	}
	if err := with.Follows(ours, theirs); err != nil {
		return false, ahead("it knows of take-backs that this hub does not: %s in it %v", name, err)
	}
	return false, nil
}

// give writes what look said that the copy lacks, the first first: whatever a crash
// leaves is one history. The caller has the copy.
func (v *Vault) give(ctx context.Context, c *copyOf, lacks []string) error {
	for _, name := range lacks {
		b, err := v.copies.companion().File(ctx, name)
		if err != nil {
			return err
		}
		if err := c.Place.Write(name, b); err != nil {
			return err
		}
		c.beside[name] = sha256.Sum256(b)
	}
	return nil
}

// accompany gives a copy the companion's files that it lacks. The caller has the
// copy.
func (v *Vault) accompany(ctx context.Context, c *copyOf) error {
	if err := v.begun(c); err != nil {
		return err
	}
	lacks, err := v.look(ctx, c)
	if err != nil {
		return err
	}
	return v.give(ctx, c, lacks)
}

// begun fails if a copy has not the head in force: it was taken away, and another folder
// is in its place. The caller has the copy, and so no head in it goes meanwhile.
func (v *Vault) begun(c *copyOf) error {
	var magic [len(headMagic)]byte
	err := c.Place.ReadAt(headName(v.Generation()), magic[:], 0)
	if errors.Is(err, fs.ErrNotExist) {
		return errNotThere
	}
	return err
}

// errNotThere is what is wrong with a folder that has nothing of the keyring where a
// copy was. A copy that was begun anew there, on whatever disk, would seem in step.
var errNotThere = holdfast.Errorf(holdfast.Unavailable, "there is no such file of the keyring in its folder: is its disk mounted? Nothing is written there. It is caught up when it is back; if it is lost, stop the hub, `holdfast keyring remove-copy`, and `holdfast keyring add-copy`")

// lookEvery is how often a companion's files in a copy are looked at when none is new.
const lookEvery = time.Minute

// sample forgets what the copy has lost of the companion's files, and one after the
// other what it has otherwise: that is looked at again.
func (c *copyOf) sample(names []string) error {
	maps.DeleteFunc(c.beside, func(name string, _ [sha256.Size]byte) bool { return !slices.Contains(names, name) })
	next := ""
	for name := range c.beside { // the one behind the last, or the first
		behind, best := name > c.at, next > c.at
		if next == "" || behind && !best || behind == best && name < next {
			next = name
		}
	}
	c.looked, c.at = time.Now(), next
	if next == "" {
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

// differ returns the names of the place's files that a copy lacks or has otherwise,
// heads last, so that what one names is there. It writes nothing. The copy is ahead if
// a file in it goes on further than the place's.
func (v *Vault) differ(ctx context.Context, c *copyOf, names []string) (out []string, err error) {
	heads := func(name string) bool { return strings.HasPrefix(name, "head-") }
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !ours(n) }) // a restore takes whatever its copy has
	sorted := append(slices.DeleteFunc(slices.Clone(names), heads), slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !heads(n) })...)
	for _, name := range sorted {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		want, err := v.place.Read(name)
		if err != nil {
			return nil, err
		}
		have, err := c.Place.Read(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil && bytes.Equal(have, want) {
			continue
		}
		if strings.HasPrefix(name, "page-") && !c.known && entriesIn(have) > entriesIn(want) {
			return nil, ahead("its %s has %d owner keys, this data folder's %d", name, entriesIn(have), entriesIn(want))
		}
		if h, err := parseHead(have); err == nil && heads(name) {
			for _, p := range h.pages { // within a generation pages only come
				if n := (&page{id: p.id}).name(); !slices.Contains(names, n) {
					return nil, ahead("its %s names %s, which this data folder does not have", name, n)
				}
			}
		}
		out = append(out, name)
	}
	return out, nil
}
