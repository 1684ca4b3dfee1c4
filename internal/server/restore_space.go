package server

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
)

// diskFull gives an error of the file system its kind, and says what to do.
func diskFull(what string, err error) error {
	if outOfSpace(err) {
		return holdfast.Errorf(holdfast.Unavailable, "%s: no space left: free some, then run it again; what is there is not fetched again: %w", what, err)
	}
	return holdfast.Errorf(kindOr(err, holdfast.Unavailable), "%s: %w", what, err)
}

// outOfSpace reports that a disk, or a quota on it, is full.
func outOfSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) || catalog.Full(err)
}

// needs says of a disk that is full how much room the restore takes.
func (x *restoring) needs(err error) error {
	if !outOfSpace(err) {
		return err
	}
	free := ""
	var fs syscall.Statfs_t
	if syscall.Statfs(x.c.Data, &fs) == nil {
		free = fmt.Sprintf("; %s are free now", mebibytes(uint64(fs.Bavail)*uint64(fs.Bsize)))
	}
	return holdfast.Errorf(holdfast.Unavailable, "no space left in %s: the whole of it takes some %s%s. Free space there, or name a folder on a larger disk, and run it again; into the same folder it goes on where it was: %w",
		x.c.Data, mebibytes(uint64(x.reader.Statement.Bytes)+restoreSlack), free, err)
}

func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", (n+1<<19)>>20) }
