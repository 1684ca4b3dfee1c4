package simtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// VFS is a Disk as SQLite's file system (sqlite.org/vfs.html): what the catalog
// writes, syncs and deletes are steps of the disk. Locks and the shared memory of
// the write-ahead log are those of one process; they are gone with it.
type VFS struct {
	name  string
	disk  *Disk
	tls   *libc.TLS
	c     uintptr // sqlite3_vfs
	cname uintptr
	io    uintptr // sqlite3_io_methods

	mu     sync.Mutex
	files  map[uintptr]*vfsFile // by SQLite's handle
	shared map[string]*vfsShared
}

// vfsFile is what one connection has open.
type vfsFile struct {
	file    *File
	private *node // of a temporary file, which is on no disk
	fresh   bool  // its name may not be durable yet: an earlier process may have made it
	level   int32 // of its lock
	shared  *vfsShared
	shm     uint16 // locks held in the shared memory: a bit each, shared or exclusive
}

// vfsShared is what connections to one file share.
type vfsShared struct {
	open     int
	readers  int      // with a shared lock or more
	reserved *vfsFile // at most one; also pending and exclusive
	regions  []uintptr
	slots    [sqlite3.SQLITE_SHM_NLOCK]int // readers, or -1 for one writer
	owners   [sqlite3.SQLITE_SHM_NLOCK]*vfsFile
}

// The registry of file systems is SQLite's, one for the process, and its calls
// carry nothing but pointers of its own.
var (
	vfsCount atomic.Uint64
	vfsByC   sync.Map // sqlite3_vfs pointer -> *VFS
	vfsByIO  sync.Map // sqlite3_io_methods pointer -> *VFS
)

// RegisterVFS makes the disk known to SQLite until Close.
func RegisterVFS(d *Disk) (*VFS, error) {
	v := &VFS{name: fmt.Sprintf("simulated-%d", vfsCount.Add(1)), disk: d, tls: libc.NewTLS(), files: map[uintptr]*vfsFile{}, shared: map[string]*vfsShared{}}
	var err error
	if v.cname, err = libc.CString(v.name); err != nil {
		return nil, err
	}
	v.c = libc.Xcalloc(v.tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{})))
	v.io = libc.Xcalloc(v.tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{})))
	*at[sqlite3.Tsqlite3_vfs](v.c) = sqlite3.Tsqlite3_vfs{
		FiVersion: 2, FszOsFile: int32(unsafe.Sizeof(sqlite3.Tsqlite3_file{})), FmxPathname: 512, FzName: v.cname,
		FxOpen: fn(vfsOpen), FxDelete: fn(vfsDelete), FxAccess: fn(vfsAccess), FxFullPathname: fn(vfsFullPathname),
		FxRandomness: fn(vfsRandomness), FxSleep: fn(vfsSleep), FxCurrentTime: fn(vfsCurrentTime),
		FxGetLastError: fn(vfsGetLastError), FxCurrentTimeInt64: fn(vfsCurrentTimeInt64),
	}
	*at[sqlite3.Tsqlite3_io_methods](v.io) = sqlite3.Tsqlite3_io_methods{
		FiVersion: 2, FxClose: fn(vfsClose), FxRead: fn(vfsRead), FxWrite: fn(vfsWrite), FxTruncate: fn(vfsTruncate), FxSync: fn(vfsSync),
		FxFileSize: fn(vfsFileSize), FxLock: fn(vfsLock), FxUnlock: fn(vfsUnlock), FxCheckReservedLock: fn(vfsCheckReservedLock),
		FxFileControl: fn(vfsFileControl), FxSectorSize: fn(vfsSectorSize), FxDeviceCharacteristics: fn(vfsDeviceCharacteristics),
		FxShmMap: fn(vfsShmMap), FxShmLock: fn(vfsShmLock), FxShmBarrier: fn(vfsShmBarrier), FxShmUnmap: fn(vfsShmUnmap),
	}
	vfsByC.Store(v.c, v)
	vfsByIO.Store(v.io, v)
	if rc := sqlite3.Xsqlite3_vfs_register(v.tls, v.c, 0); rc != sqlite3.SQLITE_OK {
		return nil, fmt.Errorf("register file system with SQLite: %d", rc)
	}
	return v, nil
}

// Name is what a connection names the file system by.
func (v *VFS) Name() string { return v.name }

