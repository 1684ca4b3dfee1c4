package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast-iot/holdfast"
)

// Put implements Store.
//
// The order is the point: the bytes are durable before the file has the blob's
// name, and the name is durable before Put returns.
func (d *Dir) Put(ctx context.Context, id holdfast.BlobID, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer d.lock(id)()
	path := d.path(id)
	switch same, err := d.holds(path, data); {
	case err == nil && same:
		return nil
	case err == nil:
		return holdfast.Errorf(holdfast.Conflict, "there is another blob %s", id)
	case !errors.Is(err, fs.ErrNotExist):
		return failure("put blob", id, err)
	}
	err := d.makeFolder(filepath.Dir(path))
	if err == nil {
		err = d.write(path, data)
	}
	if err != nil {
		return failure("put blob", id, err)
	}
	return nil
}

// write makes a file of these bytes at path, durable and whole, in place of what
// is there. A failed sync is not tried again: another Put writes another file.
func (d *Dir) write(path string, data []byte) error {
	temp := path + putSuffix
	f, err := d.disk.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = d.disk.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, d.disk.Remove(temp))
	}
	if err := d.disk.SyncFolder(filepath.Dir(path)); err != nil {
		// Its name may be in the kernel's memory only: the next Put must not find it.
		return errors.Join(err, d.disk.Remove(path))
	}
	return nil
}

// holds reports whether the file at path has exactly these bytes. If so, they
// and the name are made durable: the process that wrote them may have died
// before it did.
func (d *Dir) holds(path string, data []byte) (bool, error) {
	f, err := d.disk.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() != int64(len(data)) {
		return false, err
	}
	buf := make([]byte, len(zeros))
	for len(data) > 0 {
		n, err := io.ReadFull(f, buf[:min(len(buf), len(data))])
		if err != nil {
			return false, err
		}
		if !bytes.Equal(buf[:n], data[:n]) {
			return false, nil
		}
		data = data[n:]
	}
	dir := filepath.Dir(path)
	if err := d.makeFolder(dir); err != nil {
		return false, err
	}
	return true, errors.Join(f.Sync(), d.disk.SyncFolder(dir))
}
