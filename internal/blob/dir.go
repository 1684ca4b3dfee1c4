package blob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/holdfast-iot/holdfast"
)

// Names in the folder. A blob lies at X/Y/ID: the first two letters of its id,
// then the whole id, so that no folder grows large and there are few.
const (
	layoutName = "LAYOUT"
	layoutText = "holdfast blob folder 1\n"
	putSuffix  = ".put"  // being written
	goneSuffix = ".gone" // being deleted
)

// Dir is a Store in a folder of the operating system. One process uses the folder
// at a time: who owns the data folder locks it.
type Dir struct {
	disk  Files
	root  string
	files fileCache

	// Put, Punch and Delete of one id exclude each other; so do those of ids that
	// share a stripe, to no harm.
	stripes [64]sync.Mutex

	mu   sync.Mutex
	made map[string]bool // folders whose entry in their parent is durable
}

// OpenDir opens the folder, which it makes if its parent is there, and removes
// what a crash left half put or half deleted.
//
// It fails with Invalid if path is no folder, Conflict if a newer version laid it
// out, Unavailable if it can't be written.
func OpenDir(path string) (*Dir, error) {
	root, err := filepath.Abs(path)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "open blob folder: %w", err)
	}
	return OpenDirOn(osFiles{}, root)
}

// OpenDirOn is OpenDir in another file system. root is absolute there.
func OpenDirOn(disk Files, root string) (*Dir, error) {
	d := &Dir{disk: disk, root: root, files: fileCache{disk: disk}, made: map[string]bool{}}
	if err := d.makeRoot(); err != nil {
		return nil, err
	}
	if err := d.checkLayout(); err != nil {
		return nil, err
	}
	if err := d.sweep(); err != nil {
		return nil, holdfast.Errorf(holdfast.Unavailable, "clean blob folder %s: %w; the process must be able to read and write there", root, err)
	}
	return d, nil
}

func (d *Dir) makeRoot() error {
	root := d.root
	switch err := d.disk.Mkdir(root, 0o700); {
	case err == nil:
		if err := d.disk.SyncFolder(filepath.Dir(root)); err != nil {
			return holdfast.Errorf(holdfast.Unavailable, "make blob folder: %w", err)
		}
	case errors.Is(err, fs.ErrExist):
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return holdfast.Errorf(holdfast.Invalid, "make blob folder: %w; the folder it is to lie in must exist", err)
	default:
		return holdfast.Errorf(holdfast.Unavailable, "make blob folder: %w", err)
	}
	info, err := d.disk.Stat(root)
	switch {
	case err != nil:
		return holdfast.Errorf(holdfast.Unavailable, "open blob folder: %w", err)
	case !info.IsDir():
		return holdfast.Errorf(holdfast.Invalid, "open blobs: %s is not a folder; name a folder, or move the file away", root)
	}
	return nil
}

// checkLayout reads the layout's version. It is written anew each time that it is
// known, which also shows that the folder can be written.
func (d *Dir) checkLayout() error {
	path := filepath.Join(d.root, layoutName)
	b, err := readFile(d.disk, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return holdfast.Errorf(holdfast.Unavailable, "open blob folder: %w", err)
	case string(b) != layoutText:
		return holdfast.Errorf(holdfast.Conflict, "open blob folder: %s does not say %q: a newer version of Holdfast laid it out, or it is none of ours. Nothing was changed. Start the version that wrote it, or name another folder", path, strings.TrimSpace(layoutText))
	}
	if err := d.write(path, []byte(layoutText)); err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "write to blob folder: %w; the process must be able to write there", err)
	}
	return nil
}

// sweep removes what Put and Delete left when they were interrupted. Its bytes
// are overwritten as those of any deleted blob.
func (d *Dir) sweep() error {
	for dir, err := range d.folders() {
		if err != nil {
			return err
		}
		entries, err := d.disk.ReadDir(dir)
		if err != nil {
			return err
		}
		swept := false
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), putSuffix) || strings.HasSuffix(e.Name(), goneSuffix) {
				if err := scrub(d.disk, filepath.Join(dir, e.Name())); err != nil {
					return err
				}
				swept = true
			}
		}
		if swept {
			if err := d.disk.SyncFolder(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// folders yields the folders that blobs lie in.
func (d *Dir) folders() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		outer, err := d.letters(d.root)
		if err != nil {
			yield("", err)
			return
		}
		for _, dir := range outer {
			inner, err := d.letters(dir)
			if err != nil {
				yield("", err)
				return
			}
			for _, dir := range inner {
				if !yield(dir, nil) {
					return
				}
			}
		}
	}
}

// letters returns the folders in dir whose name is one letter of an id.
func (d *Dir) letters(dir string) ([]string, error) {
	entries, err := d.disk.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if e.IsDir() && len(e.Name()) == 1 && strings.Contains("abcdefghijklmnopqrstuvwxyz234567", e.Name()) {
			all = append(all, filepath.Join(dir, e.Name()))
		}
	}
	return all, nil
}

// Close closes the files that are kept open for reading.
func (d *Dir) Close() error { return d.files.close() }

// path is where a blob lies.
func (d *Dir) path(id holdfast.BlobID) string {
	name := id.String()
	return filepath.Join(d.root, name[:1], name[1:2], name)
}

// lock excludes other changes of the blob; call what it returns to end that.
func (d *Dir) lock(id holdfast.BlobID) func() {
	m := &d.stripes[int(id[0])%len(d.stripes)]
	m.Lock()
	return m.Unlock
}

// makeFolder makes a blob's folder durable. A folder that is there counts only
// after its parent was synced once by this process: the one that made it may
// have died before.
func (d *Dir) makeFolder(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, dir := range []string{filepath.Dir(dir), dir} {
		if d.made[dir] {
			continue
		}
		if err := d.disk.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := d.disk.SyncFolder(filepath.Dir(dir)); err != nil {
			return err
		}
		d.made[dir] = true
	}
	return nil
}

// Size implements Store.
func (d *Dir) Size(ctx context.Context, id holdfast.BlobID) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	info, err := d.disk.Stat(d.path(id))
	if err != nil {
		return 0, failure("find blob", id, err)
	}
	return info.Size(), nil
}

// List implements Store. It yields ids in order.
func (d *Dir) List(ctx context.Context) iter.Seq2[holdfast.BlobID, error] {
	return func(yield func(holdfast.BlobID, error) bool) {
		for dir, err := range d.folders() {
			var entries []fs.DirEntry
			if err == nil {
				entries, err = d.disk.ReadDir(dir)
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(holdfast.BlobID{}, holdfast.Errorf(holdfast.Unavailable, "list blobs: %w", err))
				return
			}
			for _, e := range entries {
				var id holdfast.BlobID
				if id.UnmarshalText([]byte(e.Name())) != nil {
					continue // being put or deleted, or not ours
				}
				if !yield(id, nil) {
					return
				}
			}
		}
	}
}

// failure gives an error of the file system its kind and the blob's name.
func failure(what string, id holdfast.BlobID, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return holdfast.Errorf(holdfast.NotFound, "there is no blob %s", id)
	case noSpace(err):
		return holdfast.Errorf(holdfast.Unavailable, "%s %s: no space left: free some or enlarge the disk: %w", what, id, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s %s: %w", what, id, err)
	}
	return holdfast.Errorf(holdfast.Unavailable, "%s %s: %w", what, id, err)
}
