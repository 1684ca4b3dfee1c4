package blob

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// punchHole gives the range's blocks back, if the file system can.
func punchHole(f *os.File, off, n int64) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		for {
			err = unix.Fallocate(int(fd), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = nil // the bytes are zero; the space stays in use
	}
	return errors.Join(err, cerr)
}
