package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/scratch"
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

	// Holder is the URL of the holder that opens the keyring; "": the root key file
	// Config.RootKey. With Shares, that file is made.
	Holder string
	Shares *escrow.Private

	fault func(step string) error // asked after each step, by tests that end a restore there
}

// Restored is what a restore did, or what a drill found.
type Restored struct {
	Snapshot  string         `json:"snapshot"`
	Hub       string         `json:"hub"`
	Taken     time.Time      `json:"taken"` // when the backup began
	Dir       string         `json:"dir,omitempty"`
	Readings  int64          `json:"readings"`
	Streams   int            `json:"streams"`
	Chunks    int            `json:"chunks"`
	Lost      []Lost         `json:"lost"`             // what was erased, or sealed again, since
	Different []string       `json:"different"`        // streams that have not what the backup says
	Ledger    string         `json:"ledger,omitempty"` // its name from now on
	Verifier  string         `json:"verifier,omitempty"`
	Admin     string         `json:"admin,omitempty"`         // folder of the administrator's identity
	Holder    string         `json:"holder,omitempty"`        // who opened the keyring
	Fenced    []string       `json:"fenced,omitempty"`        // who else held the root key
	Deal      string         `json:"deal,omitempty"`          // whose recovery shares opened it, and were together
	Copies    []RestoredCopy `json:"copies,omitempty"`        // of the keyring
	Backups   int            `json:"backups,omitempty"`       // that certificates of erasure reckon with
	Unread    int            `json:"unread,omitempty"`        // of them, what the identities don't open
	TakenBack uint64         `json:"taken_back"`              // take-backs that were carried out again
	Until     time.Time      `json:"complete_until,omitzero"` // the copy's take-backs are all that there were until then
	Waiting   []Waits        `json:"waiting,omitempty"`       // erasures that can be undone yet
	Suspended string         `json:"suspended,omitempty"`     // why nobody is let in until it is confirmed
	Took      time.Duration  `json:"took_ns"`
}

// Lost is a stream of which some can't be opened any more.
type Lost struct {
	Stream string `json:"stream"`
	Chunks int    `json:"chunks"`
}

// restoring is a restore under way.
type restoring struct {
	c      Config
	o      RestoreOptions
	reader *backup.Reader
	state  restoredState
	by     opener
	former keys
	copies []RestoredCopy
	last   uint64   // number of the last take-back that the copy has
	lock   *os.File // of the folder, while nobody can open it yet
	r      Restored
}

type restoreStep struct {
	name string
	do   func(context.Context) error
}