// Close takes the file system away; every connection is closed by then.
func (v *VFS) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := len(v.files); n > 0 {
		return fmt.Errorf("%d files of the catalog are still open", n)
	}
	rc := sqlite3.Xsqlite3_vfs_unregister(v.tls, v.c)
	vfsByC.Delete(v.c)
	vfsByIO.Delete(v.io)
	for _, p := range []uintptr{v.c, v.io, v.cname} {
		libc.Xfree(v.tls, p)
	}
	v.tls.Close()
	if rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("unregister file system: %d", rc)
	}
	return nil
}

// fn is a function as the translated C calls it: a pointer to Go's function value.
func fn[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&f)) }

// at reads memory of the C side.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

func memory(p uintptr, n int32) []byte { return unsafe.Slice(at[byte](p), int(n)) }

func vfsOf(p uintptr) *VFS {
	v, _ := vfsByC.Load(p)
	return v.(*VFS)
}

func (v *VFS) file(handle uintptr) *vfsFile {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.files[handle]
}

func fileOf(handle uintptr) (*VFS, *vfsFile) {
	x, _ := vfsByIO.Load(at[sqlite3.Tsqlite3_file](handle).FpMethods)
	v := x.(*VFS)
	return v, v.file(handle)
}

// result is an error as SQLite's code of an operation.
func result(err error, code int32) int32 {
	switch {
	case err == nil:
		return sqlite3.SQLITE_OK
	case errors.Is(err, syscall.ENOSPC):
		return sqlite3.SQLITE_FULL
	}
	return code
}

func vfsOpen(_ *libc.TLS, pVfs, zName, handle uintptr, flags int32, pOut uintptr) int32 {
	v := vfsOf(pVfs)
	at[sqlite3.Tsqlite3_file](handle).FpMethods = 0
	f := &vfsFile{}
	if zName == 0 {
		f.private = &node{}
	} else {
		name, mode := libc.GoString(zName), os.O_RDWR
		if flags&sqlite3.SQLITE_OPEN_CREATE != 0 {
			mode |= os.O_CREATE
			f.fresh = flags&(sqlite3.SQLITE_OPEN_WAL|sqlite3.SQLITE_OPEN_MAIN_JOURNAL) != 0
		}
		var err error
		if f.file, err = v.disk.Open(name, mode, 0o600); err != nil {
			return result(err, sqlite3.SQLITE_CANTOPEN)
		}
		v.mu.Lock()
		if f.shared = v.shared[name]; f.shared == nil {
			f.shared = &vfsShared{}
			v.shared[name] = f.shared
		}
		f.shared.open++
		v.mu.Unlock()
	}
	v.mu.Lock()
	v.files[handle] = f
	v.mu.Unlock()
	if pOut != 0 {
		*at[int32](pOut) = flags
	}
	at[sqlite3.Tsqlite3_file](handle).FpMethods = v.io
	return sqlite3.SQLITE_OK
}

func vfsClose(tls *libc.TLS, handle uintptr) int32 {
	v, f := fileOf(handle)
	vfsUnlock(tls, handle, sqlite3.SQLITE_LOCK_NONE)
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.files, handle)
	if f.shared != nil {
		if f.shared.open--; f.shared.open == 0 {
			for _, p := range f.shared.regions {
				libc.Xfree(v.tls, p)
			}
			delete(v.shared, f.file.name)
		}
	}
	return sqlite3.SQLITE_OK
}

func vfsRead(_ *libc.TLS, handle, buf uintptr, n int32, off int64) int32 {
	_, f := fileOf(handle)
	p := memory(buf, n)
	var got int
	if f.private != nil {
		got = f.private.read(p, off)
	} else {
		var err error
		if got, err = f.file.ReadAt(p, off); errors.Is(err, errPower) {
			return sqlite3.SQLITE_IOERR_READ
		}
	}
	if got < len(p) {
		clear(p[got:])
		return sqlite3.SQLITE_IOERR_SHORT_READ
	}
	return sqlite3.SQLITE_OK
}

func vfsWrite(_ *libc.TLS, handle, buf uintptr, n int32, off int64) int32 {
	_, f := fileOf(handle)
	if f.private != nil {
		f.private.put(memory(buf, n), off)
		return sqlite3.SQLITE_OK
	}
	_, err := f.file.WriteAt(memory(buf, n), off)
	return result(err, sqlite3.SQLITE_IOERR_WRITE)
}

