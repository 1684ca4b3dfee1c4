//go:build !linux

package server

import "syscall"

// NoCoreDumps keeps the process's memory, in which its keys are, from being written
// to a disk when it crashes.
func NoCoreDumps() error { return syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) }

// Uninterrupted does nothing here.
func Uninterrupted() error { return nil }

// secrecyOf asks how the process's memory may come to a disk.
func secrecyOf() (secrecy, error) {
	var l syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_CORE, &l)
	return secrecy{Dumps: l.Cur > 0}, err
}
