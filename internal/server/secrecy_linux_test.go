package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSwapsInClear(t *testing.T) {
	sys := t.TempDir()
	for name, id := range map[string]string{"dm-7": "CRYPT-LUKS2-0011-swap\n", "dm-8": "LVM-0022\n"} {
		dir := filepath.Join(sys, "block", name, "dm")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "uuid"), []byte(id), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	table := "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n" +
		"/dev/dm-7   partition\t8388604\t0\t-2\n/dev/dm-8   partition\t8388604\t0\t-3\n/dev/zram0  partition\t8388604\t0\t100\n/swapfile   file\t2097148\t0\t-4\n"
	if got, want := plainSwaps([]byte(table), sys), []string{"/dev/dm-8", "/swapfile"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := plainSwaps([]byte("Filename\tType\n"), sys); got != nil {
		t.Errorf("without swap: %v", got)
	}
}

// In a process of its own: it would hold for the rest of this one.
func TestNoCoreDumps(t *testing.T) {
	if os.Getenv("HOLDFAST_TEST_NO_CORE_DUMPS") != "" {
		if err := NoCoreDumps(); err != nil {
			t.Fatal(err)
		}
		var l unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil || l.Cur != 0 || l.Max != 0 {
			t.Errorf("core limit %+v, %v", l, err)
		}
		if s, err := secrecyOf(); err != nil || s.Dumps {
			t.Errorf("%+v, %v", s, err)
		}
		return
	}
	if s, err := secrecyOf(); err != nil || !s.Dumps {
		t.Fatalf("this process may not be dumped anyway: %+v, %v", s, err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestNoCoreDumps$", "-test.v")
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_NO_CORE_DUMPS=1")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}
