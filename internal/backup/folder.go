package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Names in a folder of backups.
const (
	layoutName   = "LAYOUT"
	layoutText   = "holdfast backup folder 1\n"
	lockName     = "lock"
	piecesDir    = "pieces"
	snapshotsDir = "snapshots"

	pieceSuffix    = ".age"
	manifestSuffix = ".age"
	listSuffix     = ".list"
	tempSuffix     = ".tmp"
)

// Folder is where backups of one hub lie.
type Folder struct {
	dir  string
	disk disk
	lock *os.File // nil: it is only read
}

// Dir is where the folder is.
func (f *Folder) Dir() string { return f.dir }

// OpenFolder opens the folder for writing, which it makes if its parent is there,
// and locks it against other runs.
func OpenFolder(dir string) (*Folder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, failure("make the folder of backups", err)
	}
	d, err := openDisk(dir)
	if err != nil {
		return nil, failure("open the folder of backups", err)
	}
	f, err := openFolderOn(dir, d)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	parent, err := openDisk(filepath.Dir(dir))
	if err == nil {
		err = errors.Join(parent.SyncFolder("."), parent.Close())
	}
	if err != nil {
		return nil, errors.Join(failure("make the folder of backups", err), f.Close())
	}
	return f, nil
}

func openFolderOn(dir string, d disk) (*Folder, error) {
	f := &Folder{dir: dir, disk: d}
	if err := f.claim(); err != nil {
		return nil, err
	}
	if err := f.take(); err != nil {
		return nil, err
	}
	for _, sub := range []string{piecesDir, snapshotsDir} {
		if err := d.Mkdir(sub, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(failure("make the folder of backups", err), f.lock.Close())
		}
	}
	if err := syncFolder(d, "."); err != nil {
		return nil, errors.Join(err, f.lock.Close())
	}
	return f, nil
}

// claim writes LAYOUT into a new folder; one that has other things in it is not
// ours.
func (f *Folder) claim() error {
	path := filepath.Join(f.dir, layoutName)
	b, err := readSmall(f.disk, layoutName)
	switch {
	case err == nil && string(b) == layoutText:
		return nil
	case err == nil:
		return holdfast.Errorf(holdfast.Conflict, "%s does not say %q: a newer version of Holdfast laid it out, or it is none of ours. Nothing was changed", path, strings.TrimSpace(layoutText))
	case !errors.Is(err, fs.ErrNotExist):
		return failure("open the folder of backups", err)
	}
	for e, err := range listing(f.disk, ".") {
		if err != nil {
			return failure("open the folder of backups", err)
		}
		if e.Name() != layoutName+tempSuffix && e.Name() != "lost+found" {
			return holdfast.Errorf(holdfast.Conflict, "%s is no folder of backups, and not empty: name a new one", f.dir)
		}
	}
	return write(f.disk, layoutName, []byte(layoutText))
}

