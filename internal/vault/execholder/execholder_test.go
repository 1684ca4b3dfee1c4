package execholder_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/conform"
	"github.com/holdfast-iot/holdfast/internal/vault/execholder"
	"github.com/holdfast-iot/holdfast/internal/vault/vaulttest"
)

// self is this test as a program that nobody else may replace.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "holder")
	if err := errors.Join(os.Chmod(filepath.Dir(copied), 0o700), os.WriteFile(copied, b, 0o700)); err != nil {
		t.Fatal(err)
	}
	return copied
}

func subject(program, lie, dir string) conform.Subject {
	open := func(keyring string) func(context.Context) (vault.Holder, error) {
		return func(ctx context.Context) (vault.Holder, error) {
			return execholder.Open(ctx, program, []string{"holder", lie, dir}, keyring)
		}
	}
	return conform.Subject{Open: open("one"), Other: open("two")}
}

func TestProgramConforms(t *testing.T) {
	program := self(t)
	vaulttest.Holders(t, func(t *testing.T) conform.Subject { return subject(program, "honest", t.TempDir()) })
}

// Whoever breaks his word is found, in the step that is about it, and told what.
func TestProgramsThatLieAreFound(t *testing.T) {
	program := self(t)
	for lie, want := range map[string]struct{ step, says string }{
		"no list":           {"empty", "there are no generations"},
		"forgets":           {"prepare", "it lies: generation 1"},
		"in clear":          {"wrap and unwrap", "it lies: its box has the root key in clear"},
		"in base64":         {"wrap and unwrap", "it lies: its box has the root key in clear"},
		"another key":       {"wrap and unwrap", "another key came back"},
		"garbage":           {"wrap and unwrap", "not one whole JSON object"},
		"partial":           {"wrap and unwrap", "not one whole JSON object"},
		"two objects":       {"wrap and unwrap", "not one whole JSON object"},
		"huge":              {"wrap and unwrap", "more than 262144 bytes"},
		"silent":            {"wrap and unwrap", "answers nothing"},
		"short key":         {"wrap and unwrap", "no box"},
		"exit":              {"wrap and unwrap", "it failed (exit status 3): the token [key]"},
		"another protocol":  {"wrap and unwrap", `of protocol "2"`},
		"odd error":         {"wrap and unwrap", `an error "oops"`},
		"draws again":       {"prepare again", "denied"},
		"no authentication": {"altered box", "it still opens a box with byte 0 altered"},
		"descending":        {"another generation", "not ascending"},
		"any generation":    {"another generation", "it still opens the box of generation 1 as one of 2"},
		"fails for gone":    {"another generation", "which proves nothing"},
		"keeps all":         {"destroy", "it lies: it says that what is before 2 is destroyed"},
		"keeps a copy":      {"destroy", "it still opens a copy of the box of generation 1"},
		"destroys all":      {"destroy", "does not hold that generation"},
		"any keyring":       {"another generation", "it still opens"},
		"one keyring":       {"two keyrings", "in another keyring: it says that it holds generations [7]"},
	} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			var last conform.Result
			if conform.Run(t.Context(), subject(program, lie, t.TempDir()), func(r conform.Result) { last = r }) {
				t.Fatal("was not found")
			}
			says := last.Error
			if lie == "draws again" {
				says = strings.ReplaceAll(says, "the box is not its own", "denied")
			}
			if last.Step != want.step || !strings.Contains(says, want.says) || last.Mend == "" {
				t.Errorf("found in step %q: %s", last.Step, last.Error)
			}
			if strings.ContainsAny(last.Error, "\x1b\n") {
				t.Errorf("the error steers a terminal: %q", last.Error)
			}
		})
	}
}

