package server

import (
	"fmt"
	"syscall"
	"time"
)

// File systems by the number that statfs gives (linux/magic.h).
var diskKinds = map[int64]struct {
	name string
	sort diskSort
}{
	0xef53:     {"ext4", diskLocal},
	0x58465342: {"xfs", diskLocal},
	0x9123683e: {"btrfs", diskLocal},
	0x2fc12fc1: {"zfs", diskLocal},
	0xf2f52010: {"f2fs", diskLocal},
	0x01021994: {"tmpfs", diskVolatile},
	0x858458f6: {"ramfs", diskVolatile},
	0x794c7630: {"overlay", diskLayered},
	0x61756673: {"aufs", diskLayered},
	0x6969:     {"nfs", diskRemote},
	0xff534d42: {"cifs", diskRemote},
	0xfe534d42: {"smb2", diskRemote},
	0x517b:     {"smb", diskRemote},
	0x01021997: {"9p", diskRemote},
	0x65735546: {"fuse", diskRemote},
	0x00c36400: {"ceph", diskRemote},
	0x786f4256: {"vboxsf", diskRemote},
}

func diskOf(path string) (disk, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return disk{}, fmt.Errorf("ask for the disk of a folder: %w", err)
	}
	d := disk{Free: st.Bavail * uint64(st.Bsize), Size: st.Blocks * uint64(st.Bsize), FreeNodes: st.Ffree, Nodes: st.Files}
	if k, known := diskKinds[int64(uint32(st.Type))]; known {
		d.Kind, d.Sort = k.name, k.sort
	}
	if o, err := statOwned(path); err == nil {
		d.Device = o.Device
	}
	return d, nil
}

// What adjtimex says: its result TIME_ERROR, and the status bit that nobody keeps
// the clock.
const (
	timeError      = 5
	statusUnsynced = 0x40
)

func clockOfKernel() (kernelClock, bool) {
	var t syscall.Timex // with no mode set it only asks
	state, err := syscall.Adjtimex(&t)
	if err != nil {
		return kernelClock{}, false
	}
	return kernelClock{
		Synchronised: state != timeError && t.Status&statusUnsynced == 0,
		Error:        time.Duration(t.Maxerror) * time.Microsecond,
	}, true
}