// run does one step behind the other. Each can be done again: a restore that was cut
// short begins with the first, and fetches what is not there.
func (x *restoring) run(ctx context.Context, steps ...restoreStep) error {
	for _, s := range steps {
		if err := s.do(ctx); err != nil {
			return err
		}
		if x.o.fault != nil {
			if err := x.o.fault(s.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// Restore makes a new data folder, c.Data, from a backup and a copy of the keyring,
// under the root key c.RootKey or another holder. What was taken back since is carried
// out again before it returns; if it can't be shown that all of that is known, the hub
// is suspended. One that was cut short goes on.
func Restore(ctx context.Context, c Config, o RestoreOptions) (Restored, error) {
	began := time.Now()
	x := &restoring{c: c, o: o}
	if err := x.look(ctx, true); err != nil {
		return x.r, err
	}
	x.r.Dir, x.r.Copies = x.c.Data, x.copies
	err := x.run(ctx,
		restoreStep{"begun", x.begin},
		restoreStep{"catalog", x.fetchCatalog},
		restoreStep{"segments", x.fetchSegments},
		restoreStep{"keyring", x.fetchKeyring},
		restoreStep{"holders", x.register},
		restoreStep{"examined", func(ctx context.Context) error { x.c.restored = true; return x.examine(ctx, false) }},
		restoreStep{"replayed", x.replay},
		restoreStep{"renewed", x.renew},
		restoreStep{"finished", x.finish})
	err = errors.Join(x.needs(err), x.unlock(err == nil))
	x.r.Took = time.Since(began)
	return x.r, err
}

// look looks at everything before anything is written. fresh: the folder is to stay.
func (x *restoring) look(ctx context.Context, fresh bool) (err error) {
	x.c = x.c.withDefaults()
	if x.reader, err = x.o.From.Open(x.o.Snapshot, x.o.Identities, x.o.Verifier); err != nil {
		return err
	}
	st := &x.reader.Statement
	x.r = Restored{Snapshot: x.reader.Snapshot, Hub: st.Hub, Taken: st.Began, Lost: []Lost{}, Different: []string{}}
	if st.Catalog > catalog.Known() {
		return holdfast.Errorf(holdfast.Conflict, "the backup was made by holdfast %s (catalog %d), this program knows catalogs up to %d: use that one, or a newer. Nothing was changed", st.Program, st.Catalog, catalog.Known())
	}
	if (x.c.RootKey == "") == (x.o.Holder == "") {
		return holdfast.Errorf(holdfast.Invalid, "a restore needs one holder of the root key: its file, or the URL of another")
	}
	for _, path := range []*string{&x.c.Data, &x.c.RootKey, &x.o.Keyring} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if x.c.RootKey != "" && inside(x.c.Data, x.c.RootKey) {
		return holdfast.Errorf(holdfast.Invalid, "the root key must not lie in the data folder")
	}
	if inside(x.o.Keyring, x.c.Data) || inside(x.o.From.Dir(), x.c.Data) {
		return holdfast.Errorf(holdfast.Invalid, "the new folder %s must not lie in the copy of the keyring nor among the backups: name another. Nothing was changed", x.c.Data)
	}
	if err := x.lookAtFolder(); err != nil {
		return err
	}
	if x.o.Shares != nil && x.state.RootKey != x.c.RootKey {
		if _, err := os.Lstat(x.c.RootKey); !errors.Is(err, fs.ErrNotExist) {
			return holdfast.Errorf(holdfast.Conflict, "there is something at %s: the shares make a new root key, name a place for it", x.c.RootKey)
		}
	}
	if x.by, err = findOpener(ctx, x.c, x.o, st.Hub); err != nil {
		return err
	}
	if x.by.Name != rootKeyHolder && x.o.Holder == "" && len(x.c.Passphrase) > 0 {
		return holdfast.Errorf(holdfast.Invalid, "the root key %s is that of holder %s: say where its passphrase is with --holder \"file:%[1]s?passphrase-file=/PATH\"", x.c.RootKey, x.by.Name)
	}
	x.r.Holder = x.by.Name
	if x.former, err = formerKeys(x.o, st); err != nil || !fresh {
		return err
	}
	x.copies, err = lookAtCopies(x.c, x.o.Keyring, x.former.Copies)
	return err
}

// lookAtFolder accepts a folder that is not there, or empty, or has the beginning of
// this restore.
func (x *restoring) lookAtFolder() (err error) {
	st, dir := &x.reader.Statement, x.c.Data
	if x.state, err = readRestored(osFolder(dir)); err != nil {
		return err
	}
	if x.state.Format != "" && !x.state.Whole {
		if x.state.Hub != st.Hub || x.state.Snapshot != x.reader.Snapshot {
			return holdfast.Errorf(holdfast.Conflict, "%s has the beginning of a restore of backup %s of hub %s: go on with that (--snapshot %[2]s), or name a new folder. Nothing was changed", dir, x.state.Snapshot, x.state.Hub)
		}
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return holdfast.Errorf(holdfast.Unavailable, "read the new folder: %w", err)
	}
	for _, e := range entries {
		if e.Name() != restoreFile+".tmp" && e.Name() != restoreLock { // of an attempt that had done nothing yet
			return holdfast.Errorf(holdfast.Conflict, "%s is not empty: a restore makes a new folder. Nothing was changed", dir)
		}
	}
	x.state = restoredState{Format: restoreFormat, Hub: st.Hub, Snapshot: x.reader.Snapshot, At: time.Now().UTC()}
	return nil
}

// begin makes the folder, which says from now on what it is.
func (x *restoring) begin(context.Context) error {
	if err := os.MkdirAll(x.c.Data, 0o700); err != nil {
		return diskFull("make data folder", err)
	}
	var err error
	if x.lock, err = os.OpenFile(filepath.Join(x.c.Data, restoreLock), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return diskFull("lock data folder", err)
	}
	if err := syscall.Flock(int(x.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return holdfast.Errorf(holdfast.Conflict, "another restore writes to %s: wait for its end", x.c.Data)
	}
	if x.o.Shares != nil {
		x.state.RootKey = x.c.RootKey
	}
	if err := errors.Join(osFolder(x.c.Data).WriteJSON(restoreFile, x.state), syncFolder(filepath.Dir(x.c.Data))); err != nil {
		return diskFull("make data folder", err)
	}
	for _, sub := range []string{catalogDir, journalDir, segmentsDir, keyringDir, adminDir} {
		if err := os.Mkdir(filepath.Join(x.c.Data, sub), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return diskFull("make data folder", err)
		}
	}
	return nil
}

// RestoreLeft says what a restore into a folder that was cut short has left there, and
// how to go on.
func RestoreLeft(dir string) string {
	state, err := readRestored(osFolder(dir))
	switch _, made := os.Lstat(filepath.Join(dir, folderFile)); {
	case err == nil && state.Format != "" && !state.Whole:
		return fmt.Sprintf("%s has the beginning of a restore, which no hub starts. Run it again: it goes on where it was, and what is there is not fetched again", dir)
	case made == nil:
		return dir + " is a whole data folder: start the hub"
	}
	return "Nothing was made: run it again"
}

// restoreLock is locked by the restore that writes to the folder.
const restoreLock = "restore.lock"

// unlock lets another restore go on; one that has ended leaves no lock behind.
func (x *restoring) unlock(ended bool) (err error) {
	if x.lock == nil {
		return nil
	}
	if ended {
		err = os.Remove(x.lock.Name())
	}
	return errors.Join(err, x.lock.Close())
}

// restoreSlack is what a restore takes beside what the backup has: the journal's first
// file, and the catalog's log while take-backs are carried out again.
const restoreSlack = 80 << 20

func (x *restoring) fetchCatalog(ctx context.Context) error {
	return x.reader.FetchCatalog(ctx, filepath.Join(x.c.Data, catalogDir))
}

func (x *restoring) fetchSegments(ctx context.Context) error {
	blobs, err := blob.OpenDir(filepath.Join(x.c.Data, segmentsDir))
	if err != nil {
		return err
	}
	err = x.reader.FetchSegments(ctx, filepath.Join(x.c.Data, catalogDir), blobs, x.o.Progress)
	return errors.Join(err, blobs.Close())
}

// fetchKeyring copies the keyring, in place of what an attempt with another copy has
// left.
func (x *restoring) fetchKeyring(context.Context) error {
	dir := filepath.Join(x.c.Data, keyringDir)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return diskFull("restore keyring", err)
	}
	_, names, err := newestHead(x.o.Keyring)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, takeBackPrefix) { // the catalog keeps them
			continue
		}
		if err := copyFile(filepath.Join(x.o.Keyring, name), filepath.Join(dir, name)); err != nil {
			return diskFull("restore keyring", err)
		}
	}
	if err := errors.Join(syncFolder(dir), osFolder(x.c.Data).WriteJSON(releaseFile, newRelease(x.c.Version, nil))); err != nil {
		return diskFull("restore keyring", err)
	}
	return nil
}

// copyFile copies a file durably, but for its name.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// newestHead finds the newest head among a keyring's files, by its name.
func newestHead(dir string) (name string, files []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", nil, holdfast.Errorf(holdfast.NotFound, "read the copy of the keyring: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !ringFile(e.Name()) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return "", nil, holdfast.Errorf(holdfast.Unavailable, "read the copy of the keyring: %w", err)
		}
		if info.Size() > maxRingFile {
			return "", nil, holdfast.Errorf(holdfast.Invalid, "%s is larger than a keyring's files are: it is damaged", filepath.Join(dir, e.Name()))
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

// maxRingFile bounds any file of a copy of the keyring. The largest is the head, with
// some hundred bytes for each thousand owners.
const maxRingFile = 128 << 20

// ringFile reports whether a copy's file is named as a keyring's.
func ringFile(name string) bool {
	for _, kind := range []string{"head-", "page-", "lists-", takeBackPrefix} {
		if strings.HasPrefix(name, kind) && filepath.Ext(name) == "" {
			return true
		}
	}
	return false
}

// maxTakeBacks bounds a file of take-backs, which has a thousand at most.
const maxTakeBacks = 64 << 20

// takeBacksIn reads the take-backs beside a copy of the keyring.
func takeBacksIn(dir string) (map[string][]byte, error) {
	_, names, err := newestHead(dir)
	if err != nil {
		return nil, err
	}
	all := map[string][]byte{}
	for _, name := range names {
		if !strings.HasPrefix(name, takeBackPrefix) {
			continue
		}
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, holdfast.Errorf(holdfast.Unavailable, "read the take-backs: %w", err)
		}
		b, err := io.ReadAll(io.LimitReader(f, maxTakeBacks+1))
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, holdfast.Errorf(holdfast.Unavailable, "read the take-backs: %w", err)
		}
		if len(b) > maxTakeBacks {
			return nil, holdfast.Errorf(holdfast.Invalid, "%s is larger than take-backs are: it is damaged", filepath.Join(dir, name))
		}
		all[name] = b
	}
	return all, nil
}

// examine opens what was fetched, and holds it against what the backup says. With all,
// each chunk is decoded.
func (x *restoring) examine(ctx context.Context, all bool) (err error) {
	reader, r := x.reader, &x.r
	s, err := openKept(ctx, x.c)
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
		return holdfast.Errorf(holdfast.Conflict, "this keyring lacks %s there when the backup was made: it is a copy that lags. Give the newest, or an older backup: --snapshot", plural(st.KeyringOwners-v.Owners(), "1 owner key that was", "%d owner keys that were"))
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
	if !all && len(r.Different) > 0 {
		return holdfast.Errorf(holdfast.Invalid, "the backup has not the readings that it says, of %d streams", len(r.Different))
	}
	return nil
}

// replay carries out again what was taken back since the backup.
func (x *restoring) replay(ctx context.Context) error {
	files, err := takeBacksIn(x.o.Keyring)
	if err != nil {
		return err
	}
	replayed, err := ReplayTakeBacks(ctx, x.c, files)
	x.r.TakenBack, x.r.Suspended, x.r.Until, x.last = replayed.Replayed, replayed.Short, replayed.At, replayed.Last
	if x.r.Suspended == "" {
		x.r.Suspended = notCompared(x.copies)
	}
	return err
}

// verify computes the ledger anew. The take-backs are carried out by then: entries that
// don't open any more are of what was erased, also since the backup.
func (x *restoring) verify(ctx context.Context) (err error) {
	s, err := openKept(ctx, x.c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.grants.Close(context.Background()), s.stores.close()) }()
	report, err := s.ledger.Verify(ctx)
	if err == nil && len(report.Faults) > 0 {
		err = holdfast.Errorf(holdfast.Invalid, "the ledger in the backup has %d faults: %s", len(report.Faults), report.Faults[0])
	}
	return err
}

