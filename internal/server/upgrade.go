package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
)

// releaseFile says which program the folder is for. Programs of before it existed
// (0.1.0) don't know it.
const releaseFile = "release.json"

// releaseFormat is the version of releaseFile.
const releaseFormat = "1"

// release is release.json.
type release struct {
	Format  string `json:"holdfast-release"`
	Version string `json:"version"` // of the newest program that opened the folder
	Catalog int64  `json:"catalog"` // how far the catalog's migrations go with that
	// From is what the folder was before, until the upgrade is confirmed.
	From *before `json:"from,omitempty"`
}

// before is what an upgrade leads back to.
type before struct {
	Version string    `json:"version"`
	Catalog int64     `json:"catalog"`
	At      time.Time `json:"at"` // of the upgrade
}

// newRelease is what this program writes.
func newRelease(version string, from *before) release {
	if version == "" {
		version = "(devel)"
	}
	return release{Format: releaseFormat, Version: version, Catalog: catalog.Known(), From: from}
}

// firstRelease is the program that wrote folders without release.json.
const firstRelease = "0.1.0"

func readRelease(on Folder, dir string) (r release, known bool, err error) {
	b, err := on.ReadFile(releaseFile)
	if errors.Is(err, fs.ErrNotExist) {
		return release{}, false, nil
	} else if err != nil {
		return release{}, false, holdfast.Errorf(holdfast.Unavailable, "read %s: %w", releaseFile, err)
	}
	if err = json.Unmarshal(b, &r); err == nil && (r.Format == "" || r.Catalog < catalog.Oldest || r.From != nil && r.From.Catalog < catalog.Oldest) {
		err = errors.New("fields are missing")
	}
	if err != nil {
		return release{}, false, holdfast.Errorf(holdfast.Invalid, "%s is damaged: %w. Nothing was changed. Put back an undamaged copy, or remove it: then there is no way back to an older version", filepath.Join(dir, releaseFile), err)
	}
	if r.Format != releaseFormat || r.Catalog > catalog.Known() {
		return r, true, holdfast.Errorf(holdfast.Conflict, "the data folder %s was used by holdfast %s (catalog %d), this program knows catalogs up to %d. Nothing was changed. Start holdfast %s or newer",
			dir, r.Version, r.Catalog, catalog.Known(), r.Version)
	}
	return r, true, nil
}

// Upgraded is what a folder is and was.
type Upgraded struct {
	Folder  string `json:"folder"`
	Version string `json:"version"` // the newest program that used it
	Catalog int64  `json:"catalog"`
	Known   int64  `json:"known"` // how far this program's migrations go

	// What it goes back to; "" if the last upgrade is confirmed, or there was none.
	From        string     `json:"from,omitempty"`
	FromCatalog int64      `json:"from_catalog,omitempty"`
	At          *time.Time `json:"at,omitempty"` // of the upgrade
}

// Pending is whether this program has something to migrate.
func (u Upgraded) Pending() bool { return u.Catalog < u.Known }

// UpgradeState says what a folder is, and touches nothing.
func UpgradeState(ctx context.Context, c Config) (Upgraded, error) {
	c = c.withDefaults()
	u := Upgraded{Folder: c.Data, Known: catalog.Known()}
	data := c.Ground.Folder(c.Data)
	if _, err := readFolder(data, c.Data); err != nil {
		return u, err
	}
	r, known, err := readRelease(data, c.Data)
	if err != nil {
		return u, err
	}
	if u.Catalog, err = catalog.Version(ctx, filepath.Join(c.Data, catalogDir)); err != nil {
		return u, err
	}
	if u.Version = r.Version; !known {
		u.Version = firstRelease
		if u.Catalog > catalog.Oldest {
			u.Version = "unknown"
		}
	}
	if r.From != nil {
		u.From, u.FromCatalog, u.At = r.From.Version, r.From.Catalog, &r.From.At
	}
	return u, nil
}

// Upgrade migrates the folder of a hub that does not run, as its next start would,
// and tells the Config's Logger how far it is.
func Upgrade(ctx context.Context, c Config) (Upgraded, error) {
	c = c.withDefaults()
	data := c.Ground.Folder(c.Data)
	lock, err := takeFolder(data, c.Data)
	if err != nil {
		return Upgraded{}, err
	}
	defer lock.Close()
	db, err := openCatalog(ctx, c, data)
	if err != nil {
		return Upgraded{}, err
	}
	if err := db.Close(); err != nil {
		return Upgraded{}, err
	}
	return UpgradeState(ctx, c)
}

// takeFolder locks a folder that this program can open.
func takeFolder(data Folder, dir string) (io.Closer, error) {
	if _, err := readFolder(data, dir); err != nil {
		return nil, err
	}
	if _, _, err := readRelease(data, dir); err != nil {
		return nil, err
	}
	return data.Lock()
}

