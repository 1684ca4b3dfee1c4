package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Pruned is what a Prune removed.
type Pruned struct {
	Snapshots []string `json:"snapshots"`
	Pieces    int      `json:"pieces"`
	Bytes     int64    `json:"bytes"`
	Kept      int      `json:"kept"` // snapshots
}

// Prune removes the backups that are older than keep, but never the newest, and
// then the pieces that no backup needs. If it can't be told what a kept backup needs,
// nothing is removed.
func (f *Folder) Prune(keep time.Duration, now time.Time) (p Pruned, err error) {
	if f.lock == nil {
		return p, holdfast.Errorf(holdfast.Internal, "prune: the folder is not locked")
	}
	if keep < 24*time.Hour {
		return p, holdfast.Errorf(holdfast.Invalid, "a backup is kept for a day at least")
	}
	all, err := f.Snapshots()
	if err != nil {
		return p, err
	}
	needed := map[string]bool{}
	var old []string
	for i, s := range all {
		if i > 0 && now.Sub(s.At) > keep {
			old = append(old, s.ID)
			continue
		}
		entries, _, err := f.list(s.ID)
		if err != nil {
			return p, fmt.Errorf("nothing was removed, for it can't be told what is needed: %w", err)
		}
		p.Kept++
		for _, e := range entries {
			needed[e.File] = true
		}
	}
	if len(all) == 0 {
		return p, nil
	}
	// A manifest goes before its list: what has no manifest is no backup.
	for _, id := range old {
		if err := os.Remove(f.manifestPath(id)); err != nil {
			return p, failure("remove backup", err)
		}
		p.Snapshots = append(p.Snapshots, id)
	}
	if err := syncFolder(filepath.Join(f.dir, snapshotsDir)); err != nil {
		return p, err
	}
	if err := f.dropLists(all, old); err != nil {
		return p, err
	}
	return p, f.dropPieces(needed, &p)
}

// dropLists removes the lists and the litter of what is no backup.
func (f *Folder) dropLists(all []Snapshot, old []string) error {
	dir := filepath.Join(f.dir, snapshotsDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return failure("read the folder of backups", err)
	}
	for _, e := range entries {
		id, isList := strings.CutSuffix(e.Name(), listSuffix)
		live := slices.ContainsFunc(all, func(s Snapshot) bool { return s.ID == id }) && !slices.Contains(old, id)
		if isList && !live || strings.HasSuffix(e.Name(), tempSuffix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return failure("remove backup", err)
			}
		}
	}
	return syncFolder(dir)
}

func (f *Folder) dropPieces(needed map[string]bool, p *Pruned) error {
	have, err := f.pieces()
	if err != nil {
		return err
	}
	for _, s := range have {
		if needed[s.file] {
			continue
		}
		if err := os.Remove(f.piecePath(s.file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return failure("remove piece of backup", err)
		}
		p.Pieces++
		p.Bytes += s.size
	}
	return nil
}
