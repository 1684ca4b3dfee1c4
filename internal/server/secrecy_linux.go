package server

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// NoCoreDumps keeps the process's memory, in which its keys are, from being written
// to a disk when it crashes, and from being read by other processes of its user.
// The limit would not do: it does not hold for a dump that the kernel gives to a
// program (core_pattern with a pipe). It is set for what the process starts, and may
// be refused.
func NoCoreDumps() error {
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// Uninterrupted begins the program anew, as the same process, without the signals by
// which Go's scheduler interrupts goroutines: of a thread that is interrupted amid a
// cipher the kernel keeps the registers, with round keys in them, on the stack of its
// signals, where nothing overwrites them. Goroutines still yield at calls of functions.
// It returns nil if that is so already.
func Uninterrupted() error {
	const setting = "asyncpreemptoff="
	was := os.Getenv("GODEBUG")
	if strings.Contains(was, setting) {
		return nil
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Setenv("GODEBUG", strings.TrimPrefix(was+","+setting+"1", ",")); err != nil {
		return err
	}
	return unix.Exec(program, os.Args, os.Environ())
}

// secrecyOf asks how the process's memory may come to a disk.
func secrecyOf() (secrecy, error) {
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return secrecy{}, fmt.Errorf("ask whether memory may be dumped: %w", err)
	}
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return secrecy{}, fmt.Errorf("ask for swap: %w", err)
	}
	out := secrecy{Dumps: dumpable != 0}
	if !swapless("/") {
		out.Swaps = plainSwaps(swaps, "/sys")
	}
	return out, nil
}

// swapless reports that the control group of the process may not swap.
func swapless(root string) bool {
	groups, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(groups)) {
		if group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			most, err := os.ReadFile(filepath.Join(root, "sys/fs/cgroup", group, "memory.swap.max"))
			return err == nil && strings.TrimSpace(string(most)) == "0"
		}
	}
	return false
}

// plainSwaps are the devices and files that memory is swapped to, but for those that
// are in memory themselves (zram) or encrypted (dm-crypt). What a swap file lies on
// is not looked at.
func plainSwaps(table []byte, sys string) (out []string) {
	for i, line := range bytes.Split(table, []byte("\n")) {
		f := strings.Fields(string(line))
		if i == 0 || len(f) == 0 { // the first has the titles
			continue
		}
		device := f[0]
		if real, err := filepath.EvalSymlinks(device); err == nil {
			device = real
		}
		name := filepath.Base(device)
		id, err := os.ReadFile(filepath.Join(sys, "block", name, "dm/uuid"))
		if strings.HasPrefix(name, "zram") || err == nil && strings.HasPrefix(string(id), "CRYPT-") {
			continue
		}
		out = append(out, f[0])
	}
	return out
}
