package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// KeyringState is the keyring of a data folder with its copies.
type KeyringState struct {
	Folder string       `json:"folder"`
	Head   string       `json:"head"` // name of the newest one
	Files  int          `json:"files"`
	Copies []CopyReport `json:"copies"`
	Runs   bool         `json:"hub_runs"`
}

// CopyReport says how a copy compares with the keyring.
type CopyReport struct {
	Name  string `json:"name"`
	URL   string `json:"url"`
	State string `json:"state"`
	// Error is why it can't be read.
	Error string           `json:"error,omitempty"`
	Check *vault.CopyCheck `json:"check,omitempty"`
}

// The states of a copy. Of a hub that runs only the names of files are compared, and
// whether one is ahead says its doctor.
const (
	CopyWhole   = "whole"
	CopyInStep  = "in step"
	CopyDiffers = "differs"
	CopyAhead   = "ahead" // it has take-backs that this hub does not know
	CopyUnread  = "can't be read"
)

// ShowKeyring compares the copies of the keyring with it: names of files, or, of a
// stopped hub and if deep, every byte.
func ShowKeyring(ctx context.Context, c Config, deep bool, name string) (r KeyringState, err error) {
	c = c.withDefaults()
	data := c.Ground.Folder(c.Data)
	f, err := readFolder(data, c.Data)
	if err != nil {
		return r, err
	}
	k, err := readKeys(data, c.Data, f)
	if err != nil {
		return r, err
	}
	lock, err := takeFolder(data, c.Data)
	if r.Runs = holdfast.KindOf(err) == holdfast.Conflict; err != nil && (!r.Runs || deep) {
		return r, err
	} else if err == nil {
		defer lock.Close()
	}
	r.Folder, r.Copies = filepath.Join(c.Data, keyringDir), []CopyReport{}
	head, files, err := newestHead(r.Folder)
	if err != nil {
		return r, err
	}
	r.Head, r.Files = head, len(files)
	if name != "" && k.copy(name) < 0 {
		return r, noCopy(name, k)
	}
	for _, e := range k.Copies {
		if name == "" || name == e.Name {
			r.Copies = append(r.Copies, c.compareCopy(ctx, e, r.Folder, files, deep))
		}
	}
	if !r.Runs && len(r.Copies) > 0 {
		return r, c.lookBeside(ctx, &r)
	}
	return r, nil
}

// lookBeside finds the copies that have take-backs which the stopped hub does not know.
// A catalog of another version is left to its holdfast.
func (c Config) lookBeside(ctx context.Context, r *KeyringState) (err error) {
	dir := filepath.Join(c.Data, catalogDir)
	if have, err := catalog.Version(ctx, dir); err != nil || have != catalog.Known() {
		return err
	}
	db, err := catalog.Open(ctx, dir, c.Ground.Catalog)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for i := range r.Copies {
		e := &r.Copies[i]
		if e.State == CopyUnread {
			continue
		}
		dir, err := c.copyFolder(e.URL)
		if err == nil {
			err = vault.LookBeside(ctx, signedTakeBacks{catalog: db}, c.Ground.Keyring(dir))
		}
		switch {
		case holdfast.KindOf(err) == holdfast.Conflict:
			e.State, e.Error = CopyAhead, err.Error()
		case err != nil:
			e.State, e.Error = CopyUnread, err.Error()
		}
	}
	return nil
}

func (c Config) compareCopy(ctx context.Context, e keyringCopy, folder string, files []string, deep bool) CopyReport {
	r := CopyReport{Name: e.Name, URL: e.URL, State: CopyUnread}
	dir, err := c.copyFolder(e.URL)
	var theirs []string
	if err == nil {
		_, theirs, err = newestHead(dir)
	}
	if err == nil && deep {
		var check vault.CopyCheck
		if check, err = vault.VerifyCopy(c.Ground.Keyring(folder), c.Ground.Keyring(dir)); err == nil {
			err = c.compareTakeBacks(ctx, dir, &check)
		}
		if err == nil {
			r.Check = &check
			if r.State = CopyWhole; len(check.Missing)+len(check.Different) > 0 {
				r.State = CopyDiffers
			}
			return r
		}
	}
	if err != nil {
		r.Error = err.Error()
		return r
	}
	r.State = CopyInStep
	for _, name := range files {
		if !slices.Contains(theirs, name) && !strings.HasPrefix(name, takeBackPrefix) {
			r.State = CopyDiffers
		}
	}
	return r
}

// compareTakeBacks adds to a check what of the take-backs beside a copy is not as the
// hub has it.
func (c Config) compareTakeBacks(ctx context.Context, dir string, check *vault.CopyCheck) error {
	files, err := takeBacksIn(dir)
	if err != nil {
		return err
	}
	at := filepath.Join(c.Data, catalogDir)
	if have, err := catalog.Version(ctx, at); err != nil {
		return err
	} else if have != catalog.Known() {
		return holdfast.Errorf(holdfast.Conflict, "the data folder is not of this version: holdfast upgrade --data %s first", c.Data)
	}
	db, err := catalog.Open(ctx, at, c.Ground.Catalog)
	if err != nil {
		return err
	}
	missing, different, err := ledger.TakeBacksDiffer(ctx, db, files)
	check.Files += len(missing) + len(files)
	check.Missing, check.Different = append(check.Missing, missing...), append(check.Different, different...)
	return errors.Join(err, db.Close())
}

