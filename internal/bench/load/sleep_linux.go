package load

import (
	"runtime"
	"syscall"
	"time"
)

// precise is a thread that sleeps by the kernel's clock: an idle Go program's
// timers are up to a millisecond late.
type precise struct{}

func preciseSleep() precise {
	runtime.LockOSThread()
	syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_TIMERSLACK, 1000, 0) // ns; the kernel's default is 50 µs
	return precise{}
}

func (precise) sleep(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	syscall.Nanosleep(&t, nil) // early after a signal: the caller looks at the clock
}

func (precise) done() { runtime.UnlockOSThread() }
