package demo

import (
	"bytes"
	"path/filepath"
	"testing"
)

// The story goes through to its end and leaves nothing behind.
func TestRun(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	var out bytes.Buffer
	if err := Run(t.Context(), RunOptions{Out: &out, Seed: 1}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if n := bytes.Count(out.Bytes(), []byte("✓")); n != 12 {
		t.Errorf("%d chapters:\n%s", n, out.String())
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
