package outbox

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// example returns the code of a language in docs/alarms.md.
func example(t *testing.T, language string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/alarms.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "```"+language+"\n")
	code, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatalf("docs/alarms.md has no example in %s", language)
	}
	return code
}

// witnesses have others check a message, by the examples of docs/alarms.md: the npm package
// standardwebhooks, and Python's standard library.
func witnesses(t *testing.T, secret string, g received) {
	t.Helper()
	folder := os.Getenv("HOLDFAST_STANDARDWEBHOOKS")
	if folder == "" {
		t.Log("LEFT OUT: HOLDFAST_STANDARDWEBHOOKS does not name a folder with standardwebhooks (./test installs one): npm's package does not check the signature")
	} else {
		checks(t, secret, g, "node", `const { secret, headers, body } = JSON.parse(require("fs").readFileSync(0, "utf8"));`+"\n"+example(t, "js"), "NODE_PATH="+filepath.Join(folder, "node_modules"))
	}
	if _, err := exec.LookPath("python3"); err != nil {
		t.Log("LEFT OUT: there is no python3: it does not check the signature")
	} else {
		checks(t, secret, g, "python3", example(t, "python")+`
import json, sys
m = json.load(sys.stdin)
verify(m["secret"], m["headers"], m["body"].encode())
`)
	}
}

// checks runs a program that fails on what it does not take.
func checks(t *testing.T, secret string, g received, interpreter, program string, env ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(secret, body string) (string, error) {
		headers := map[string]string{}
		for name := range g.Headers {
			headers[strings.ToLower(name)] = g.Headers.Get(name)
		}
		in, err := json.Marshal(map[string]any{"secret": secret, "headers": headers, "body": body})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), interpreter, file)
		cmd.Stdin, cmd.Env = strings.NewReader(string(in)), append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := ask(secret, string(g.Body)); err != nil {
		t.Errorf("%s: %v: %s", interpreter, err, out)
	}
	if out, err := ask(secret, string(g.Body)+" "); err == nil {
		t.Errorf("%s takes a changed body: %s", interpreter, out)
	}
	if out, err := ask(shown(newSecret()), string(g.Body)); err == nil {
		t.Errorf("%s takes another's signature: %s", interpreter, out)
	}
}
