package server

import (
	"math"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast/internal/seal"
)

// host is what the doctor and /readyz ask the machine. Tests answer in its place.
type host struct {
	Now    func() time.Time
	Disk   func(path string) (disk, error)
	Clock  func() (kernelClock, bool) // false: it can't be known here
	Files  func() uint64              // most open files of the process
	Memory func() (limit, group int64)
	Stat   func(path string) (owned, error)
	Secret func() (secrecy, error)
}

// secrecy is how what is in the process's memory, its keys with it, may come to a
// disk.
type secrecy struct {
	Dumps bool     // of its core when it crashes
	Swaps []string // in clear
	Keeps bool     // keys that were destroyed, until their memory is used again
}

// disk is a file system.
type disk struct {
	Free, Size       uint64 // bytes
	FreeNodes, Nodes uint64 // files; Nodes 0: not counted
	Device           uint64
	Kind             string // "" when it has no name here
	Sort             diskSort
}

// diskSort is what a file system's kind means for data that must last.
type diskSort int

const (
	diskLocal    diskSort = iota
	diskVolatile          // gone when the power is
	diskLayered           // gone with the container
	diskRemote            // somebody else answers for sync and lock
)

// kernelClock is what the kernel holds of the system's clock.
type kernelClock struct {
	Synchronised bool
	Error        time.Duration // the most that it may be wrong by
}

// owned is a file's rights.
type owned struct {
	Mode   os.FileMode
	UID    uint32
	Device uint64
	Time   time.Time // of its last change
}

// machineHost asks the operating system.
func machineHost() host {
	return host{Now: time.Now, Disk: diskOf, Clock: clockOfKernel, Files: openFiles, Memory: memoryLimits, Stat: statOwned, Secret: func() (secrecy, error) {
		s, err := secrecyOf()
		s.Keeps = !seal.Overwrites()
		return s, err
	}}
}

func statOwned(path string) (owned, error) {
	info, err := os.Stat(path)
	if err != nil {
		return owned{}, err
	}
	o := owned{Mode: info.Mode(), Time: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		o.UID, o.Device = st.Uid, uint64(st.Dev)
	}
	return o, nil
}

// memoryLimits is what the runtime tries to stay within, and what the control group
// allows; 0 where there is no limit.
func memoryLimits() (limit, group int64) {
	if limit = debug.SetMemoryLimit(-1); limit == math.MaxInt64 {
		limit = 0
	}
	return limit, groupMemory("/")
}