// A program that hangs is killed with what it started; one that ends and leaves a
// process behind is not waited for, and that one is killed.
func TestProgramThatHangsIsKilledWithItsChildren(t *testing.T) {
	program := self(t)
	for lie, want := range map[string]string{"hang": "it was killed", "child": "left a process behind"} {
		t.Run(lie, func(t *testing.T) {
			dir := t.TempDir()
			h, err := execholder.Open(t.Context(), program, []string{"holder", lie, dir}, "ring")
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Prepare(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			failed := make(chan error)
			go func() { _, err := h.Seal(ctx, 1, seal.NewKey()); failed <- err }()
			child := 0
			wait(t, "its child starts", func() bool {
				b, _ := os.ReadFile(filepath.Join(dir, "child"))
				child, _ = strconv.Atoi(string(b))
				return child > 0
			})
			if lie == "hang" { // until somebody has had enough
				cancel()
			}
			if err := <-failed; holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), want) {
				t.Errorf("%v", err)
			}
			wait(t, "its child is dead", func() bool { return !alive(child) })
		})
	}
}

func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// alive reports whether a process runs: one that nobody has waited for is dead.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// What a program sees: the key in its input alone, two variables, no file
// descriptor of the hub.
func TestProgramSeesNoMoreThanItMust(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOLDFAST_SECRET", "of the hub")
	program := filepath.Join(dir, "program")
	script := `#!/bin/sh
{ env | sort; echo "$@"; pwd; ls /proc/self/fd 2>/dev/null | wc -l; } >>` + dir + `/seen
cat >` + dir + `/input
case $(cat ` + dir + `/input) in
*describe*) echo '{"holdfast-holder":"1","protocols":["1"],"about":"a script"}' ;;
*) echo '{"holdfast-holder":"1","box":"Ym94"}' ;;
esac
`
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	h, err := execholder.Open(t.Context(), program, []string{"an argument"}, "ring")
	if err != nil {
		t.Fatal(err)
	}
	root := seal.NewKey()
	if _, err := h.Seal(t.Context(), 3, root); err != nil {
		t.Fatal(err)
	}
	seen, err := os.ReadFile(filepath.Join(dir, "seen"))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"HOLDFAST", base64.StdEncoding.EncodeToString(root[:]), hex.EncodeToString(root[:]), string(root[:])} {
		if strings.Contains(string(seen), bad) {
			t.Errorf("arguments or environment have %q:\n%s", bad, seen)
		}
	}
	if !strings.Contains(string(seen), "an argument\n/\n") {
		t.Errorf("arguments and folder:\n%s", seen)
	}
	input, err := os.ReadFile(filepath.Join(dir, "input"))
	if want := `{"holdfast-holder":"1","do":"wrap","keyring":"ring","generation":3,"key":"` + base64.StdEncoding.EncodeToString(root[:]) + "\"}\n"; err != nil || string(input) != want {
		t.Errorf("input %q, %v", input, err)
	}
}

// A program that others may replace is not given the key.
func TestProgramThatOthersMayReplaceIsRefused(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		program       string
		mode, dirMode os.FileMode
		kind          holdfast.Kind
	}{
		{program, 0o722, 0o700, holdfast.Denied},
		{program, 0o700, 0o777, holdfast.Denied},
		{program, 0o600, 0o700, holdfast.Invalid},
		{dir, 0o700, 0o700, holdfast.Invalid},
		{program + "2", 0o700, 0o700, holdfast.Unavailable},
		{"program", 0o700, 0o700, holdfast.Invalid},
		{program, 0o700, 0o700, holdfast.Unavailable}, // it says nothing
	} {
		if err := errors.Join(os.Chmod(program, c.mode), os.Chmod(dir, c.dirMode)); err != nil {
			t.Fatal(err)
		}
		if _, err := execholder.Open(t.Context(), c.program, nil, "ring"); holdfast.KindOf(err) != c.kind {
			t.Errorf("%s, %04o in %04o: %v", c.program, c.mode, c.dirMode, err)
		}
	}
}

// A program may say more than a pipe holds before it reads its question, and many may
// be asked at once: each gets the end of its input, and is heard to its end.
func TestProgramThatTalksBeforeItReads(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	script := `#!/bin/sh
head -c 300000 /dev/zero | tr '\0' x >&2
printf '{"holdfast-holder":"1","protocols":["1"],"about":"'
head -c 150000 /dev/zero | tr '\0' x
cat >/dev/null
echo '"}'
`
	if err := errors.Join(os.Chmod(dir, 0o700), os.WriteFile(program, []byte(script), 0o700)); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	const n = 6
	for range n {
		go func() { _, err := execholder.Open(t.Context(), program, nil, "ring"); failed <- err }()
	}
	for range n {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}
