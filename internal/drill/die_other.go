//go:build !linux

package drill

import "os/exec"

// dieWithUs does nothing: here a program outlives the drill that is killed.
func dieWithUs(*exec.Cmd) {}
