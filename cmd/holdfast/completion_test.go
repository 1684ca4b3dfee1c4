package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// printed is what a command that asks no hub prints.
func printed(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(&app{ctx: t.Context(), stdout: &out, stderr: &errs}, args); code != exitDone {
		t.Fatalf("holdfast %v: %d %s", args, code, &errs)
	}
	return out.String()
}

// tool is a program that ./test installs; without it, and only if that was said to
// be right, what follows is left out, loudly.
func tool(t *testing.T, name string) bool {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return true
	}
	if os.Getenv("HOLDFAST_NO_TOOLS") == "" {
		t.Errorf("NO %s: install it, or set HOLDFAST_NO_TOOLS=1", strings.ToUpper(name))
	} else {
		t.Logf("LEFT OUT: there is no %s", name)
	}
	return false
}

// The shells themselves complete what a person types.
func TestShellsComplete(t *testing.T) {
	ask := map[string]string{
		"bash": `source FILE; t() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _holdfast; echo "${COMPREPLY[@]}"; }
t holdfast par; t holdfast party a; t holdfast party add X --kind ""; t holdfast party add X --data ""`,
		"zsh": `compdef() { :; }; compadd() { shift; for w in "$@"; do [[ $w == $words[CURRENT]* ]] && print -n "$w "; done; print; }; _files() { print; }
source FILE; t() { words=("$@"); CURRENT=$#; _holdfast; }
t holdfast par; t holdfast party a; t holdfast party add X --kind ""; t holdfast party add X --data ""`,
		"fish": `source FILE; function t; complete -C "$argv" | string replace -r '\t.*' '' | string join ' '; end
t 'holdfast par'; t 'holdfast party a'; t 'holdfast party add X --kind '; cd (mktemp -d); t 'holdfast party add X --data '; echo`,
	}
	const want = "party\nadd\nperson household organisation service\n"
	for shell, script := range ask {
		if !tool(t, shell) {
			continue
		}
		file := filepath.Join(t.TempDir(), "completion")
		if err := os.WriteFile(file, []byte(printed(t, "completion", shell)), 0o600); err != nil {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), shell, "-c", strings.ReplaceAll(script, "FILE", file))
		c.Env = append(os.Environ(), "HOME="+t.TempDir())
		out, err := c.CombinedOutput()
		got := regexp.MustCompile(` +\n`).ReplaceAllString(string(out), "\n")
		if shell == "fish" { // sorts
			got = strings.Replace(got, "household organisation person service", "person household organisation service", 1)
		}
		if err != nil || strings.TrimRight(got, "\n")+"\n" != want {
			t.Errorf("%s completes\n%s%v", shell, out, err)
		}
	}
}

// The manual has every command, and groff finds nothing to warn of.
func TestManual(t *testing.T) {
	page := printed(t, "man")
	for _, command := range []string{`holdfast party add <name>`, `holdfast serve`, `holdfast ledger witness`, `holdfast upgrade`} {
		if !strings.Contains(page, ".SS "+command) {
			t.Errorf("the manual has no %s", command)
		}
	}
	if strings.Contains(page, time.Now().Format("15:04")) {
		t.Error("the manual has the time in it")
	}
	if again := printed(t, "man"); again != page {
		t.Error("the manual is another each time")
	}
	if !tool(t, "groff") {
		return
	}
	c := exec.CommandContext(t.Context(), "groff", "-man", "-ww", "-z")
	c.Stdin = strings.NewReader(page)
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%.2000s", err, out)
	}
}
