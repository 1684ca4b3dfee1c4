package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// ticksPerSecond is USER_HZ, in which /proc counts processor time. It has been 100
// on every Linux that Go runs on.
const ticksPerSecond = 100

// CPU is how much processor time a process has used so far: user and system, all
// threads.
func CPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	// The second field is a name in brackets, which may hold spaces and brackets.
	_, rest, ok := bytes.Cut(b, []byte(") "))
	if i := bytes.LastIndex(b, []byte(") ")); ok && i >= 0 {
		rest = b[i+2:]
	}
	f := strings.Fields(string(rest))
	if len(f) < 13 {
		return 0, holdfast.Errorf(holdfast.Internal, "/proc/%d/stat has too few fields", pid)
	}
	user, err := strconv.ParseInt(f[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	system, err := strconv.ParseInt(f[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(user+system) * (time.Second / ticksPerSecond), nil
}

// OwnCPU is CPU of this process, that is of the load generator, to the microsecond.
func OwnCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Memory is what a process has resident, now and at most so far, in bytes.
func Memory(pid int) (now, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		switch {
		case err != nil:
		case name == "VmRSS":
			now = kib << 10
		case name == "VmHWM":
			peak = kib << 10
		}
	}
	return now, peak, nil
}

// ForgetPeak lets the peak of Memory begin anew.
func ForgetPeak(pid int) error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		return fmt.Errorf("reset peak memory: %w", err)
	}
	return nil
}

// CPUOfGroup is CPU summed over a process and its descendants, for servers that
// are several processes.
func CPUOfGroup(pid int) (time.Duration, error) {
	sum, err := CPU(pid)
	if err != nil {
		return 0, err
	}
	for _, child := range children(pid) {
		c, err := CPUOfGroup(child)
		if err == nil { // one that has just ended counts with its parent's children
			sum += c
		}
	}
	return sum, nil
}

func children(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var out []int
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for text := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(text); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// Process is a server that was started for a measurement.
type Process struct {
	name   string
	cmd    *exec.Cmd
	ended  chan struct{}
	mu     sync.Mutex
	err    error
	output tail
}

// StartProcess starts a server that ends with ctx, and waits until ready says so
// by nil, asked again and again for at most a minute. What it writes is kept for
// the error if it ends by itself.
func StartProcess(ctx context.Context, name string, cmd *exec.Cmd, ready func(ctx context.Context) error) (*Process, error) {
	p := &Process{name: name, cmd: cmd, ended: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.output
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.output
	}
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(p.ended)
	}()
	context.AfterFunc(ctx, func() { p.cmd.Process.Signal(syscall.SIGTERM) })
	patience, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := ready(patience)
		if err == nil {
			return p, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-p.ended:
			return nil, fmt.Errorf("start %s: it ended: %w: %s", name, p.reason(), p.output.String())
		case <-patience.Done():
			return nil, errors.Join(fmt.Errorf("start %s: %w: %w: %s", name, patience.Err(), err, p.output.String()), p.Stop())
		}
	}
}

// PID is the process's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Output is the end of what the process wrote.
func (p *Process) Output() string { return p.output.String() }

func (p *Process) reason() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// Stop asks the process to end, and kills it if it takes longer than 30 s. A
// process that had ended by itself is an error.
func (p *Process) Stop() error {
	select {
	case <-p.ended:
		return fmt.Errorf("stop %s: it had ended: %w: %s", p.name, p.reason(), p.output.String())
	default:
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return nil
	case <-time.After(30 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
		return holdfast.Errorf(holdfast.Internal, "stop %s: it did not end within 30 s and was killed", p.name)
	}
}

// tail keeps the last few kilobytes written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - 4<<10; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
