package blob

import (
	"container/list"
	"context"
	"errors"
	"os"
	"sync"

	"github.com/holdfast-iot/holdfast"
)

// ReadAt implements Store.
func (d *Dir) ReadAt(ctx context.Context, id holdfast.BlobID, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := d.files.open(id, d.path(id))
	if err != nil {
		return failure("read blob", id, err)
	}
	defer d.files.release(f)
	if err := checkRange(id, off, int64(len(p)), f.size); err != nil {
		return err
	}
	_, err = f.file.ReadAt(p, off)
	if d.files.isGone(f) { // what was read may be zeros already
		return holdfast.Errorf(holdfast.NotFound, "there is no blob %s", id)
	}
	if err != nil {
		return failure("read blob", id, err)
	}
	return nil
}

// maxOpen is how many files stay open for the next read.
const maxOpen = 128

// fileCache keeps the files read last open, each until nobody uses it.
type fileCache struct {
	disk  Files
	mu    sync.Mutex
	byID  map[holdfast.BlobID]*list.Element // of *openFile
	order list.List                         // most recently used first
}

// openFile is a blob's file. All but file and size belong to the cache's lock.
type openFile struct {
	id   holdfast.BlobID
	file File
	size int64
	uses int  // readers at work, and one for the cache itself
	gone bool // deleted
}

// open returns the blob's file; release it after use.
func (c *fileCache) open(id holdfast.BlobID, path string) (*openFile, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byID[id]; ok {
		c.order.MoveToFront(e)
		f := e.Value.(*openFile)
		f.uses++
		return f, nil
	}
	file, err := c.disk.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	f := &openFile{id: id, file: file, size: info.Size(), uses: 2}
	if c.byID == nil {
		c.byID = map[holdfast.BlobID]*list.Element{}
	}
	c.byID[id] = c.order.PushFront(f)
	c.shrink()
	return f, nil
}

// shrink drops the file that was not used for longest, if there are too many. One
// in use stays: its reader must hear of a Delete.
func (c *fileCache) shrink() {
	if c.order.Len() <= maxOpen {
		return
	}
	for e := c.order.Back(); e != nil; e = e.Prev() {
		if e.Value.(*openFile).uses == 1 {
			c.drop(e)
			return
		}
	}
}

// release ends a use.
func (c *fileCache) release(f *openFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unuse(f)
}

func (c *fileCache) unuse(f *openFile) error {
	if f.uses--; f.uses == 0 {
		return f.file.Close()
	}
	return nil
}

// drop takes a file out of the cache.
func (c *fileCache) drop(e *list.Element) error {
	f := c.order.Remove(e).(*openFile)
	delete(c.byID, f.id)
	return c.unuse(f)
}

// forget takes a deleted blob's file out of the cache and tells its readers.
func (c *fileCache) forget(id holdfast.BlobID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byID[id]; ok {
		e.Value.(*openFile).gone = true
		c.drop(e)
	}
}

func (c *fileCache) isGone(f *openFile) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return f.gone
}

// close drops all files; those in use are closed by their last reader.
func (c *fileCache) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for c.order.Len() > 0 {
		err = errors.Join(err, c.drop(c.order.Back()))
	}
	return err
}
