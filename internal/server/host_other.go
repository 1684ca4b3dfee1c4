//go:build !linux

package server

import (
	"fmt"
	"syscall"
)

func diskOf(path string) (disk, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return disk{}, fmt.Errorf("ask for the disk of a folder: %w", err)
	}
	d := disk{Free: uint64(st.Bavail) * uint64(st.Bsize), Size: uint64(st.Blocks) * uint64(st.Bsize), FreeNodes: uint64(st.Ffree), Nodes: uint64(st.Files)}
	if o, err := statOwned(path); err == nil {
		d.Device = o.Device
	}
	return d, nil
}

// clockOfKernel can't be asked for here.
func clockOfKernel() (kernelClock, bool) { return kernelClock{}, false }
