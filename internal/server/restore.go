package server

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// RestoreOptions is what a restore is made of.
type RestoreOptions struct {
	From       *backup.Folder
	Snapshot   string // "": the newest
	Identities []age.Identity
	Keyring    string // a folder with the newest copy of the keyring
	Verifier   string // the hub's public key; "": what the backup itself names
	Progress   func(backup.Progress)
}

// Restored is what a restore did, or what a drill found.
type Restored struct {
	Snapshot  string        `json:"snapshot"`
	Hub       string        `json:"hub"`
	Taken     time.Time     `json:"taken"` // when the backup began
	Dir       string        `json:"dir,omitempty"`
	Readings  int64         `json:"readings"`
	Streams   int           `json:"streams"`
	Chunks    int           `json:"chunks"`
	Lost      []Lost        `json:"lost,omitempty"`      // what was erased, or sealed again, since
	Different []string      `json:"different,omitempty"` // streams that have not what the backup says
	Ledger    string        `json:"ledger,omitempty"`    // its name from now on
	Verifier  string        `json:"verifier,omitempty"`
	Admin     string        `json:"admin,omitempty"`     // folder of the administrator's identity
	TakenBack uint64        `json:"taken_back"`          // take-backs that were carried out again
	Suspended string        `json:"suspended,omitempty"` // why nobody is let in until it is confirmed
	Took      time.Duration `json:"took_ns"`
}

// Lost is a stream of which some can't be opened any more.
type Lost struct {
	Stream string `json:"stream"`
	Chunks int    `json:"chunks"`
}

// Restore makes a new data folder, c.Data, from a backup and a copy of the keyring,
// under the root key c.RootKey. What was taken back since is carried out again
// before it returns; if it can't be shown that all of that is known, the hub is
// suspended. One that was cut short goes on.
func Restore(ctx context.Context, c Config, o RestoreOptions) (r Restored, err error) {
	began := time.Now()
	c, reader, state, err := prepareRestore(c, o)
	if err != nil {
		return r, err
	}
	r = Restored{Snapshot: reader.Snapshot, Hub: reader.Statement.Hub, Taken: reader.Statement.Began, Dir: c.Data}
	if err := fetchAll(ctx, c, o, reader, state); err != nil {
		return r, err
	}
	if err := registerRestored(ctx, &c, o.Keyring); err != nil {
		return r, err
	}
	c.restored = true
	if err := examineRestored(ctx, c, reader, &r, false); err != nil {
		return r, err
	}
	files, err := filesIn(o.Keyring)
	if err != nil {
		return r, err
	}
	replayed, err := ReplayTakeBacks(ctx, c, files)
	if err != nil {
		return r, err
	}
	r.TakenBack = replayed.Replayed
	renewed, err := RenewLedger(ctx, c, nil, true)
	if err != nil {
		return r, err
	}
	r.Ledger, r.Verifier = renewed.Origin, renewed.Verifier
	r.Suspended = replayed.Short
	if err := finishRestore(ctx, c, state, &r); err != nil {
		return r, err
	}
	r.Took = time.Since(began)
	return r, nil
}

// prepareRestore looks at everything before anything is written, but for the folder.
func prepareRestore(c Config, o RestoreOptions) (Config, *backup.Reader, restoredState, error) {
	c = c.withDefaults()
	var state restoredState
	fail := func(err error) (Config, *backup.Reader, restoredState, error) { return c, nil, state, err }
	reader, err := o.From.Open(o.Snapshot, o.Identities, o.Verifier)
	if err != nil {
		return fail(err)
	}
	st := &reader.Statement
	if st.Catalog > catalog.Known() {
		return fail(holdfast.Errorf(holdfast.Conflict, "the backup was made by holdfast %s (catalog %d), this program knows catalogs up to %d: use that one, or a newer", st.Program, st.Catalog, catalog.Known()))
	}
	if c.Data, err = filepath.Abs(c.Data); err != nil {
		return fail(err)
	}
	if c.RootKey, err = filepath.Abs(c.RootKey); err != nil {
		return fail(err)
	}
	if inside(c.Data, c.RootKey) {
		return fail(holdfast.Errorf(holdfast.Invalid, "the root key must not lie in the data folder"))
	}
	if _, _, err := newestHead(o.Keyring); err != nil {
		return fail(err)
	}
	state, err = readRestored(osFolder(c.Data))
	if err != nil {
		return fail(err)
	}
	if state.Format != "" && !state.Whole {
		if state.Hub != st.Hub || state.Snapshot != reader.Snapshot {
			return fail(holdfast.Errorf(holdfast.Conflict, "%s has the beginning of a restore of backup %s of hub %s: go on with that, or name a new folder", c.Data, state.Snapshot, state.Hub))
		}
		return c, reader, state, nil
	}
	if entries, err := os.ReadDir(c.Data); err == nil && len(entries) > 0 {
		return fail(holdfast.Errorf(holdfast.Conflict, "%s is not empty: a restore makes a new folder. Nothing was changed", c.Data))
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	state = restoredState{Format: restoreFormat, Hub: st.Hub, Snapshot: reader.Snapshot, At: time.Now().UTC()}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return fail(holdfast.Errorf(holdfast.Unavailable, "make data folder: %w", err))
	}
	return c, reader, state, osFolder(c.Data).WriteJSON(restoreFile, state)
}