// copy returns the index of the one of this name, -1 if there is none.
func (k *keys) copy(name string) int {
	return slices.IndexFunc(k.Copies, func(e keyringCopy) bool { return e.Name == name })
}

func noCopy(name string, k keys) error {
	names := []string{}
	for _, e := range k.Copies {
		names = append(names, e.Name)
	}
	if len(names) == 0 {
		return holdfast.Errorf(holdfast.NotFound, "there is no copy %q: the keyring has none", name)
	}
	return holdfast.Errorf(holdfast.NotFound, "there is no copy %q: there are %s", name, strings.Join(names, ", "))
}

// AddCopy gives the keyring of a stopped hub another place. All of it is there before
// the copy is registered.
func AddCopy(ctx context.Context, c Config, name, url string) (err error) {
	c = c.withDefaults()
	dir, err := c.copyFolder(url)
	if err != nil {
		return err
	}
	if !holderName.MatchString(name) {
		return holdfast.Errorf(holdfast.Invalid, "%q is no name for a copy: small letters, digits and hyphens, 40 at most", name)
	}
	if info, err := c.Ground.RootKeys.Stat(dir); err != nil {
		return holdfast.Errorf(holdfast.NotFound, "there is no folder %s: mount the disk or share, and make the folder, with mode 700, as the user that the hub runs as", dir)
	} else if !info.IsDir() {
		return holdfast.Errorf(holdfast.Invalid, "%s is no folder", dir)
	}
	s, err := openKeyring(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, e := range s.keys.Copies {
		other, err := c.copyFolder(e.URL)
		if e.Name == name {
			return holdfast.Errorf(holdfast.Conflict, "there is a copy %s already, in %s", name, e.URL)
		} else if err == nil && (other == dir || sameFile(other, dir)) {
			return holdfast.Errorf(holdfast.Conflict, "that is the copy %s already", e.Name)
		}
	}
	place := c.Ground.Keyring(dir)
	if err := checkEmpty(place, c.Ground.Keyring(filepath.Join(c.Data, keyringDir)), dir); err != nil {
		return err
	}
	l, err := ledger.Open(ctx, s.catalog, s.vault)
	if err != nil {
		return err
	}
	s.vault.Accompany(takeBacks{l})
	if err := s.vault.AddCopy(ctx, vault.Copy{Name: name, Place: place}); err != nil {
		return fmt.Errorf("copy the keyring to %s: %w", dir, err)
	}
	s.keys.Copies = append(s.keys.Copies, keyringCopy{Name: name, URL: "file:" + dir})
	if err := s.keys.write(c.Ground.Folder(c.Data)); err != nil {
		return err
	}
	return s.recordCopy(ctx, l, "keyring copy added", name)
}

// checkEmpty refuses a folder in which something other than a keyring lies. What an
// AddCopy that was cut short has left are files of own.
func checkEmpty(p, own vault.Place, dir string) error {
	names, err := p.List()
	if err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "read %s: %w", dir, err)
	}
	if slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "head-") }) {
		return nil
	}
	ours, err := own.List()
	if err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "read the keyring: %w", err)
	}
	if i := slices.IndexFunc(names, func(n string) bool { return !slices.Contains(ours, n) }); i >= 0 {
		return holdfast.Errorf(holdfast.Conflict, "%s is not empty (%s), and has no keyring: name a folder of its own. If an add-copy was cut short here, remove what it left first", dir, names[i])
	}
	return nil
}

// RemoveCopy ends a copy of the keyring of a stopped hub. Its files stay where they
// are.
func RemoveCopy(ctx context.Context, c Config, name string) (url string, err error) {
	c = c.withDefaults()
	s, err := openKeyring(ctx, c)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	at := s.keys.copy(name)
	if at < 0 {
		return "", noCopy(name, s.keys)
	}
	url = s.keys.Copies[at].URL
	s.keys.Copies = slices.Delete(s.keys.Copies, at, at+1)
	if err := s.keys.write(c.Ground.Folder(c.Data)); err != nil {
		return "", err
	}
	l, err := ledger.Open(ctx, s.catalog, s.vault)
	if err != nil {
		return "", err
	}
	return url, s.recordCopy(ctx, l, "keyring copy removed", name)
}

// recordCopy writes down in the ledger that something changed about a copy.
func (s *stores) recordCopy(ctx context.Context, l *ledger.Ledger, kind, name string) error {
	return s.catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := l.Append(ctx, tx, vault.Hub, kind, map[string]any{"copy": name, "generation": s.vault.Generation()})
		return err
	})
}
