package server

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/execholder"
	"github.com/holdfast-iot/holdfast/internal/vault/tpmholder"
)

// HolderState is a registered holder of the root key, and how it does.
type HolderState struct {
	Name     string      `json:"name"`
	Kind     string      `json:"kind"`
	URL      string      `json:"url"`
	Grade    vault.Grade `json:"grade"`
	Vouch    string      `json:"vouch,omitempty"`
	State    string      `json:"state"`
	AddedAt  time.Time   `json:"added_at,omitzero"`
	FencedAt time.Time   `json:"fenced_at,omitzero"`
	// Generations are those that it holds; nil if it was not asked.
	Generations []uint64 `json:"generations,omitempty"`
	Error       string   `json:"error,omitempty"`
	// Note is what a TPM says of itself.
	Note string `json:"note,omitempty"`
}

// The states of a registered holder.
const (
	HolderHolds    = "holds"
	HolderFails    = "fails"
	HolderFenced   = "fenced"
	HolderNotAsked = "not asked" // the hub runs
)

func stateOf(e keyHolder) HolderState {
	s := HolderState{Name: e.Name, Kind: schemeOf(e.URL), URL: e.URL, Grade: e.Grade, Vouch: e.Vouch, AddedAt: e.AddedAt, FencedAt: e.FencedAt, State: HolderNotAsked}
	if !e.FencedAt.IsZero() {
		s.State = HolderFenced
	}
	return s
}

// noteOf says what its grade stands on and how often a TPM was written, which wears
// it out.
func noteOf(ctx context.Context, h vault.Holder) string {
	tpm, ok := h.(*tpmholder.Holder)
	if !ok {
		return ""
	}
	s, err := tpm.Status(ctx)
	if err != nil {
		return ""
	}
	note := fmt.Sprintf("counter %d, %d increments", s.Counter, s.Increments)
	if s.Ahead {
		note += ", ahead of what was destroyed"
	}
	if why := tpm.Why(); why != "" {
		note += "; " + why
	}
	return note
}

// holderAsk bounds a question to a holder of whom only the state is wanted.
const holderAsk = 30 * time.Second