// newestHead finds the newest head among a keyring's files, by its name.
func newestHead(dir string) (name string, files []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", nil, holdfast.Errorf(holdfast.NotFound, "read the copy of the keyring: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || filepath.Ext(e.Name()) != "" {
			continue
		}
		files = append(files, e.Name())
		if ok, _ := filepath.Match("head-*", e.Name()); ok {
			name = max(name, e.Name())
		}
	}
	if name == "" {
		return "", nil, holdfast.Errorf(holdfast.Invalid, "%s is no copy of a keyring: it has no head", dir)
	}
	return name, files, nil
}

func filesIn(dir string) (map[string][]byte, error) {
	_, names, err := newestHead(dir)
	if err != nil {
		return nil, err
	}
	all := map[string][]byte{}
	for _, name := range names {
		if all[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, holdfast.Errorf(holdfast.Unavailable, "read the copy of the keyring: %w", err)
		}
	}
	return all, nil
}

// fetchAll puts catalog, segments and keyring into the folder.
func fetchAll(ctx context.Context, c Config, o RestoreOptions, reader *backup.Reader, state restoredState) error {
	if err := os.RemoveAll(filepath.Join(c.Data, keyringDir)); err != nil { // of an attempt with another copy
		return holdfast.Errorf(holdfast.Unavailable, "restore keyring: %w", err)
	}
	for _, sub := range []string{catalogDir, journalDir, segmentsDir, keyringDir, adminDir} {
		if err := os.Mkdir(filepath.Join(c.Data, sub), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return holdfast.Errorf(holdfast.Unavailable, "make data folder: %w", err)
		}
	}
	if err := reader.FetchCatalog(ctx, filepath.Join(c.Data, catalogDir)); err != nil {
		return err
	}
	blobs, err := blob.OpenDir(filepath.Join(c.Data, segmentsDir))
	if err != nil {
		return err
	}
	err = reader.FetchSegments(ctx, filepath.Join(c.Data, catalogDir), blobs, o.Progress)
	if err = errors.Join(err, blobs.Close()); err != nil {
		return err
	}
	files, err := filesIn(o.Keyring)
	if err != nil {
		return err
	}
	for name, content := range files {
		if strings.HasPrefix(name, takeBackPrefix) {
			continue // they are for the ledger, and are read where they lie
		}
		if err := writeFile(filepath.Join(c.Data, keyringDir, name), content); err != nil {
			return holdfast.Errorf(holdfast.Unavailable, "restore keyring: %w", err)
		}
	}
	data := osFolder(c.Data)
	if err := errors.Join(syncFolder(filepath.Join(c.Data, keyringDir)), data.WriteJSON(releaseFile, newRelease(c.Version, nil))); err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "restore keyring: %w", err)
	}
	return data.WriteJSON(folderFile, folder{Format: folderFormat, Hub: state.Hub, RootKey: c.RootKey})
}

