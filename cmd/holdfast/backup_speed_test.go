package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/backup"
)

// What backups cost, over HTTPS from a hub that serves: a first run, one with nothing
// new, one with a little, a check and a pruning. Figures are logged.
func TestBackupSpeed(t *testing.T) {
	if os.Getenv("HOLDFAST_LONG") == "" {
		t.Skip("half a gigabyte is backed up only with HOLDFAST_LONG=1")
	}
	p := &plant{t: t, dir: t.TempDir()}
	p.must("init", p.file("data"), "--organisation", "Acme", "--host", "localhost", "--root-key", p.file("root.key"))
	p.hubArgs = []string{"serve", "--data", p.file("data"), "--listen-api", "127.0.0.1:0", "--listen-device", "127.0.0.1:0", "--listen-mqtt", "127.0.0.1:0", "--bytes-per-device=-1"}
	p.startHub()
	t.Cleanup(func() {
		p.hub.Process.Kill()
		p.hub.Wait()
	})
	p.must("enrol", wordOf(t, p.must("device", "add", "house", "--data", p.file("data")), "hf1:"), "--out", p.file("house"))
	p.write(p.file("backup.key"), "AGE-SECRET-KEY-13EHU6H40CTGCY9M3RW2ZY5Z3LWTZV6Q2QYS3F7U2Y8TW0H2VH6GQMP5V7C\n")
	fill := p.filler()
	for range 512 {
		fill()
	}
	dir := p.file("shelf")
	take := func(what string) backup.Report {
		t.Helper()
		cmd := p.holdfast("backup", "take", dir, "--recipient", "age1e7gudry3sfnm8chjtzqhk3k54xtdkfr4k5wxyzvavppuzymmyswq4j5msa", "--data", p.file("data"), "-o", "json")
		out := p.timed(what, cmd)
		var r backup.Report
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatal(err)
		}
		t.Logf("  %d pieces, %d MiB; new: %d pieces, %d KiB; %d MB/s", r.Pieces, r.Bytes>>20, r.New, r.Written>>10, int(float64(r.Written)/1e6/r.Took.Seconds()))
		return r
	}
	first := take("first run")
	if first.Bytes < 450<<20 || first.Statement.Readings == 0 {
		t.Fatalf("there are only %d MiB", first.Bytes>>20)
	}
	again := take("nothing new")
	if again.Written > 16<<20 {
		t.Errorf("nothing is new, and %d bytes were written", again.Written)
	}
	for range 5 {
		fill()
	}
	take("one in a hundred is new")
	p.timed("check", p.holdfast("backup", "check", dir, "--identity", p.file("backup.key")))
	p.timed("prune", p.holdfast("backup", "prune", dir, "--keep", "35d"))
}

// filler returns what sends a megabyte that does not compress.
func (p *plant) filler() (send func()) {
	p.t.Helper()
	i, err := client.LoadIdentity(p.file("house"))
	if err != nil {
		p.t.Fatal(err)
	}
	hc, err := client.New(client.Options{Hub: i.Hub.Device, Identity: p.file("house")})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(hc.Close)
	draw, n := rand.NewChaCha8([32]byte{1}), 0
	return func() {
		p.t.Helper()
		samples := make([]holdfast.Sample, 22)
		for i := range samples {
			raw := make([]byte, 48<<10)
			draw.Read(raw)
			samples[i] = holdfast.Sample{Stream: fmt.Sprintf("log%d", i), Time: time.Date(2026, 1, 1, 0, 0, n, 0, time.UTC).UnixNano(), Timed: true, Value: holdfast.TextValue(base64.StdEncoding.EncodeToString(raw)), Literal: true}
			n++
		}
		if _, err := hc.Send(p.t.Context(), samples...); err != nil {
			p.t.Fatal(err)
		}
	}
}

// timed runs a program and logs its time and the time of its processor.
func (p *plant) timed(what string, cmd *exec.Cmd) []byte {
	p.t.Helper()
	began := time.Now()
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
	p.t.Logf("%s: %v, of the program's processor %v", what, time.Since(began).Round(time.Millisecond), (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Round(time.Millisecond))
	return out
}
