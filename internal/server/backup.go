package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/holdfast-iot/holdfast/internal/backup"
)

// Backups is the hub's side of backups.
func (s *Server) Backups() *backup.Keeper { return s.backups }

func (s *Server) openBackups(ctx context.Context) (err error) {
	s.backups, err = backup.Open(ctx, backup.Deps{
		Catalog: s.stores.catalog, Vault: s.stores.vault, Ledger: s.ledger, Series: s.series, Blobs: s.stores.blobs,
		Hub: s.stores.folder.Hub, Version: s.config.Version, Staging: filepath.Join(s.config.Data, stagingDir),
		Keyring: s.keyringCopies,
		Keys:    func() ([]byte, error) { return json.Marshal(s.stores.keys) },
		TakeBacks: func(ctx context.Context) (uint64, error) {
			all, _, err := s.ledger.TakeBacks(ctx)
			return all, err
		},
	})
	return err
}

// keyringCopies is where the copies are that are in step with the keyring. Of a hub that
// does not run, none is until it was looked at.
func (s *Server) keyringCopies(ctx context.Context) (in []string, of int) {
	v, urls := s.stores.vault, map[string]string{}
	for _, e := range s.stores.keys.Copies {
		urls[e.Name] = e.URL
	}
	step := func() {
		for _, c := range v.Copies() {
			if !c.Late {
				in = append(in, urls[c.Name])
			}
		}
	}
	if of = len(v.Copies()); of == 0 {
		return nil, 0
	}
	if step(); len(in) > 0 {
		return in, of
	}
	if err := v.TendCopies(ctx); err != nil {
		s.log.Warn("backup: copies of the keyring", "err", err)
	}
	step()
	return in, of
}

// What the doctor says of backups.
const (
	oldBackup = 7 * 24 * time.Hour
	oldDrill  = 90 * 24 * time.Hour
)

// examineBackups looks at what is there if the data folder is lost.
func (s *Server) examineBackups(ctx context.Context, x *examination) error {
	last, drill := s.backups.Last()
	again := "holdfast backup DIR --recipient age1... --data " + x.data
	if last == nil {
		x.add("backup-none", "no backup was made: the data folder is all that there is", again+", each night; docs/backup.md")
		return nil
	}
	if age := x.now.Sub(last.Began); age > oldBackup {
		x.since("backup-old", last.Began, fmt.Sprintf("the newest backup is of %d days ago: what came since is lost with the data folder", age/(24*time.Hour)), again+", each night")
	}
	if since := cmp.Or(drill, last.Began); x.now.Sub(since) > oldDrill || drill.IsZero() {
		what := "no restore was ever tried: nobody knows that one succeeds"
		if !drill.IsZero() {
			what = fmt.Sprintf("a restore was last tried %d days ago", x.now.Sub(drill)/(24*time.Hour))
		}
		x.add("backup-drill-old", what, "holdfast restore drill --from DIR --identity FILE --keyring "+filepath.Join(x.data, keyringDir)+" --root-key FILE --data "+x.data)
	}
	cells, err := s.backups.ResealedSince(ctx, last.Began)
	if err != nil {
		return err
	}
	if cells > 0 {
		x.add("backup-resealed", fmt.Sprintf("since the newest backup, %s sealed again after an erasure in part or a rekey: no backup has them as they can be opened", plural(cells, "a stream's readings of one time were", "%d streams' readings of some time were")),
			again+" now")
	}
	return nil
}

// ownSource is a hub that is backed up by the process that has its folder.
type ownSource struct{ *Server }

func (s ownSource) Begin(ctx context.Context, keep time.Duration) (backup.Plan, error) {
	return s.backups.Begin(ctx, "the data folder", keep)
}

func (s ownSource) Parts(ctx context.Context, plan string, n, count int, w io.Writer) error {
	return s.backups.Parts(ctx, plan, n, count, w)
}

func (s ownSource) Finish(ctx context.Context, plan string, d backup.Done) ([]byte, error) {
	return s.backups.Finish(ctx, plan, d)
}

// BackupStopped backs up a hub that does not run: it takes the folder, opens it as a
// start does, and serves nobody. One of an older version is refused.
func BackupStopped(ctx context.Context, c Config, f *backup.Folder, to backup.Recipients, o backup.TakeOptions) (r backup.Report, err error) {
	s, err := openToServe(ctx, c)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return backup.Take(ctx, ownSource{s}, f, to, o)
}
