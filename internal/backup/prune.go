package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
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

// PruneOptions tune a Prune; the zero value works.
type PruneOptions struct {
	Dry bool // only say what would be removed
	// Progress is told of the pieces that were looked at; it may be nil.
	Progress func(Progress)
}

// Prune removes the backups that are older than keep, but never the newest, and
// then the pieces that no backup needs. If it can't be told what a kept backup needs,
// nothing is removed. One that is cut short is gone on with by the next.
func (f *Folder) Prune(ctx context.Context, keep time.Duration, now time.Time, o PruneOptions) (p Pruned, err error) {
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
	needed := map[pieceKey]bool{}
	var old []string
	for i, s := range all {
		if i > 0 && now.Sub(s.At) > keep {
			old = append(old, s.ID)
			continue
		}
		_, err := f.eachEntry(s.ID, func(e Entry) error {
			if needed[keyOf(e.File)] = true; len(needed) > mostNeeded {
				return holdfast.Errorf(holdfast.TooLarge, "the backups that are kept need more than %d pieces", mostNeeded)
			}
			return nil
		})
		if err != nil {
			return p, fmt.Errorf("nothing was removed, for it can't be told what is needed: %w", err)
		}
		p.Kept++
	}
	if len(all) == 0 {
		return p, nil
	}
	p.Snapshots = []string{}
	if o.Dry {
		p.Snapshots = append(p.Snapshots, old...)
		return p, f.dropPieces(ctx, needed, &p, o)
	}
	// A manifest goes before its list: what has no manifest is no backup.
	for _, id := range old {
		if err := f.disk.Remove(manifestPath(id)); err != nil {
			return p, failure("remove backup", err)
		}
		p.Snapshots = append(p.Snapshots, id)
	}
	if err := syncFolder(f.disk, snapshotsDir); err != nil {
		return p, err
	}
	if err := f.dropLists(all, old); err != nil {
		return p, err
	}
	return p, f.dropPieces(ctx, needed, &p, o)
}

// dropLists removes the lists and the litter of what is no backup.
func (f *Folder) dropLists(all []Snapshot, old []string) error {
	live := map[string]bool{}
	for _, s := range all {
		live[s.ID] = !slices.Contains(old, s.ID)
	}
	var drop []string
	for e, err := range listing(f.disk, snapshotsDir) {
		if err != nil {
			return failure("read the folder of backups", err)
		}
		id, isList := strings.CutSuffix(e.Name(), listSuffix)
		if isList && !live[id] || strings.HasSuffix(e.Name(), tempSuffix) {
			drop = append(drop, e.Name())
		}
		if len(drop) == mostSnapshots {
			break // the rest the next time
		}
	}
	for _, name := range drop {
		if err := f.disk.Remove(filepath.Join(snapshotsDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return failure("remove backup", err)
		}
	}
	return syncFolder(f.disk, snapshotsDir)
}

// mostNeeded bounds the pieces of all backups that are kept, together.
const mostNeeded = 8 << 20

// pieceKey stands for a piece's file where there are many.
type pieceKey [16]byte

func keyOf(file string) pieceKey {
	sum := sha256.Sum256([]byte(file))
	return pieceKey(sum[:16])
}

func (f *Folder) dropPieces(ctx context.Context, needed map[pieceKey]bool, p *Pruned, o PruneOptions) error {
	var seen Progress
	return f.walk(ctx, !o.Dry, func(s stored) (remove bool, err error) {
		seen.Pieces++
		seen.Bytes += s.size
		if o.Progress != nil {
			o.Progress(seen)
		}
		if needed[keyOf(s.file)] {
			return false, nil
		}
		p.Pieces++
		p.Bytes += s.size
		return !o.Dry, nil
	})
}
