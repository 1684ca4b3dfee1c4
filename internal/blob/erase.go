package blob

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/holdfast-iot/holdfast"
)

// zeros is never written to.
var zeros [64 << 10]byte

// Delete implements Store.
//
// The blob first loses its name, so that it is whole or not there; then its bytes
// are overwritten; then the file goes. A crash in between is finished at the next
// open.
func (d *Dir) Delete(ctx context.Context, id holdfast.BlobID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer d.lock(id)()
	path := d.path(id)
	gone := path + goneSuffix
	err := d.disk.Rename(path, gone)
	if errors.Is(err, fs.ErrNotExist) {
		// An earlier Delete may have failed half way.
		if _, err = d.disk.Stat(gone); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if err == nil {
		d.files.forget(id) // from here on nobody reads it
		err = d.disk.SyncFolder(filepath.Dir(path))
	}
	if err == nil {
		err = scrub(d.disk, gone)
	}
	if err == nil {
		err = d.disk.SyncFolder(filepath.Dir(path))
	}
	if err != nil {
		return failure("delete blob", id, err)
	}
	return nil
}

// scrub overwrites a file with zeros, durably, and removes it.
func scrub(disk Files, path string) error {
	f, err := disk.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = zeroRange(context.Background(), f, 0, info.Size())
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return disk.Remove(path)
}

// Punch implements Store. The zeros are durable before the blocks are given back:
// a block that is only freed would keep its bytes.
func (d *Dir) Punch(ctx context.Context, id holdfast.BlobID, off, n int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer d.lock(id)()
	f, err := d.disk.OpenFile(d.path(id), os.O_RDWR, 0)
	if err != nil {
		return failure("punch blob", id, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return failure("punch blob", id, err)
	}
	if err := checkRange(id, off, n, info.Size()); err != nil || n == 0 {
		return err
	}
	err = zeroRange(ctx, f, off, off+n)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Punch(off, n)
	}
	if err != nil {
		return failure("punch blob", id, err)
	}
	return nil
}

// checkRange refuses a range that does not lie in a blob of this size.
func checkRange(id holdfast.BlobID, off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return holdfast.Errorf(holdfast.Invalid, "blob %s has %d bytes; there are no %d bytes from %d", id, size, n, off)
	}
	return nil
}

// zeroRange overwrites [from, to) of f with zeros. It does not look for zeros that
// are there already: after a sync that failed, they may be in the kernel's memory
// only. But what has no blocks, as Punch leaves it, can't be written on a full disk,
// and needs not.
func zeroRange(ctx context.Context, f File, from, to int64) error {
	for from < to {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(int64(len(zeros)), to-from)
		_, err := f.WriteAt(zeros[:n], from)
		if noSpace(err) {
			err = zeroBlocks(f, from, from+n)
		}
		if err != nil {
			return err
		}
		from += n
	}
	return nil
}

// blockSize is at most that of a file system's blocks.
const blockSize = 512

// zeroBlocks is zeroRange on a full disk, a block at a time: one for which there is no
// space to write has none on the disk that could keep bytes, if it reads as zeros.
func zeroBlocks(f File, from, to int64) error {
	var b [blockSize]byte
	for from < to {
		n := min(blockSize-from%blockSize, to-from)
		_, err := f.WriteAt(zeros[:n], from)
		if noSpace(err) {
			if _, failed := f.ReadAt(b[:n], from); failed == nil && bytes.Equal(b[:n], zeros[:n]) {
				err = nil
			}
		}
		if err != nil {
			return err
		}
		from += n
	}
	return nil
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