// examineRestored opens what was fetched, and holds it against what the backup says.
// With all, each chunk is decoded and the ledger computed anew.
func examineRestored(ctx context.Context, c Config, reader *backup.Reader, r *Restored, all bool) (err error) {
	s, err := openKept(ctx, c)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return holdfast.Errorf(holdfast.Conflict, "this keyring does not open the catalog of hub %s: it is another hub's, or another of its keyrings: %w", reader.Statement.Hub, err)
	} else if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.grants.Close(context.Background()), s.stores.close()) }()
	st, v := &reader.Statement, s.stores.vault
	switch {
	case v.Generation() < st.Generation:
		return holdfast.Errorf(holdfast.Conflict, "this keyring is of generation %d, the backup was made under %d: it is an older copy. Give the newest", v.Generation(), st.Generation)
	case v.Generation() == st.Generation && v.Owners() < st.KeyringOwners:
		return holdfast.Errorf(holdfast.Conflict, "this keyring lacks %d owner keys that there were when the backup was made: it is a copy that lags. Give the newest", st.KeyringOwners-v.Owners())
	}
	if s.ledger.Origin() != st.Ledger {
		return holdfast.Errorf(holdfast.Invalid, "the backup says that it is of ledger %s, its catalog is of %s: it was put together from two", st.Ledger, s.ledger.Origin())
	}
	if _, err := backup.ReadStatement(reader.Signed, s.ledger.VerifierKey()); err != nil {
		return holdfast.Errorf(holdfast.Invalid, "the backup is not signed by the key in its own catalog: %w", err)
	}
	want, err := reader.Tallies(ctx)
	if err != nil {
		return err
	}
	had := map[[32]byte]series.Tally{}
	key := func(t series.Tally) (k [32]byte) {
		copy(k[:], t.Assignment[:])
		copy(k[16:], t.Stream[:])
		return k
	}
	for _, t := range want {
		had[key(t)] = t
	}
	err = s.stores.catalog.Read(ctx, func(tx *sql.Tx) error {
		for t, err := range s.series.TallyIn(ctx, tx, all) {
			if err != nil {
				return err
			}
			r.Streams++
			r.Chunks += t.Chunks
			r.Readings += t.Readings
			if t.Lost > 0 {
				r.Lost = append(r.Lost, Lost{t.Stream.String(), t.Lost})
			} else if t.Readings != had[key(t)].Readings {
				r.Different = append(r.Different, t.Stream.String())
			}
			delete(had, key(t))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, t := range had {
		r.Different = append(r.Different, t.Stream.String())
	}
	if !all {
		if len(r.Different) > 0 {
			return holdfast.Errorf(holdfast.Invalid, "the backup has not the readings that it says, of %d streams", len(r.Different))
		}
		return nil
	}
	report, err := s.ledger.Verify(ctx)
	if err == nil && len(report.Faults) > 0 {
		err = holdfast.Errorf(holdfast.Invalid, "the ledger in the backup has %d faults: %s", len(report.Faults), report.Faults[0])
	}
	return err
}

// finishRestore makes an administrator and writes down what became of it.
func finishRestore(ctx context.Context, c Config, state restoredState, r *Restored) (err error) {
	s, err := openKept(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.grants.Close(context.Background()), s.stores.close()) }()
	party, err := s.custody.Operating(ctx)
	if err != nil {
		return err
	}
	admin, err := s.access.CreateAdministrator(ctx, party, "restore")
	if err != nil {
		return err
	}
	r.Admin = filepath.Join(c.Data, adminDir)
	for name, pem := range map[string][]byte{"key.pem": admin.Key, "cert.pem": admin.Certificate, "ca.pem": admin.CA} {
		if err := writeFile(filepath.Join(r.Admin, name), pem); err != nil {
			return holdfast.Errorf(holdfast.Unavailable, "write administrator: %w", err)
		}
	}
	if err := s.onRecord(ctx, "restored", map[string]any{"backup": r.Snapshot, "taken": r.Taken, "suspended": r.Suspended}); err != nil {
		return err
	}
	data := osFolder(c.Data)
	if r.Suspended == "" {
		return errors.Join(syncFolder(r.Admin), data.Remove(restoreFile))
	}
	state.Whole, state.Suspended, state.Why = true, true, r.Suspended
	state.Admins = append(state.Admins, admin.ID)
	return errors.Join(syncFolder(r.Admin), data.WriteJSON(restoreFile, state))
}

// onRecord writes an event on the hub's own record.
func (s *Server) onRecord(ctx context.Context, kind string, what any) error {
	return s.stores.catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := s.ledger.Append(ctx, tx, vault.Hub, kind, what)
		return err
	})
}

// Drill restores a backup into a folder of its own, which goes when it ends, opens
// it, decodes each chunk and computes the ledger anew. The root key's holders are
// asked to open, and for nothing else: the hub may run.
func Drill(ctx context.Context, c Config, o RestoreOptions) (r Restored, err error) {
	began := time.Now()
	scratch, err := os.MkdirTemp(c.Data, "holdfast-drill-")
	if err != nil {
		return r, holdfast.Errorf(holdfast.Unavailable, "make a folder for the drill: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	c.Data = filepath.Join(scratch, "data")
	c, reader, state, err := prepareRestore(c, o)
	if err != nil {
		return r, err
	}
	r = Restored{Snapshot: reader.Snapshot, Hub: reader.Statement.Hub, Taken: reader.Statement.Began}
	if err := fetchAll(ctx, c, o, reader, state); err != nil {
		return r, err
	}
	if err := registerRestored(ctx, &c, o.Keyring); err != nil {
		return r, err
	}
	c.restored, c.drill = true, true
	err = examineRestored(ctx, c, reader, &r, true)
	r.Took = time.Since(began)
	return r, err
}
