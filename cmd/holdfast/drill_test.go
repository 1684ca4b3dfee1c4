package main

import (
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/drill"
)

func drilled(t *testing.T, o drill.Options) map[string]drill.Step {
	t.Helper()
	o.Program, o.Version, o.Readings, o.Image, o.Dir = os.Args[0], "test", 200, drill.ImageNever, filepath.Join(t.TempDir(), "drill")
	r, err := drill.Run(t.Context(), o)
	if err != nil {
		t.Fatalf("%v\n%+v", err, r.Steps)
	}
	steps := map[string]drill.Step{}
	failed := false
	for _, s := range r.Steps {
		steps[s.ID] = s
		failed = failed || s.Result == drill.Fail
	}
	if failed == r.Passed {
		t.Errorf("passed is %v", r.Passed)
	}
	if left, _ := os.ReadDir(o.Dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return steps
}

// The drill, without a disk of its own.
func TestDrill(t *testing.T) {
	steps := drilled(t, drill.Options{})
	for id, s := range steps {
		if s.Result == drill.Fail {
			t.Errorf("%s: %s", id, s.Line())
		}
	}
	for _, id := range []string{"filled", "planted", "remembered", "export", "backup", "certificate", "asked", "retracted", "files-running", "keyring", "copies", "rows", "files", "files-keys", "backups", "restored", "restored-files", "restored-second",
		"restored-files-second", "old-keyring", "held"} {
		if steps[id].Result != drill.Pass {
			t.Errorf("%s: %s", id, steps[id].Line())
		}
	}
	if s := steps["thief"]; s.Result != drill.Limit {
		t.Errorf("what erasing does not reach is not shown: %s", s.Line())
	}
}

// deadPages puts what the erasure took out of the keyring into its copy again.
func deadPages(data string) error {
	aside, hub := filepath.Join(data, "..", "..", "aside", "keyring"), filepath.Dir(data)
	pages, err := filepath.Glob(filepath.Join(aside, "page-*"))
	for _, page := range pages {
		b, e := os.ReadFile(page)
		err = errors.Join(err, e, os.WriteFile(filepath.Join(hub, "copy", filepath.Base(page)), b, 0o600))
	}
	return err
}

// A drill fails where a file or the memory of the hub keeps what was erased, and where
// something could not be planted.
func TestDrillFindsWhatIsForgotten(t *testing.T) {
	steps := drilled(t, drill.Options{Omit: func(_, path string) bool {
		return path == "/v1/members" || path == "/v1/groups"
	}, Sabotage: func(folder, pattern string, key []byte) (int, error) {
		if err := os.WriteFile(filepath.Join(folder, "segments", "forgotten"), []byte("x"+pattern), 0o600); err != nil {
			return 0, err
		}
		if err := deadPages(folder); err != nil {
			return 0, err
		}
		keeps := exec.Command("sleep", "300")
		keeps.Env = []string{"KEY=" + base64.StdEncoding.EncodeToString(key)}
		if err := keeps.Start(); err != nil {
			return 0, err
		}
		t.Cleanup(func() { keeps.Process.Kill(); keeps.Wait() })
		return keeps.Process.Pid, nil
	}})
	for _, id := range []string{"files-running", "files", "memory", "copies"} {
		if s := steps[id]; s.Result != drill.Fail && (id != "memory" || s.Result != drill.NotTried) {
			t.Errorf("%s: %s", id, s.Line())
		}
	}
	if s := steps["planted"]; s.Result != drill.Fail || !strings.Contains(s.Detail, "device_group, membership:") {
		t.Errorf("what was not planted: %s", s.Line())
	}
	if s := steps["filled"]; s.Result != drill.Fail || !strings.Contains(s.Detail, "not filled for the canary: group") {
		t.Errorf("what was not filled: %s", s.Line())
	}
	for _, id := range []string{"asked", "files-keys", "backups"} {
		if s := steps[id]; s.Result != drill.Pass {
			t.Errorf("%s: %s", id, s.Line())
		}
	}
}