// take locks the folder.
func (f *Folder) take() error {
	lock, err := os.OpenFile(filepath.Join(f.dir, lockName), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return failure("lock the folder of backups", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return holdfast.Errorf(holdfast.Conflict, "another run writes to %s: wait for its end", f.dir)
	}
	f.lock = lock
	return nil
}

// begun notes that a run writes, and reports whether an earlier one did not come to
// its end: what that has renamed may not be durable. The note itself need not be: what
// is still to be seen after the power was cut is durable.
func (f *Folder) begun() (cut bool, err error) {
	info, err := f.lock.Stat()
	if err == nil {
		cut = info.Size() > 0
		_, err = f.lock.WriteAt([]byte("a run writes, or was cut short\n"), 0)
	}
	if err != nil {
		return cut, failure("lock the folder of backups", err)
	}
	return cut, nil
}

func (f *Folder) ended() error {
	if err := f.lock.Truncate(0); err != nil {
		return failure("unlock the folder of backups", err)
	}
	return nil
}

// ReadFolder opens a folder of backups to read from it; others may write meanwhile.
func ReadFolder(dir string) (*Folder, error) {
	d, err := openDisk(dir)
	if err != nil {
		return nil, failure("open the folder of backups", err)
	}
	b, err := readSmall(d, layoutName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = holdfast.Errorf(holdfast.NotFound, "%s is no folder of backups: it has no %s", dir, layoutName)
	case err != nil:
		err = failure("open the folder of backups", err)
	case string(b) != layoutText:
		err = holdfast.Errorf(holdfast.Conflict, "%s was laid out by a newer version of Holdfast, or is none of ours", dir)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return &Folder{dir: dir, disk: d}, nil
}

// Close unlocks the folder.
func (f *Folder) Close() error {
	err := f.disk.Close()
	if f.lock != nil {
		err = errors.Join(err, f.lock.Close())
	}
	return err
}

func pieceDir(name string) string { return filepath.Join(piecesDir, name[:2]) }

func piecePath(file string) string { return filepath.Join(pieceDir(file), file+pieceSuffix) }

func manifestPath(id string) string { return filepath.Join(snapshotsDir, id+manifestSuffix) }

func listPath(id string) string { return filepath.Join(snapshotsDir, id+listSuffix) }

// stored is a piece as it lies in the folder.
type stored struct {
	file string // its name and tag
	size int64
}

// mostRemoved is how many names of what is to go are remembered at once.
const mostRemoved = 4096

// walk shows every piece that is stored, and removes those of which it is told so;
// with tidy also what runs that were cut short have left half written.
func (f *Folder) walk(ctx context.Context, tidy bool, visit func(stored) (remove bool, err error)) error {
	for o, err := range listing(f.disk, piecesDir) {
		if err != nil {
			return failure("read the folder of backups", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !o.IsDir() || len(o.Name()) != 2 {
			continue
		}
		for again := true; again; {
			var drop []string
			for e, err := range listing(f.disk, filepath.Join(piecesDir, o.Name())) {
				if err != nil {
					return failure("read the folder of backups", err)
				}
				remove, err := look(o.Name(), e, tidy, visit)
				if err != nil {
					return err
				}
				if remove {
					drop = append(drop, filepath.Join(piecesDir, o.Name(), e.Name()))
				}
				if len(drop) == mostRemoved {
					break
				}
			}
			again = len(drop) == mostRemoved
			for _, name := range drop {
				if err := f.disk.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return failure("clean the folder of backups", err)
				}
			}
		}
	}
	return nil
}

func look(dir string, e fs.DirEntry, tidy bool, visit func(stored) (bool, error)) (remove bool, err error) {
	if strings.HasSuffix(e.Name(), tempSuffix) {
		return tidy, nil
	}
	file, ok := strings.CutSuffix(e.Name(), pieceSuffix)
	if !ok || !isPieceName(file) || file[:2] != dir || !e.Type().IsRegular() {
		return false, nil
	}
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, failure("read the folder of backups", err)
	}
	return visit(stored{file, info.Size()})
}

// Snapshot is a backup in a folder, by what can be seen without its key.
type Snapshot struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

// idTime is how a snapshot's id begins; behind it stand a dash and the first letters
// of the run's id.
const (
	idTime    = "20060102T150405.000Z"
	idLetters = 8
)

// mostSnapshots is how many backups a folder has at most: hourly ones of seven years.
const mostSnapshots = 1 << 16

func snapshotID(began time.Time, run string) string {
	return began.UTC().Format(idTime) + "-" + run[:idLetters]
}

// snapshotAt is when a snapshot was begun, by its id; false for what is no id.
func snapshotAt(id string) (time.Time, bool) {
	if len(id) != len(idTime)+1+idLetters || id[len(idTime)] != '-' || !is32(id[len(idTime)+1:]) {
		return time.Time{}, false
	}
	at, err := time.Parse(idTime, id[:len(idTime)])
	return at, err == nil
}

// Snapshots lists the backups that are there whole, the newest first.
func (f *Folder) Snapshots() (all []Snapshot, err error) {
	for e, err := range listing(f.disk, snapshotsDir) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		} else if err != nil {
			return nil, failure("read the folder of backups", err)
		}
		id, ok := strings.CutSuffix(e.Name(), manifestSuffix)
		if !ok {
			continue
		}
		at, ok := snapshotAt(id)
		if !ok {
			continue
		}
		if len(all) == mostSnapshots {
			return nil, holdfast.Errorf(holdfast.TooLarge, "%s has more than %d backups: begin a new folder", f.dir, mostSnapshots)
		}
		all = append(all, Snapshot{id, at})
	}
	slices.SortFunc(all, func(a, b Snapshot) int { return strings.Compare(b.ID, a.ID) })
	return all, nil
}

// eachEntry reads a snapshot's list of pieces, and returns its digest.
func (f *Folder) eachEntry(id string, each func(Entry) error) (digest string, err error) {
	list, err := readable(f.disk, listPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return "", holdfast.Errorf(holdfast.Invalid, "backup %s is not whole: its list of pieces is missing", id)
	} else if err != nil {
		return "", failure("read backup", err)
	}
	defer list.Close()
	digest, err = parseList(list, each)
	if err != nil {
		return "", fmt.Errorf("read backup %s: %w", id, err)
	}
	return digest, nil
}