// ListHolders returns the registered holders. While the hub runs it does not ask
// them.
func ListHolders(ctx context.Context, c Config) (out []HolderState, err error) {
	c = c.withDefaults()
	data := c.Ground.Folder(c.Data)
	f, err := readFolder(data, c.Data)
	if err != nil {
		return nil, err
	}
	k, err := readKeys(data, c.Data, f)
	if err != nil {
		return nil, err
	}
	lock, err := takeFolder(data, c.Data)
	running := holdfast.KindOf(err) == holdfast.Conflict
	if err != nil && !running {
		return nil, err
	} else if err == nil {
		defer lock.Close()
	}
	for _, e := range k.Holders {
		s := stateOf(e)
		if !running && s.State != HolderFenced {
			s.State = HolderHolds
			in, cancel := context.WithTimeout(ctx, holderAsk)
			h, err := c.openHolder(in, f, e)
			if err == nil {
				s.Generations, err = h.Generations(in)
				s.Note = noteOf(in, h)
				err = errors.Join(err, closeHolder(h))
			}
			cancel()
			if err != nil {
				s.State, s.Error = HolderFails, err.Error()
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// HolderSpec is a holder to be added.
type HolderSpec struct {
	Name, URL string
	Vouch     string // who answers for a program's grade being purge
}

var holderName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// check compares a new holder with those there are.
func (s HolderSpec) check(c Config, k keys) (holderURL, error) {
	u, err := parseHolder(s.URL)
	if err != nil {
		return u, err
	}
	if !holderName.MatchString(s.Name) {
		return u, holdfast.Errorf(holdfast.Invalid, "%q is no name for a holder: small letters, digits and hyphens, 40 at most", s.Name)
	}
	if i := k.holder(s.Name); i >= 0 && k.Holders[i].Fresh {
		was := k.Holders[i]
		with := "without --vouch"
		if was.Vouch != "" {
			with = "with the same --vouch"
		}
		return u, holdfast.Errorf(holdfast.Conflict, "holder %s was being added as %s when that was cut short: add it again with that, %s, or take it back: holdfast holder remove %[1]s", s.Name, was.URL, with)
	}
	taken := k.holder(s.Name) >= 0 || slices.ContainsFunc(k.Past, func(p pastHolder) bool { return p.Holder == s.Name })
	if taken || s.Name == rootKeyHolder {
		return u, holdfast.Errorf(holdfast.Conflict, "the name %s is or was another holder's, which certificates name: take a new one", s.Name)
	}
	if s.Vouch != "" {
		if u.scheme != schemeExec {
			return u, holdfast.Errorf(holdfast.Invalid, "nobody can vouch for a holder of the kind %s: a file is overwritten as far as the system lets one, and a TPM shows its maker itself", u.scheme)
		}
		if err := checkVouch(s.Vouch); err != nil {
			return u, err
		}
	}
	for _, e := range k.Holders {
		if e.URL == "" { // nobody knows where it is
			continue
		}
		other, err := parseHolder(e.URL)
		if err != nil {
			return u, err
		}
		path := other.path
		if e.Name == rootKeyHolder {
			path = cmp.Or(c.RootKey, path)
		}
		same := e.URL == s.URL
		switch {
		case u.scheme == schemeFile && other.scheme == schemeFile:
			same = path == u.path || sameFile(path, u.path)
		case u.scheme == schemeExec && other.scheme == schemeExec:
			same = slices.Equal(u.args, other.args) && (u.path == other.path || sameFile(u.path, other.path))
		}
		if same {
			return u, holdfast.Errorf(holdfast.Conflict, "that is holder %s already: two in one place are lost together", e.Name)
		}
	}
	return u, nil
}

func checkVouch(name string) error {
	bad := func(r rune) bool { return !unicode.IsPrint(r) }
	if strings.TrimSpace(name) != name || name == "" || len(name) > 100 || strings.ContainsFunc(name, bad) {
		return holdfast.Errorf(holdfast.Invalid, "who vouches is named in certificates: printable text of 100 bytes at most, without spaces around it")
	}
	return nil
}

func isFolder(on vault.Files, path string) bool {
	info, err := on.Stat(path)
	return err == nil && info.IsDir()
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// create makes a new holder, or opens a program.
func (c Config) create(ctx context.Context, f folder, u holderURL) (vault.Holder, error) {
	switch u.scheme {
	case schemeFile:
		if inside(c.Data, u.path) {
			return nil, holdfast.Errorf(holdfast.Invalid, "%s lies in the data folder: whoever copies the folder would have both", u.path)
		}
		// A folder that is missing is where a disk is to be mounted: made here, it would lie
		// on another.
		if dir := filepath.Dir(u.path); !isFolder(c.Ground.RootKeys, dir) {
			return nil, holdfast.Errorf(holdfast.NotFound, "there is no folder %s: mount the disk that is to hold the root key, or make the folder (mkdir -m 700 %s)", dir, dir)
		}
		var pass []byte
		if u.passphrase != "" {
			var err error
			if pass, err = c.passphraseIn(u.passphrase); err != nil {
				return nil, err
			}
			defer clear(pass)
		}
		h, err := vault.TakeUpFileHolderOn(c.Ground.RootKeys, u.path, pass)
		if err != nil {
			return nil, err
		}
		return h, nil
	case schemeTPM:
		if inside(c.Data, u.tpm.State) {
			return nil, holdfast.Errorf(holdfast.Invalid, "the state file %s of the TPM lies in the data folder: name one outside", u.tpm.State)
		}
		return tpmholder.Create(ctx, u.tpm)
	}
	return execholder.Open(ctx, u.path, u.args, f.Hub)
}

// uncreate removes what create made, of a holder that holds nothing.
func (c Config) uncreate(ctx context.Context, u holderURL) {
	switch u.scheme {
	case schemeFile:
		c.Ground.RootKeys.Remove(u.path)
	case schemeTPM:
		tpmholder.Remove(ctx, u.tpm)
	}
}

// AddHolder gives the keyring of a stopped hub another holder of its root key.
//
// It is on record as fenced before it gets the key: wherever a crash comes, nobody
// who could open is left out of account.
func AddHolder(ctx context.Context, c Config, spec HolderSpec) (_ HolderState, err error) {
	c = c.withDefaults()
	s, err := openKeyring(ctx, c)
	if err != nil {
		return HolderState{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	begun := slices.IndexFunc(s.keys.Holders, func(e keyHolder) bool {
		return e.Fresh && !e.FencedAt.IsZero() && e.Name == spec.Name && e.URL == spec.URL && e.Vouch == spec.Vouch
	})
	var u holderURL
	if begun < 0 {
		if u, err = spec.check(c, s.keys); err != nil {
			return HolderState{}, err
		}
	}
	data := c.Ground.Folder(c.Data)
	if r, _, err := readRelease(data, c.Data); err != nil {
		return HolderState{}, err
	} else if r.From != nil {
		return HolderState{}, holdfast.Errorf(holdfast.Conflict, "the upgrade from version %s is not confirmed: that version asks no second holder to destroy. Confirm it first: holdfast upgrade --confirm --data %s", r.From.Version, c.Data)
	}
	if begun >= 0 { // it has its place, and perhaps a key, since an attempt that was cut short
		return s.rejoin(ctx, c, &s.keys.Holders[begun], "root key holder added")
	}
	h, err := c.create(ctx, s.folder, u)
	if err != nil {
		return HolderState{}, err
	}
	defer closeHolder(h)
	e := keyHolder{Name: spec.Name, URL: spec.URL, Vouch: spec.Vouch, FencedAt: time.Now().UTC().Truncate(time.Second), Fresh: true}
	if i, ok := h.(identified); ok {
		e.ID = i.ID()
	}
	member := vault.Registered(h, e.Name, e.Vouch)
	e.Grade = member.Grade()
	gens, err := h.Generations(ctx)
	if err == nil && len(gens) > 0 {
		err = holdfast.Errorf(holdfast.Conflict, "what is at %s holds root keys already (generations %v). Nothing was changed. Give a new place", spec.URL, gens)
	}
	if err == nil {
		s.keys.Holders = append(s.keys.Holders, e)
		err = s.keys.write(data)
	}
	if err != nil {
		closeHolder(h)
		c.uncreate(ctx, u)
		return HolderState{}, err
	}
	if _, err := s.vault.Join(ctx, member, true); err != nil {
		return HolderState{}, s.undoAdd(ctx, c, member, h, u, err)
	}
	e.AddedAt, e.FencedAt, e.Fresh = e.FencedAt, time.Time{}, false
	s.keys.Holders[len(s.keys.Holders)-1] = e
	if err := s.keys.write(data); err != nil {
		return HolderState{}, err
	}
	state := stateOf(e)
	state.State, state.Generations = HolderHolds, []uint64{s.vault.Generation()}
	return state, s.record(ctx, "root key holder added", e)
}

// undoAdd takes a holder back off the record that could not be added, if it is sure
// that it holds nothing.
func (s *stores) undoAdd(ctx context.Context, c Config, member, h vault.Holder, u holderURL, cause error) error {
	if _, err := s.vault.Leave(ctx, member); err != nil {
		return fmt.Errorf("%w. It may hold a root key, and stays registered as fenced: holdfast holder return %[2]s once it works, or holdfast holder remove %[2]s", cause, member.Name())
	}
	s.keys.Holders = s.keys.Holders[:len(s.keys.Holders)-1]
	if err := s.keys.write(c.Ground.Folder(c.Data)); err != nil {
		return errors.Join(cause, err)
	}
	closeHolder(h)
	c.uncreate(ctx, u)
	return cause
}

// holderChange is what the hub's record says of a holder.
type holderChange struct {
	Holder     string      `json:"holder"`
	Kind       string      `json:"kind"`
	Grade      vault.Grade `json:"grade"`
	Generation uint64      `json:"generation"`
}

// record writes down in the ledger that something changed about a holder.
func (s *stores) record(ctx context.Context, kind string, e keyHolder) error {
	l, err := ledger.Open(ctx, s.catalog, s.vault)
	if err != nil {
		return err
	}
	return s.catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := l.Append(ctx, tx, vault.Hub, kind, holderChange{e.Name, schemeOf(e.URL), e.Grade, s.vault.Generation()})
		return err
	})
}

// FenceHolder has a holder of a stopped hub not be asked any more: it is lost, or
// broken, or not to be trusted. It needs no holder to answer. opens is why the hub
// still can't be started then, nil if it can.
func FenceHolder(ctx context.Context, c Config, name string) (_ HolderState, opens error, _ error) {
	c = c.withDefaults()
	data := c.Ground.Folder(c.Data)
	e, err := fence(ctx, c, data, name)
	if err != nil {
		return HolderState{}, nil, err
	}
	s, opens := openKeyring(ctx, c)
	if opens == nil {
		opens = errors.Join(s.record(ctx, "root key holder fenced", e), s.close())
	}
	return stateOf(e), opens, nil
}

func fence(ctx context.Context, c Config, data Folder, name string) (e keyHolder, err error) {
	f, err := readFolder(data, c.Data)
	if err != nil {
		return e, err
	}
	lock, err := takeThisVersions(ctx, c, data)
	if err != nil {
		return e, err
	}
	defer lock.Close()
	k, err := readKeys(data, c.Data, f)
	if err != nil {
		return e, err
	}
	h, err := k.known(name)
	if err != nil {
		return e, err
	}
	if !h.FencedAt.IsZero() {
		return e, holdfast.Errorf(holdfast.Conflict, "holder %s is fenced already, since %s", name, h.FencedAt.Format(time.RFC3339))
	}
	if len(k.options().Fenced) == len(k.Holders)-1 {
		return e, holdfast.Errorf(holdfast.Conflict, "holder %s is the only one that is not fenced: without it the data can't be opened", name)
	}
	h.FencedAt = time.Now().UTC().Truncate(time.Second)
	return *h, k.write(data)
}

// ReturnHolder asks a fenced holder again: it destroys all that it held, which
// completes what certificates name as pending, and gets the root key in force.
//
// Of one that was added after the backup from which the hub was restored nobody knows
// where it is: url says so, and it must open what the keyring's head has for that name.
func ReturnHolder(ctx context.Context, c Config, name, url string) (_ HolderState, err error) {
	c = c.withDefaults()
	s, err := openKeyring(ctx, c)
	if err != nil {
		return HolderState{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	e, err := s.keys.known(name)
	if err != nil {
		return HolderState{}, err
	}
	switch {
	case e.FencedAt.IsZero():
		return HolderState{}, holdfast.Errorf(holdfast.Conflict, "holder %s is not fenced", name)
	case e.URL != "" && url != "" && url != e.URL:
		return HolderState{}, holdfast.Errorf(holdfast.Conflict, "holder %s is registered as %s: put it back there, and leave --url out", name, e.URL)
	case e.URL == "" && url == "":
		return HolderState{}, holdfast.Errorf(holdfast.Conflict, "nobody knows where holder %s is: it was added after the backup that this hub was restored from. Say so: holdfast holder return %[1]s --url URL, as it was added. If it is gone for good, and somebody answers for what it held: holdfast holder remove %[1]s --vouch WHO; then add another under another name", name)
	case e.URL == "":
		if err := s.place(ctx, c, e, url); err != nil {
			return HolderState{}, err
		}
	}
	return s.rejoin(ctx, c, e, "root key holder returned")
}

// place says where a holder is that is known by name only, if what is there is that one.
func (s *stores) place(ctx context.Context, c Config, e *keyHolder, url string) error {
	other := HolderSpec{Name: "another", URL: url}
	if _, err := other.check(c, s.keys); err != nil {
		return err
	}
	found := *e
	found.URL = url
	h, err := c.openHolder(ctx, s.folder, found)
	if err != nil {
		return err
	}
	defer closeHolder(h)
	if err := s.vault.Knows(ctx, vault.Registered(h, e.Name, "")); err != nil {
		return err
	}
	if i, ok := h.(identified); ok && e.Name != rootKeyHolder {
		found.ID = i.ID()
	}
	found.Grade = h.Grade()
	*e = found
	return nil
}

// rejoin gives a registered holder that is fenced a part in the keyring.
func (s *stores) rejoin(ctx context.Context, c Config, e *keyHolder, kind string) (HolderState, error) {
	h, err := c.openHolder(ctx, s.folder, *e)
	if err != nil {
		return HolderState{}, err
	}
	defer closeHolder(h)
	said, err := s.vault.Join(ctx, vault.Registered(h, e.Name, e.Vouch), false)
	if err != nil {
		return HolderState{}, err
	}
	if !e.Fresh {
		s.keys.Past = append(s.keys.Past, pastHolder{Statement: said})
	} else {
		e.AddedAt = e.FencedAt
	}
	e.FencedAt, e.Fresh = time.Time{}, false
	if err := s.keys.write(c.Ground.Folder(c.Data)); err != nil {
		return HolderState{}, err
	}
	state := stateOf(*e)
	state.State, state.Generations = HolderHolds, []uint64{s.vault.Generation()}
	return state, s.record(ctx, kind, *e)
}

// RemoveHolder ends a holder's part: it destroys all that it holds. For one that is
// fenced and gone for good, vouched is who answers that what it held is destroyed.
func RemoveHolder(ctx context.Context, c Config, name, vouched string) (_ vault.Statement, err error) {
	c = c.withDefaults()
	s, err := openKeyring(ctx, c)
	if err != nil {
		return vault.Statement{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	e, err := s.keys.known(name)
	if err != nil {
		return vault.Statement{}, err
	}
	data, was := c.Ground.Folder(c.Data), *e
	u, err := parseHolder(e.URL)
	if err != nil && vouched == "" {
		return vault.Statement{}, err
	}
	var said vault.Statement
	if vouched != "" {
		if err := checkVouch(vouched); err != nil {
			return said, err
		}
		if said, err = s.vault.LeaveFor(ctx, name, vouched); err != nil {
			return said, fmt.Errorf("%w: without --vouch it destroys by itself", err)
		}
	} else if said, err = s.leave(ctx, c, data, e); err != nil {
		return said, err
	}
	s.keys.Holders = slices.DeleteFunc(s.keys.Holders, func(h keyHolder) bool { return h.Name == name })
	s.keys.Past = append(s.keys.Past, pastHolder{said, true})
	if err := s.keys.write(data); err != nil {
		return said, err
	}
	if vouched == "" && name != rootKeyHolder {
		c.uncreate(ctx, u) // it holds nothing any more
	}
	return said, s.record(ctx, "root key holder removed", was)
}

// leave has a holder destroy everything. It is on record as fenced before.
func (s *stores) leave(ctx context.Context, c Config, data Folder, e *keyHolder) (said vault.Statement, err error) {
	if e.FencedAt.IsZero() && len(s.holders) == 1 {
		return said, holdfast.Errorf(holdfast.Conflict, "holder %s is the only one that is not fenced: without it the data can't be opened. Add another first", e.Name)
	}
	var h vault.Holder
	s.holders = slices.DeleteFunc(slices.Clone(s.holders), func(o held) bool {
		if o.Name == e.Name {
			h = o.holder // closed here, so that what was made of it can go
		}
		return o.Name == e.Name
	})
	if h == nil {
		if h, err = c.openHolder(ctx, s.folder, *e); err != nil {
			return said, fmt.Errorf("%w. If it is gone for good, and somebody answers for what it held being destroyed: holdfast holder remove %s --vouch WHO", err, e.Name)
		}
	}
	defer closeHolder(h)
	if e.FencedAt.IsZero() {
		e.FencedAt = time.Now().UTC().Truncate(time.Second)
		if err := s.keys.write(data); err != nil {
			return said, err
		}
	}
	if said, err = s.vault.Leave(ctx, vault.Registered(h, e.Name, e.Vouch)); err != nil {
		return said, fmt.Errorf("%w. It may still hold root keys, and is fenced from now on", err)
	}
	return said, nil
}
