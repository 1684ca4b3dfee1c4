package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The example for ESP-IDF compiles against the declarations that it uses, and stays
// an example.
func TestESPIDFExampleCompiles(t *testing.T) {
	source := filepath.Join(top, "examples/esp-idf/main/main.c")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n >= 60 {
		t.Errorf("main.c has %d lines", n)
	}
	if !tool(t, "gcc") {
		return
	}
	compile := func(source string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "gcc", "-fsyntax-only", "-std=gnu17", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "-I", "testdata/esp", source).CombinedOutput()
		return string(out), err
	}
	if out, err := compile(source); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	wrong := filepath.Join(t.TempDir(), "main.c")
	if err := os.WriteFile(wrong, []byte(strings.Replace(string(text), ".broker.address.uri", ".uri", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := compile(wrong); err == nil {
		t.Errorf("with a field that there is not it compiles: %s", out)
	}
}
