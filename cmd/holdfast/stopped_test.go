package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
)

const (
	anyIdentity  = "AGE-SECRET-KEY-13EHU6H40CTGCY9M3RW2ZY5Z3LWTZV6Q2QYS3F7U2Y8TW0H2VH6GQMP5V7C\n"
	anyRecipient = "age1e7gudry3sfnm8chjtzqhk3k54xtdkfr4k5wxyzvavppuzymmyswq4j5msa"
)

// A command that waits for a pipe nobody writes to is ended by a signal, and says what
// is left and how to go on.
func TestASignalEndsWhoWaits(t *testing.T) {
	p := &plant{t: t, dir: t.TempDir()}
	p.must("init", p.file("data"), "--organisation", "Acme", "--host", "localhost", "--root-key", p.file("root.key"))
	p.write(p.file("id"), anyIdentity)
	shelf := p.file("shelf")
	f, err := backup.OpenFolder(shelf)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	type waits struct {
		name   string
		signal os.Signal
		args   []string // PIPE is the pipe
		says   string
	}
	for _, c := range []waits{
		{"backup", syscall.SIGTERM, []string{"backup", shelf, "--recipients-file", "PIPE", "--data", p.file("data")}, "No new backup was made"},
		{"backup list", os.Interrupt, []string{"backup", "list", shelf, "--identity", "PIPE"}, "Nothing was changed"},
		{"backup check", syscall.SIGTERM, []string{"backup", "check", shelf, "--identity", "PIPE"}, "nothing is known of the backup: run it again"},
		{"restore", os.Interrupt, []string{"restore", p.file("new"), "--from", shelf, "--identity", "PIPE", "--keyring", p.file("data/keyring"), "--root-key", p.file("root.key")}, "Nothing was made: run it again"},
		{"restore drill", syscall.SIGTERM, []string{"restore", "drill", "--from", shelf, "--identity", "PIPE", "--keyring", p.file("data/keyring"), "--root-key", p.file("root.key")}, "Run it again"},
		{"recovery check", syscall.SIGTERM, []string{"recovery", "check", p.file("id"), "--age-identity", "PIPE"}, "Nothing was changed"},
		{"recovery open", syscall.SIGTERM, []string{"recovery", "open", "--data", p.file("data"), "--share", "PIPE", "--root-key", p.file("other.key")}, "Run it again with the same arguments"},
		{"rekey", os.Interrupt, []string{"rekey", "all", "--token", "PIPE", "--hub", "https://localhost:1"}, "holdfast rekey --hub https://localhost:1 --token"},
		{"holder add", syscall.SIGTERM, []string{"holder", "add", "file:" + p.file("second.key"), "--name", "second", "--passphrase-file", "PIPE", "--data", p.file("data")}, "holdfast holder list --data"},
		{"verify", syscall.SIGTERM, []string{"verify", "PIPE"}, "run it again, it begins anew"}, // which reads without asking whether to go on
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pipe := filepath.Join(t.TempDir(), "pipe")
			if err := syscall.Mkfifo(pipe, 0o600); err != nil {
				t.Fatal(err)
			}
			for i, arg := range c.args {
				if arg == "PIPE" {
					c.args[i] = pipe
				}
			}
			var said bytes.Buffer
			cmd := p.holdfast(c.args...)
			cmd.Stderr = &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer opened(t, pipe).Close()
			cmd.Process.Signal(c.signal)
			late := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
			defer late.Stop()
			err := cmd.Wait()
			if left, ok := errors.AsType[*exec.ExitError](err); !ok || left.ExitCode() != exitFailed {
				t.Errorf("it ended with %v", err)
			}
			if !strings.Contains(said.String(), "stopped by a signal") || !strings.Contains(said.String(), c.says) {
				t.Errorf("it says %s, not %q", said.String(), c.says)
			}
		})
	}
}

// opened opens a pipe for writing once somebody waits to read it.
func opened(t *testing.T, pipe string) *os.File {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		w, err := os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			return w
		}
		if !errors.Is(err, syscall.ENXIO) || time.Now().After(end) {
			t.Fatalf("nobody reads the pipe: %v", err)
		}
	}
}

// Who waits for a pipe that nobody has opened is let go, too.
func TestAPipeThatNobodyOpens(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := readIdentities(ctx, []string{pipe})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), pipe) {
		t.Errorf("it ends with %v", err)
	}
	opened(t, pipe).Close() // so that nobody stays behind
}

// What is no file of identities is not read to its end, and says what it is.
func TestIdentitiesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		path, says string
		kind       holdfast.Kind
	}{
		{"/dev/zero", "more than 1024 KiB", holdfast.TooLarge},
		{file("large", strings.Repeat(anyIdentity, 1<<14)), "more than 1024 KiB", holdfast.TooLarge},
		{file("binary", "\x00\xff\x7fELF\x80"), "is not a file of age identities", holdfast.Invalid},
		{file("sealed", "age-encryption.org/v1\n-> scrypt"), "<(age -d FILE)", holdfast.Invalid},
		{file("empty", "\n"), "is empty", holdfast.Invalid},
		{dir, "is a folder", holdfast.Invalid},
		{filepath.Join(dir, "none"), "no such file", holdfast.NotFound},
	} {
		_, err := readIdentities(t.Context(), []string{c.path})
		if holdfast.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.path, err)
		}
	}
}

// A shell's <(...) is read once, whatever comes out of it is used.
func TestAnIdentityOutOfAPipe(t *testing.T) {
	p := &plant{t: t, dir: t.TempDir()}
	p.must("init", p.file("data"), "--organisation", "Acme", "--host", "localhost", "--root-key", p.file("root.key"))
	for range 2 {
		p.must("backup", p.file("shelf"), "--recipient", anyRecipient, "--data", p.file("data"))
	}
	for _, args := range [][]string{
		{"backup", "list", p.file("shelf")},
		{"backup", "check", p.file("shelf")},
		{"restore", "drill", "--from", p.file("shelf"), "--keyring", p.file("data/keyring"), "--root-key", p.file("root.key")},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := p.holdfast(append(args, "--identity", "/dev/fd/3")...)
		cmd.ExtraFiles = []*os.File{r}
		if _, err := w.WriteString(anyIdentity); err != nil {
			t.Fatal(err)
		}
		w.Close()
		out, err := cmd.CombinedOutput()
		r.Close()
		if err != nil || args[1] == "list" && strings.Count(string(out), "whole") != 2 {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
}