// takeThisVersions is takeFolder for what is no start of a hub: it carries no folder to
// this version, which the operator may not want yet. One of an older version is
// refused as it is.
func takeThisVersions(ctx context.Context, c Config, data Folder) (io.Closer, error) {
	lock, err := takeFolder(data, c.Data)
	if err != nil || c.migrates || c.restored || c.drill || c.Ground.Catalog.VFS != "" {
		return lock, err
	}
	have, err := catalog.Version(ctx, filepath.Join(c.Data, catalogDir))
	if err == nil && have >= catalog.Oldest && have < catalog.Known() {
		err = holdfast.Errorf(holdfast.Conflict, "the data folder %s is of an older version (catalog %d, this program's is %d), and only serve and upgrade carry it over. Nothing was changed. First: holdfast upgrade --data %[1]s",
			c.Data, have, catalog.Known())
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// openCatalog opens the catalog of a folder that is this process's. What it was
// before is on record before the first migration begins.
func openCatalog(ctx context.Context, c Config, data Folder) (*catalog.DB, error) {
	dir := filepath.Join(c.Data, catalogDir)
	r, known, err := readRelease(data, c.Data)
	if err != nil {
		return nil, err
	}
	have := r.Catalog
	if c.Ground.Catalog.VFS == "" {
		if have, err = catalog.Version(ctx, dir); err != nil {
			return nil, err
		}
	}
	if have >= catalog.Oldest && have < catalog.Known() && r.From == nil {
		r.From = &before{Version: r.Version, Catalog: have, At: time.Now().UTC()}
		if !known {
			r.From.Version = firstRelease
		}
	}
	if have >= catalog.Oldest && have <= catalog.Known() || !known {
		if now := newRelease(c.Version, r.From); now != r {
			if err := data.WriteJSON(releaseFile, now); err != nil {
				return nil, holdfast.Errorf(holdfast.Unavailable, "write %s: %w", releaseFile, err)
			}
			r = now
		}
	}
	o, began := c.Ground.Catalog, time.Now()
	steps := 0
	o.Progress = func(s catalog.Step) {
		if steps == 0 {
			c.Logger.Info("upgrade: the catalog is migrated; this may take a while and can be interrupted", "from", r.From.Version, "to", r.Version)
		}
		steps++
		c.Logger.Info("upgrade: migrating", "step", s.N, "of", s.Of, "what", s.Name, "catalog", s.Version)
	}
	db, err := catalog.Open(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	if steps > 0 {
		c.Logger.Info("upgrade: the catalog is migrated", "catalog", catalog.Known(), "took", time.Since(began).Round(time.Millisecond))
	}
	if r.From != nil {
		c.Logger.Info("upgrade: not confirmed yet: `holdfast upgrade --back` leads back, `holdfast upgrade --confirm` ends that", "from", r.From.Version, "since", r.From.At.UTC().Truncate(time.Second))
	}
	return db, nil
}

// ConfirmUpgrade ends the way back. The hub may run meanwhile.
func ConfirmUpgrade(ctx context.Context, c Config) (Upgraded, error) {
	c = c.withDefaults()
	u, err := UpgradeState(ctx, c)
	if err != nil {
		return u, err
	}
	if u.Pending() {
		return u, holdfast.Errorf(holdfast.Conflict, "the data folder is of holdfast %s and not upgraded yet: there is nothing to confirm", u.Version)
	}
	data := c.Ground.Folder(c.Data)
	r, known, err := readRelease(data, c.Data)
	if err != nil || !known || r.From == nil {
		return u, err
	}
	r.From = nil
	if err := data.WriteJSON(releaseFile, r); err != nil {
		return u, holdfast.Errorf(holdfast.Unavailable, "write %s: %w", releaseFile, err)
	}
	return UpgradeState(ctx, c)
}

// WayBack is what going back would do, and does.
type WayBack struct {
	To    string          // the version that can open the folder then
	Takes []catalog.Table // what goes: tables that only newer versions have

	config Config
	lock   io.Closer
	back   *catalog.Return
	from   before
}

// GoBack prepares the way back of a hub that does not run. Nothing that an older
// version wrote is touched: erasures, withdrawals and readings since stay as they
// are, for nothing is put back.
func GoBack(ctx context.Context, c Config) (_ *WayBack, err error) {
	c = c.withDefaults()
	data := c.Ground.Folder(c.Data)
	w := &WayBack{config: c}
	if w.lock, err = takeFolder(data, c.Data); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.lock.Close()
		}
	}()
	r, _, err := readRelease(data, c.Data)
	if err != nil {
		return nil, err
	}
	if r.From == nil {
		return nil, holdfast.Errorf(holdfast.Conflict, "there is no way back: the data folder was not upgraded, or the upgrade was confirmed")
	}
	w.To, w.from = r.From.Version, *r.From
	if w.back, err = catalog.Back(ctx, filepath.Join(c.Data, catalogDir), r.From.Catalog); err != nil {
		return nil, err
	}
	if w.Takes, err = w.back.Takes(ctx); err != nil {
		w.back.Close()
		return nil, err
	}
	return w, nil
}

// Go goes back. A crash within leaves a folder that this program opens, and that Go
// can be asked for again.
func (w *WayBack) Go(ctx context.Context) error {
	if err := w.back.Go(ctx); err != nil {
		return err
	}
	data := w.config.Ground.Folder(w.config.Data)
	if w.from.Version == firstRelease {
		return data.Remove(releaseFile)
	}
	return data.WriteJSON(releaseFile, release{Format: releaseFormat, Version: w.from.Version, Catalog: w.from.Catalog})
}

// Close lets go of the folder.
func (w *WayBack) Close() error { return errors.Join(w.back.Close(), w.lock.Close()) }
