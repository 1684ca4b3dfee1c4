package drill

import (
	"os/exec"
	"syscall"
)

// dieWithUs has a program end when the drill is killed: it would work on in a folder
// that the next drill removes.
func dieWithUs(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