func vfsTruncate(_ *libc.TLS, handle uintptr, size int64) int32 {
	_, f := fileOf(handle)
	if f.private != nil {
		f.private.truncate(size)
		return sqlite3.SQLITE_OK
	}
	return result(f.file.Truncate(size), sqlite3.SQLITE_IOERR_TRUNCATE)
}

// vfsSync makes the name of a log durable at the first sync of it, as SQLite's own
// file system does.
func vfsSync(_ *libc.TLS, handle uintptr, _ int32) int32 {
	v, f := fileOf(handle)
	if f.private != nil {
		return sqlite3.SQLITE_OK
	}
	if err := f.file.Sync(); err != nil {
		return sqlite3.SQLITE_IOERR_FSYNC
	}
	if f.fresh {
		if err := v.disk.SyncFolder(path.Dir(f.file.name)); err != nil {
			return sqlite3.SQLITE_IOERR_DIR_FSYNC
		}
		f.fresh = false
	}
	return sqlite3.SQLITE_OK
}

func vfsFileSize(_ *libc.TLS, handle, pSize uintptr) int32 {
	_, f := fileOf(handle)
	if f.private != nil {
		*at[int64](pSize) = f.private.size
		return sqlite3.SQLITE_OK
	}
	n, err := f.file.Size()
	*at[int64](pSize) = n
	return result(err, sqlite3.SQLITE_IOERR_FSTAT)
}

func vfsDelete(_ *libc.TLS, pVfs, zName uintptr, syncDir int32) int32 {
	v, name := vfsOf(pVfs), libc.GoString(zName)
	if err := v.disk.Remove(name); errors.Is(err, fs.ErrNotExist) {
		return sqlite3.SQLITE_IOERR_DELETE_NOENT
	} else if err != nil {
		return sqlite3.SQLITE_IOERR_DELETE
	}
	if syncDir&1 != 0 {
		if err := v.disk.SyncFolder(path.Dir(name)); err != nil {
			return sqlite3.SQLITE_IOERR_DIR_FSYNC
		}
	}
	return sqlite3.SQLITE_OK
}

func vfsAccess(_ *libc.TLS, pVfs, zName uintptr, flags int32, pOut uintptr) int32 {
	i, err := vfsOf(pVfs).disk.Stat(libc.GoString(zName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return sqlite3.SQLITE_IOERR_ACCESS
	}
	*at[int32](pOut) = libc.Bool32(err == nil && (flags != sqlite3.SQLITE_ACCESS_EXISTS || i.IsDir() || i.Size() > 0))
	return sqlite3.SQLITE_OK
}

func vfsFullPathname(_ *libc.TLS, _, zName uintptr, n int32, zOut uintptr) int32 {
	name := path.Clean("/" + libc.GoString(zName))
	if len(name) >= int(n) {
		return sqlite3.SQLITE_CANTOPEN
	}
	out := memory(zOut, n)
	out[copy(out, name)] = 0
	return sqlite3.SQLITE_OK
}

// vfsRandomness seeds SQLite's own generator, once in the process: what comes of
// it is the salt of a log.
func vfsRandomness(_ *libc.TLS, _ uintptr, n int32, out uintptr) int32 {
	clear(memory(out, n))
	return n
}

func vfsSleep(_ *libc.TLS, _ uintptr, micros int32) int32 {
	time.Sleep(time.Duration(micros) * time.Microsecond)
	return micros
}

func vfsCurrentTimeInt64(_ *libc.TLS, _, out uintptr) int32 {
	*at[int64](out) = time.Now().UnixMilli() + 210866760000000 // Julian days begin in the year -4713
	return sqlite3.SQLITE_OK
}

func vfsCurrentTime(tls *libc.TLS, pVfs, out uintptr) int32 {
	*at[float64](out) = float64(time.Now().UnixMilli()+210866760000000) / 86400000
	return sqlite3.SQLITE_OK
}

func vfsGetLastError(*libc.TLS, uintptr, int32, uintptr) int32 { return 0 }

func vfsFileControl(*libc.TLS, uintptr, int32, uintptr) int32 { return sqlite3.SQLITE_NOTFOUND }
func vfsSectorSize(*libc.TLS, uintptr) int32                  { return pageSize }

// vfsDeviceCharacteristics: a write leaves the bytes beside it alone.
func vfsDeviceCharacteristics(*libc.TLS, uintptr) int32 {
	return sqlite3.SQLITE_IOCAP_POWERSAFE_OVERWRITE
}
