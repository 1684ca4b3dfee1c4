package backup

import (
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
	lock *os.File // nil: it is only read
}

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
	f := &Folder{dir: dir}
	if err := f.claim(); err != nil {
		return nil, err
	}
	if f.lock, err = os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, failure("lock the folder of backups", err)
	}
	if err := syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.lock.Close()
		return nil, holdfast.Errorf(holdfast.Conflict, "another run writes to %s: wait for its end", dir)
	}
	for _, sub := range []string{piecesDir, snapshotsDir} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			f.Close()
			return nil, failure("make the folder of backups", err)
		}
	}
	return f, errors.Join(syncFolder(dir), syncFolder(filepath.Dir(dir)))
}

// claim writes LAYOUT into a new folder; one that has other things in it is not
// ours.
func (f *Folder) claim() error {
	path := filepath.Join(f.dir, layoutName)
	b, err := os.ReadFile(path)
	switch {
	case err == nil && string(b) == layoutText:
		return nil
	case err == nil:
		return holdfast.Errorf(holdfast.Conflict, "%s does not say %q: a newer version of Holdfast laid it out, or it is none of ours. Nothing was changed", path, strings.TrimSpace(layoutText))
	case !errors.Is(err, fs.ErrNotExist):
		return failure("open the folder of backups", err)
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return failure("open the folder of backups", err)
	}
	for _, e := range entries {
		if e.Name() != layoutName+tempSuffix && e.Name() != "lost+found" {
			return holdfast.Errorf(holdfast.Conflict, "%s is no folder of backups, and not empty: name a new one", f.dir)
		}
	}
	return f.write(path, []byte(layoutText))
}

// ReadFolder opens a folder of backups to read from it; others may write meanwhile.
func ReadFolder(dir string) (*Folder, error) {
	b, err := os.ReadFile(filepath.Join(dir, layoutName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, holdfast.Errorf(holdfast.NotFound, "%s is no folder of backups: it has no %s", dir, layoutName)
	case err != nil:
		return nil, failure("open the folder of backups", err)
	case string(b) != layoutText:
		return nil, holdfast.Errorf(holdfast.Conflict, "%s was laid out by a newer version of Holdfast, or is none of ours", dir)
	}
	return &Folder{dir: dir}, nil
}

// Close unlocks the folder.
func (f *Folder) Close() error {
	if f.lock == nil {
		return nil
	}
	return f.lock.Close()
}

func (f *Folder) piecePath(file string) string {
	return filepath.Join(f.dir, piecesDir, file[:2], file+pieceSuffix)
}

func (f *Folder) manifestPath(id string) string {
	return filepath.Join(f.dir, snapshotsDir, id+manifestSuffix)
}

func (f *Folder) listPath(id string) string {
	return filepath.Join(f.dir, snapshotsDir, id+listSuffix)
}

// pieces returns what is stored: the file by the name in front of its tag, and how
// large it is there.
func (f *Folder) pieces() (map[string]stored, error) {
	all := map[string]stored{}
	outer, err := os.ReadDir(filepath.Join(f.dir, piecesDir))
	if err != nil {
		return nil, failure("read the folder of backups", err)
	}
	for _, o := range outer {
		if !o.IsDir() {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(f.dir, piecesDir, o.Name()))
		if err != nil {
			return nil, failure("read the folder of backups", err)
		}
		for _, e := range entries {
			if f.lock != nil && strings.HasSuffix(e.Name(), tempSuffix) { // of a run that was cut short
				if err := os.Remove(filepath.Join(f.dir, piecesDir, o.Name(), e.Name())); err != nil {
					return nil, failure("clean the folder of backups", err)
				}
				continue
			}
			file, ok := strings.CutSuffix(e.Name(), pieceSuffix)
			if !ok || !isPieceName(file) {
				continue
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return nil, failure("read the folder of backups", err)
			}
			all[file[:nameLength]] = stored{file, info.Size()}
		}
	}
	return all, nil
}

type stored struct {
	file string
	size int64
}

// Snapshot is a backup in a folder, by what can be seen without its key.
type Snapshot struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

// idTime is how a snapshot's id begins.
const idTime = "20060102T150405Z"

func snapshotID(p Plan) string { return p.Began.UTC().Format(idTime) + "-" + p.ID[:8] }

// Snapshots lists the backups that are there whole, the newest first.
func (f *Folder) Snapshots() (all []Snapshot, err error) {
	entries, err := os.ReadDir(filepath.Join(f.dir, snapshotsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, failure("read the folder of backups", err)
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), manifestSuffix)
		if !ok || len(id) != len(idTime)+9 || id[len(idTime)] != '-' {
			continue
		}
		if at, err := time.Parse(idTime, id[:len(idTime)]); err == nil {
			all = append(all, Snapshot{id, at})
		}
	}
	slices.SortFunc(all, func(a, b Snapshot) int { return strings.Compare(b.ID, a.ID) })
	return all, nil
}

// list reads a snapshot's list of pieces.
func (f *Folder) list(id string) ([]Entry, []byte, error) {
	text, err := os.ReadFile(f.listPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, holdfast.Errorf(holdfast.Invalid, "backup %s is not whole: its list of pieces is missing", id)
	} else if err != nil {
		return nil, nil, failure("read backup", err)
	}
	all, err := parseList(text)
	if err != nil {
		return nil, nil, fmt.Errorf("read backup %s: %w", id, err)
	}
	return all, text, nil
}

// write writes a file whole or not at all, durably.
func (f *Folder) write(path string, data []byte) error {
	t, err := create(path + tempSuffix)
	if err != nil {
		return err
	}
	if _, err := t.Write(data); err != nil {
		return errors.Join(failure("write backup", err), t.drop())
	}
	return errors.Join(t.keep(path), syncFolder(filepath.Dir(path)))
}

// temp is a file on its way into the folder.
type temp struct{ *os.File }

func create(path string) (temp, error) {
	t, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return temp{}, failure("write backup", err)
	}
	return temp{t}, nil
}

// keep gives the file its name; what it holds is durable then. The folder is for the
// caller to sync.
func (t temp) keep(path string) error {
	err := t.Sync()
	if err = errors.Join(err, t.Close()); err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		return errors.Join(failure("write backup", err), os.Remove(t.Name()))
	}
	return nil
}

func (t temp) drop() error { return errors.Join(t.Close(), os.Remove(t.Name())) }

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return failure("write backup", err)
	}
	return nil
}

// failure gives an error of the file system its kind, and says what to do.
func failure(what string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return holdfast.Errorf(holdfast.Unavailable, "%s: no space left: free some or name a larger disk, then run it again; what is written is not written again: %w", what, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return holdfast.Errorf(holdfast.Denied, "%s: %w", what, err)
	case errors.Is(err, fs.ErrNotExist):
		return holdfast.Errorf(holdfast.NotFound, "%s: %w", what, err)
	}
	return holdfast.Errorf(holdfast.Unavailable, "%s: %w", what, err)
}
