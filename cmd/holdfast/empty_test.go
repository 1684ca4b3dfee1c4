package main

import (
	"io"
	"strings"
	"testing"
)

// TestEmptyIsNotLeftOut: what a variable that is not set leaves of a command line is
// refused before the hub is asked.
func TestEmptyIsNotLeftOut(t *testing.T) {
	for said, args := range map[string][]string{
		"--category is empty": {"erase", "cam", "--category", "", "--yes"},
		"--from is empty":     {"erase", "cam", "--from=", "--yes"},
		"--whose is empty":    {"erase", "cam", "--whose", "", "--yes"},
		"<what> is empty":     {"erase", "", "--yes"},
		"behind the /":        {"erase", "cam/", "--yes"},
		"--stream is empty":   {"grant", "add", "--to", "Lab", "--purpose", "care", "--stream", "", "--until", "+1d"},
	} {
		var out strings.Builder
		a := &app{ctx: t.Context(), stdout: io.Discard, stderr: &out, stdin: strings.NewReader("")}
		if code := run(a, append(args, "--data", t.TempDir())); code != exitUsage || !strings.Contains(out.String(), said) {
			t.Errorf("%q: code %d, %s", args, code, out.String())
		}
	}
}
