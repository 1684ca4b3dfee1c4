package server

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/holdfast-iot/holdfast/internal/backup"
)

// Backups is the hub's side of backups.
func (s *Server) Backups() *backup.Keeper { return s.backups }

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
// start does, and serves nobody.
func BackupStopped(ctx context.Context, c Config, f *backup.Folder, to backup.Recipients, o backup.TakeOptions) (r backup.Report, err error) {
	s, err := Open(ctx, c)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return backup.Take(ctx, ownSource{s}, f, to, o)
}
