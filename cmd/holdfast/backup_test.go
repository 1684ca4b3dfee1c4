package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast/internal/backup"
)

// A backup that is killed in the middle: the next one finds what was stored, fetches
// the rest, and is whole.
func TestBackupIsKilled(t *testing.T) {
	p := &plant{t: t, dir: t.TempDir()}
	p.must("init", p.file("data"), "--organisation", "Acme", "--host", "localhost", "--root-key", p.file("root.key"))
	p.hubArgs = []string{"serve", "--data", p.file("data"), "--listen-api", "127.0.0.1:0", "--listen-device", "127.0.0.1:0", "--listen-mqtt", "127.0.0.1:0"}
	p.startHub()
	t.Cleanup(func() {
		p.hub.Process.Kill()
		p.hub.Wait()
	})
	p.must("enrol", wordOf(t, p.must("device", "add", "house", "--data", p.file("data")), "hf1:"), "--out", p.file("house"))
	identity := p.file("backup.key")
	p.write(identity, "AGE-SECRET-KEY-13EHU6H40CTGCY9M3RW2ZY5Z3LWTZV6Q2QYS3F7U2Y8TW0H2VH6GQMP5V7C\n")
	take := func(dir string, args ...string) *exec.Cmd {
		return p.holdfast(append([]string{"backup", "take", dir, "--recipient", "age1e7gudry3sfnm8chjtzqhk3k54xtdkfr4k5wxyzvavppuzymmyswq4j5msa", "--data", p.file("data"), "-o", "json"}, args...)...)
	}
	taken := func(cmd *exec.Cmd) (r backup.Report) {
		t.Helper()
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	// Each backup begins with a roll, and that makes a segment.
	var whole backup.Report
	for range 3 {
		args := []string{"send", "--identity", p.file("house")}
		for i := range 8 {
			raw := make([]byte, 32<<10)
			rand.Read(raw)
			args = append(args, fmt.Sprintf("log%d=%s", i, hex.EncodeToString(raw)))
		}
		p.must(args...)
		whole = taken(take(p.file("elsewhere")))
	}

	dir, killed := "", false
	for attempt := 0; !killed; attempt++ {
		if attempt == 5 {
			t.Fatal("each time it had ended before it was killed")
		}
		dir = p.file(fmt.Sprint("shelf", attempt))
		slow := take(dir, "--rate", "200k")
		if err := slow.Start(); err != nil {
			t.Fatal(err)
		}
		p.await("some pieces", func() bool { return len(stored(t, dir)) > whole.Pieces-whole.Statement.Segments })
		slow.Process.Kill()
		killed = slow.Wait() != nil
	}
	had := stored(t, dir)
	if out := p.must("backup", "list", dir, "-o", "json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("what was killed is a backup: %s", out)
	}

	r := taken(take(dir))
	list, err := os.ReadFile(filepath.Join(dir, "snapshots", r.Snapshot+".list"))
	if err != nil {
		t.Fatal(err)
	}
	used := 0
	for path, was := range had {
		if !strings.Contains(string(list), strings.TrimSuffix(filepath.Base(path), ".age")) {
			continue // a page of the catalog that has changed since
		}
		used++
		if now := stored(t, dir)[path]; !now.Equal(was) {
			t.Errorf("%s was written again", filepath.Base(path))
		}
	}
	if used == 0 || r.New != r.Pieces-used || r.New == 0 {
		t.Errorf("%d pieces were there, the backup uses %d of them; of its %d pieces %d were written", len(had), used, r.Pieces, r.New)
	}
	p.must("backup", "check", dir, "--identity", identity)
	if left, _ := filepath.Glob(filepath.Join(dir, "pieces", "*", "*.tmp")); len(left) > 0 {
		t.Errorf("half written: %v", left)
	}
}

// stored is when the pieces in a folder of backups were written.
func stored(t *testing.T, dir string) map[string]time.Time {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "pieces", "*", "*.age"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]time.Time{}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = info.ModTime()
	}
	return all
}

func TestMeter(t *testing.T) {
	var got []string
	for _, p := range []backup.Progress{
		{Pieces: 3, Bytes: 5 << 20},
		{Pieces: 1, Of: 9, Bytes: 256 << 10, Total: 1 << 30},
		{Pieces: 4, Of: 9, Bytes: 256 << 20, Total: 1 << 30, Written: 64 << 20},
		{Pieces: 9, Of: 9, Bytes: 1 << 30, Total: 1 << 30},
	} {
		got = append(got, meterText(p, 10*time.Second))
	}
	want := []string{"5120 KiB, 3 pieces", "256 KiB of 1024 MiB, piece 1 of 9, 11h22m30s left", "256 MiB of 1024 MiB, piece 4 of 9, new: 64 MiB, 30s left", "1024 MiB of 1024 MiB, piece 9 of 9"}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}
