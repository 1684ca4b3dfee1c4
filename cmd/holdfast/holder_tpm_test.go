package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A TPM beside the file holds the root key: both destroy, the certificate has what the
// TPM signed, and the hub starts again, without the file as well.
func TestTPMHoldsTheRootKey(t *testing.T) {
	if _, err := exec.LookPath("swtpm"); err != nil {
		if os.Getenv("HOLDFAST_NO_TOOLS") == "1" {
			t.Skip("SKIPPED: swtpm is not installed and HOLDFAST_NO_TOOLS=1: a TPM was not tried with a hub")
		}
		t.Fatal("swtpm is not installed (Debian: swtpm); HOLDFAST_NO_TOOLS=1 skips what needs it")
	}
	dir, err := os.MkdirTemp("", "hf-tpm-") // a socket's path has room for some 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	tpm := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	if err := tpm.Start(); err != nil {
		t.Fatal(err)
	}
	p := &plant{t: t, dir: t.TempDir()}
	t.Cleanup(func() {
		tpm.Process.Kill()
		tpm.Wait()
		if p.hub != nil {
			p.hub.Process.Kill()
			p.hub.Wait()
		}
		os.RemoveAll(dir)
	})
	p.await("swtpm", func() bool {
		conn, err := net.DialTimeout("unix", socket, time.Second)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	data, url := p.file("data"), "tpm:unix:"+socket+"?state="+p.file("tpm.json")
	p.must("init", data, "--organisation", "Acme", "--host", "localhost", "--root-key", p.file("root.key"))
	out := p.must("holder", "add", url, "--name", "tpm", "--data", data)
	if !strings.Contains(out, "Holder tpm has the root key") {
		t.Error(out)
	}
	p.hubArgs = []string{"serve", "--data", data, "--listen-api", "127.0.0.1:0", "--listen-device", "127.0.0.1:0", "--listen-mqtt", "127.0.0.1:0"}
	stop := func() {
		t.Helper()
		p.hub.Process.Signal(os.Interrupt)
		if err := p.hub.Wait(); err != nil {
			t.Fatalf("the hub ends with %v", err)
		}
	}
	erase := func(device string, want ...string) {
		t.Helper()
		p.startHub()
		p.must("device", "add", device, "--data", data)
		p.must("erase", device, "--yes", "--certificate", p.file(device), "--data", data)
		stop()
		out := strings.Join(strings.Fields(p.must("verify", p.file(device))), " ")
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("verify does not say %q: %s", w, out)
			}
		}
	}
	erase("watch", "holder file: destroyed (clear), file", "holder tpm: destroyed (clear), tpm, a TPM key signed that its counter stands at", "past what is before root key 2")
	p.must("holder", "fence", "file", "--data", data)
	erase("ring", "holder file: pending", "past what is before root key 3")
	p.must("holder", "return", "file", "--data", data)
	if out := p.must("holder", "list", "--data", data); strings.Count(out, "holds 3 ") != 2 {
		t.Error(out)
	}
	p.must("holder", "remove", "tpm", "--data", data)
	if _, err := os.Stat(p.file("tpm.json")); err == nil {
		t.Error("the state file of the removed holder is there")
	}
	p.startHub()
	p.must("device", "list", "--data", data)
	stop()
	p.hub = nil
	if os.Getenv("HOLDFAST_LONG") != "" {
		p.must("holder", "test", url)
	}
}
