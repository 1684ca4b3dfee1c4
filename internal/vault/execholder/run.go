package execholder

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// afterKill is how long output is waited for once the program has ended or was
// killed: what it started may hold the pipes.
const afterKill = 2 * time.Second

// answerWithin is how long a program may take for one answer, whoever asks.
const answerWithin = 30 * time.Second

// environment is all that a program sees. What it needs besides stands in its
// arguments or in files.
func environment() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
}

// run runs the program once and returns its standard output, which the caller
// overwrites.
func (h *Holder) run(ctx context.Context, do string, in, key []byte) ([]byte, error) {
	ctx, stop := context.WithTimeout(ctx, answerWithin)
	defer stop()
	cmd := exec.CommandContext(ctx, h.program, h.args...)
	cmd.Env, cmd.Dir = environment(), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	killGroup := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel, cmd.WaitDelay = killGroup, afterKill
	out := &bounded{most: maxAnswer, full: stop}
	said := &bounded{most: 4 << 10}
	defer said.wipe()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), out, said
	if err := cmd.Start(); err != nil {
		return nil, h.says(holdfast.Unavailable, do, "it does not start: %v", err)
	}
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) || ctx.Err() != nil {
		killGroup() // whom it left behind
	}
	switch {
	case out.over:
		out.wipe()
		return nil, h.says(holdfast.Unavailable, do, "it answers more than %d bytes: it was killed", maxAnswer)
	case ctx.Err() != nil:
		out.wipe()
		return nil, holdfast.Errorf(holdfast.Unavailable, "program %s, asked to %s: it was killed: %w", h.program, do, context.Cause(ctx))
	case errors.Is(err, exec.ErrWaitDelay):
		out.wipe()
		return nil, h.says(holdfast.Unavailable, do, "it ended and left a process behind that holds its output: that was killed")
	case err != nil:
		if _, exited := errors.AsType[*exec.ExitError](err); !exited && errors.Is(err, syscall.EPIPE) && len(out.b) > 0 {
			return out.b, nil // it did not read all of the question, and answered
		}
		out.wipe()
		line := tidy(hideKey(said.b, key), maxAbout)
		if line != "" {
			line = ": " + line
		}
		return nil, h.says(holdfast.Unavailable, do, "it failed (%v)%s", err, line)
	}
	return out.b, nil
}

// bounded is a buffer that takes so much. It never grows: what it held can be
// overwritten.
type bounded struct {
	b    []byte
	most int
	over bool
	full func() // told when there was more; nil: the rest is dropped
}

func (w *bounded) Write(p []byte) (int, error) {
	if w.b == nil {
		w.b = make([]byte, 0, w.most)
	}
	n := min(len(p), w.most-len(w.b))
	w.b = append(w.b, p[:n]...)
	if n < len(p) {
		if w.over = true; w.full != nil {
			w.full()
		}
	}
	return len(p), nil
}

func (w *bounded) wipe() { clear(w.b[:cap(w.b)]) }

// hideKey takes the key out of what a program says about itself.
func hideKey(said, key []byte) string {
	forms := written(key)
	defer forms.wipe()
	for _, form := range forms {
		said = bytes.ReplaceAll(said, form, []byte("[key]"))
	}
	return string(said)
}

// containsKey reports whether b has the key in it.
func containsKey(b, key []byte) bool {
	forms := written(key)
	defer forms.wipe()
	return slices.ContainsFunc(forms, func(form []byte) bool { return bytes.Contains(b, form) })
}

// keyForms are the ways in which keys are written.
type keyForms [][]byte

func written(key []byte) (out keyForms) {
	if len(key) == 0 {
		return nil
	}
	low := hex.AppendEncode(nil, key)
	return keyForms{bytes.Clone(key), low, bytes.ToUpper(low), base64.StdEncoding.AppendEncode(nil, key), base64.RawURLEncoding.AppendEncode(nil, key)}
}

func (f keyForms) wipe() {
	for _, b := range f {
		clear(b)
	}
}
