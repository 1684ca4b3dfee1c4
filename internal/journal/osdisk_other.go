//go:build !linux

package journal

import "os"

// allocate reserves the file's blocks by writing them.
func allocate(f *os.File, size int64) error { return writeZeros(f, size) }

// syncData makes written data durable; on macOS this reaches the medium
// (F_FULLFSYNC), not only the drive's cache.
func syncData(f *os.File) error { return f.Sync() }