// renew gives the ledger a new name.
func (x *restoring) renew(ctx context.Context) error {
	renewed, err := RenewLedger(ctx, x.c, nil, true)
	x.r.Ledger, x.r.Verifier = renewed.Origin, renewed.Verifier
	return err
}

// finish makes an administrator and writes down what became of it.
func (x *restoring) finish(ctx context.Context) (err error) {
	c, r, state := x.c, &x.r, x.state
	s, err := openKept(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.grants.Close(context.Background()), s.stores.close()) }()
	standing, err := x.o.From.Standing(r.Hub, x.o.Identities)
	if err != nil {
		return err
	}
	for _, b := range standing {
		if b.Statement == nil {
			r.Unread++
		} else if r.Suspended == "" && b.Statement.TakeBacks > x.last { // the hub lived on
			r.Suspended = fmt.Sprintf("the copy's take-backs end at %d, backup %s knows of %d", x.last, b.ID, b.Statement.TakeBacks)
		}
	}
	if r.Backups, err = s.backups.Adopt(ctx, standing); err != nil {
		return err
	}
	party, err := s.custody.Operating(ctx)
	if err != nil {
		return err
	}
	admin, err := s.access.CreateAdministrator(ctx, party, "restore")
	if err != nil {
		return err
	}
	if r.Suspended == "" { // else when it is confirmed
		if r.Waiting, err = s.waitAgain(ctx, admin.ID); err != nil {
			return err
		}
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
	state.Whole, state.Suspended, state.Why, state.Until = true, true, r.Suspended, r.Until
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
// it, decodes each chunk, carries the take-backs out again as a restore does and
// computes the ledger anew. The root key's holders are asked to open, and for nothing
// else: the hub may run.
func Drill(ctx context.Context, c Config, o RestoreOptions) (r Restored, err error) {
	began := time.Now()
	kind := scratch.Kind{Name: "holdfast-restore-drill"}
	if _, err := kind.Clear(c.Data); err != nil { // what one that was killed has left
		return r, holdfast.Errorf(holdfast.Unavailable, "make room for the drill: %w", err)
	}
	own, err := kind.New(c.Data)
	if err != nil {
		return r, diskFull("make room for the drill", err)
	}
	defer func() { err = errors.Join(err, own.Remove()) }()
	c.Data = filepath.Join(own.Path, "data")
	x := &restoring{c: c, o: o}
	if err := x.look(ctx, false); err != nil {
		return x.r, err
	}
	err = x.run(ctx,
		restoreStep{"begun", x.begin},
		restoreStep{"catalog", x.fetchCatalog},
		restoreStep{"segments", x.fetchSegments},
		restoreStep{"keyring", x.fetchKeyring},
		restoreStep{"holders", x.register},
		restoreStep{"examined", func(ctx context.Context) error { x.c.restored, x.c.drill = true, true; return x.examine(ctx, true) }},
		restoreStep{"replayed", x.replay},
		restoreStep{"verified", x.verify})
	err = errors.Join(x.needs(err), x.unlock(false)) // it goes with the folder
	x.r.Took = time.Since(began)
	return x.r, err
}
