package outbox

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// node has the npm package standardwebhooks check a message.
func node(t *testing.T, secret string, g received) {
	t.Helper()
	folder := os.Getenv("HOLDFAST_STANDARDWEBHOOKS")
	if folder == "" {
		t.Log("LEFT OUT: HOLDFAST_STANDARDWEBHOOKS does not name a folder with standardwebhooks (./test installs one): nobody else checks the signature")
		return
	}
	ask := func(body string) (string, error) {
		headers := map[string]string{}
		for name := range g.Headers {
			headers[strings.ToLower(name)] = g.Headers.Get(name)
		}
		in, err := json.Marshal(map[string]any{"secret": secret, "headers": headers, "body": body})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "node", "testdata/verify.js", folder)
		cmd.Stdin = strings.NewReader(string(in))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := ask(string(g.Body)); err != nil || !strings.Contains(out, "taken") {
		t.Errorf("standardwebhooks of npm: %v: %s", err, out)
	}
	if out, err := ask(string(g.Body) + " "); err == nil {
		t.Errorf("standardwebhooks of npm takes a changed body: %s", out)
	}
}
