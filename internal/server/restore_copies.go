package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// RestoredCopy is a copy of the keyring that the hub had.
type RestoredCopy struct {
	Name string `json:"name"`
	URL  string `json:"url"`
	// Registered: the hub keeps it in step from its next start on. One that can't be
	// reached is late until then, as long as there is another.
	Registered bool   `json:"registered"`
	Why        string `json:"why,omitempty"` // it can't be reached
}

// ringAge is how new a keyring's files are. In one generation pages and take-backs
// only grow.
type ringAge struct {
	generation uint64
	pages      int64  // bytes
	takeBacks  string // the last batch
	batch      int64  // its bytes
}

// newerThan says of what a has more, empty: of nothing.
func (a ringAge) newerThan(b ringAge) string {
	switch {
	case a.generation != b.generation:
		if a.generation > b.generation {
			return fmt.Sprintf("its generation is %d, not %d", a.generation, b.generation)
		}
	case a.pages > b.pages:
		return "it has more owner keys"
	case a.takeBacks > b.takeBacks, a.takeBacks == b.takeBacks && a.batch > b.batch:
		return "it has more take-backs"
	}
	return ""
}

// ageOf reads how new a keyring's files are, and whose.
func ageOf(dir string) (a ringAge, ring [16]byte, err error) {
	heads, _, _, err := headsOf(dir)
	if err != nil {
		return a, ring, err
	}
	a.generation = heads[0].Generation
	entries, err := os.ReadDir(dir)
	if err != nil {
		return a, ring, holdfast.Errorf(holdfast.Unavailable, "read the copy of the keyring: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || filepath.Ext(e.Name()) != "" {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return a, ring, holdfast.Errorf(holdfast.Unavailable, "read the copy of the keyring: %w", err)
		}
		switch {
		case strings.HasPrefix(e.Name(), "page-"):
			a.pages += info.Size()
		case strings.HasPrefix(e.Name(), takeBackPrefix) && e.Name() > a.takeBacks:
			a.takeBacks, a.batch = e.Name(), info.Size()
		}
	}
	return a, heads[0].Ring, nil
}

// notCompared says of which of the hub's copies nobody could look whether it has more
// than the one that was given; empty: of none.
func notCompared(all []RestoredCopy) string {
	var names []string
	for _, r := range all {
		if r.Why != "" {
			names = append(names, r.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("the hub had another copy of the keyring that can't be compared with this one, and may be newer: %s", strings.Join(names, ", "))
}

// lookAtCopies says which of the hub's copies of the keyring can be reached. Nothing is
// written to any: the hub catches them up when it runs. It is a Conflict if one is
// newer than the one that was given.
func lookAtCopies(c Config, given string, former []keyringCopy) (out []RestoredCopy, err error) {
	have, ring, err := ageOf(given)
	if err != nil {
		return nil, err
	}
	reached := false
	var fits []bool // as far as is known it can be a copy again
	for _, f := range former {
		r := RestoredCopy{Name: f.Name, URL: f.URL}
		dir, err := c.copyFolder(f.URL)
		fit := err == nil
		if fit {
			var a ringAge
			var theirs [16]byte
			if a, theirs, err = ageOf(dir); err == nil && theirs != ring {
				fit, err = false, errors.New("it has another hub's keyring")
			} else if err == nil {
				why, other := a.newerThan(have), have.newerThan(a)
				if why != "" && other != "" { // neither is whole
					return nil, holdfast.Errorf(holdfast.Conflict, "neither copy of the keyring is whole: of the one in %s %s than in %s, of that %s. Of one generation pages and take-backs only grow: copy both into a third folder, of files with the same name the longer one, and restore with --keyring of that. Nothing was changed", dir, why, given, other)
				}
				if why != "" {
					return nil, holdfast.Errorf(holdfast.Conflict, "the copy of the keyring in %s is newer than the one in %s (%s): restore with --keyring %[1]s. Nothing was changed", dir, given, why)
				}
				reached = true
			}
		}
		if err != nil {
			r.Why = err.Error()
		}
		out, fits = append(out, r), append(fits, fit)
	}
	for i := range out {
		out[i].Registered = reached && fits[i]
	}
	return out, nil
}
