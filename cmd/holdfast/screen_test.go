package main

import (
	"io"
	"strings"
	"testing"
)

// TestScreen: whatever a device wrote, and however it is cut into pieces, a terminal
// gets characters, line ends and tabs.
func TestScreen(t *testing.T) {
	const sent = "watch,\x1b]0;pwned\x07,21.5\n\u009b31m\tGrün \u202e日本\r\x00\xff end\n"
	const want = "watch,\ufffd]0;pwned\ufffd,21.5\n\ufffd31m\tGrün \ufffd日本\ufffd\ufffd\ufffd end\n"
	for size := 1; size <= len(sent); size++ {
		var got strings.Builder
		s := &screen{to: &got}
		for rest := sent; rest != ""; {
			n := min(size, len(rest))
			if m, err := s.Write([]byte(rest[:n])); m != n || err != nil {
				t.Fatalf("wrote %d of %d: %v", m, n, err)
			}
			rest = rest[n:]
		}
		if got.String() != want {
			t.Fatalf("in pieces of %d: %q, want %q", size, got.String(), want)
		}
	}
}

// TestParquetOnAScreen: a file of bytes is no sight for a terminal.
func TestParquetOnAScreen(t *testing.T) {
	var said strings.Builder
	a := &app{ctx: t.Context(), stdout: &screen{to: io.Discard}, stderr: &said, stdin: strings.NewReader("")}
	if code := run(a, []string{"query", "pump-1/temperature", "-o", "parquet", "--data", "none"}); code != exitUsage {
		t.Errorf("code %d, want %d", code, exitUsage)
	}
	if !strings.Contains(said.String(), "send it to a file") {
		t.Errorf("it says %q", said.String())
	}
}
