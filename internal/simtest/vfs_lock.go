package simtest

import (
	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// vfsLock raises the lock of a connection: any number may share, one may besides
// be about to write, and one that writes is alone.
func vfsLock(_ *libc.TLS, handle uintptr, level int32) int32 {
	v, f := fileOf(handle)
	v.mu.Lock()
	defer v.mu.Unlock()
	s := f.shared
	if s == nil || f.level >= level {
		return sqlite3.SQLITE_OK
	}
	switch level {
	case sqlite3.SQLITE_LOCK_SHARED:
		if s.reserved != nil && s.reserved.level >= sqlite3.SQLITE_LOCK_PENDING {
			return sqlite3.SQLITE_BUSY
		}
		s.readers++
	default:
		if s.reserved != nil && s.reserved != f {
			return sqlite3.SQLITE_BUSY
		}
		s.reserved = f
		if level == sqlite3.SQLITE_LOCK_EXCLUSIVE && s.readers > 1 {
			f.level = sqlite3.SQLITE_LOCK_PENDING
			return sqlite3.SQLITE_BUSY
		}
	}
	f.level = level
	return sqlite3.SQLITE_OK
}

func vfsUnlock(_ *libc.TLS, handle uintptr, level int32) int32 {
	v, f := fileOf(handle)
	v.mu.Lock()
	defer v.mu.Unlock()
	if f.shared == nil || f.level <= level {
		return sqlite3.SQLITE_OK
	}
	if f.shared.reserved == f {
		f.shared.reserved = nil
	}
	if level == sqlite3.SQLITE_LOCK_NONE {
		f.shared.readers--
	}
	f.level = level
	return sqlite3.SQLITE_OK
}

func vfsCheckReservedLock(_ *libc.TLS, handle, out uintptr) int32 {
	v, f := fileOf(handle)
	v.mu.Lock()
	defer v.mu.Unlock()
	*at[int32](out) = libc.Bool32(f.shared != nil && f.shared.reserved != nil)
	return sqlite3.SQLITE_OK
}

// vfsShmMap gives a piece of the memory that connections to one log share.
func vfsShmMap(_ *libc.TLS, handle uintptr, region, size, extend int32, out uintptr) int32 {
	v, f := fileOf(handle)
	v.mu.Lock()
	defer v.mu.Unlock()
	s := f.shared
	*at[uintptr](out) = 0
	for len(s.regions) <= int(region) {
		if extend == 0 {
			return sqlite3.SQLITE_OK
		}
		s.regions = append(s.regions, libc.Xcalloc(v.tls, 1, libc.Tsize_t(size)))
	}
	*at[uintptr](out) = s.regions[region]
	return sqlite3.SQLITE_OK
}

func vfsShmLock(_ *libc.TLS, handle uintptr, first, n, flags int32) int32 {
	v, f := fileOf(handle)
	v.mu.Lock()
	defer v.mu.Unlock()
	s := f.shared
	for i := first; i < first+n; i++ {
		mine := s.owners[i] == f || f.shm&(1<<i) != 0
		switch {
		case flags&sqlite3.SQLITE_SHM_UNLOCK != 0, mine:
		case s.slots[i] < 0, flags&sqlite3.SQLITE_SHM_EXCLUSIVE != 0 && s.slots[i] != 0:
			return sqlite3.SQLITE_BUSY
		}
	}
	for i := first; i < first+n; i++ {
		shared := f.shm&(1<<i) != 0
		switch {
		case flags&sqlite3.SQLITE_SHM_UNLOCK != 0:
			if s.owners[i] == f {
				s.owners[i], s.slots[i] = nil, 0
			} else if shared {
				s.slots[i]--
				f.shm &^= 1 << i
			}
		case flags&sqlite3.SQLITE_SHM_EXCLUSIVE != 0:
			s.owners[i], s.slots[i] = f, -1
		case !shared:
			s.slots[i]++
			f.shm |= 1 << i
		}
	}
	return sqlite3.SQLITE_OK
}

func vfsShmBarrier(*libc.TLS, uintptr) {}

// vfsShmUnmap lets go of the shared memory, which lives as long as the file is
// open.
func vfsShmUnmap(*libc.TLS, uintptr, int32) int32 { return sqlite3.SQLITE_OK }
