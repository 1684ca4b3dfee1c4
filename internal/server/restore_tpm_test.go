package server

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// emulatedTPM is a TPM of the test's own, by its address in a holder's URL.
func emulatedTPM(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		if os.Getenv("HOLDFAST_NO_TOOLS") == "1" {
			t.Skip("SKIPPED: swtpm is not installed and HOLDFAST_NO_TOOLS=1: a restore by a TPM was not tried")
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
	t.Cleanup(func() {
		tpm.Process.Kill()
		tpm.Wait()
		os.RemoveAll(dir)
	})
	for until := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if conn, err := net.DialTimeout("unix", socket, time.Second); err == nil {
			conn.Close()
			return "tpm:unix:" + socket
		}
		if time.Now().After(until) {
			t.Fatal("swtpm does not answer")
		}
	}
}

// A TPM opens the keyring where it is; of the lost machine's there is a copy of its
// state file at most, and the error says which ways are left.
func TestARestoreByATPM(t *testing.T) {
	here, other := emulatedTPM(t), emulatedTPM(t)
	h, b := newHouse(t), newShelf(t)
	h.halt()
	state := filepath.Join(t.TempDir(), "tpm.json")
	if _, err := AddHolder(t.Context(), Config{Data: h.dir}, HolderSpec{Name: "board", URL: here + "?state=" + state}); err != nil {
		t.Fatal(err)
	}
	h.start()
	ada := h.owner("ada")
	h.mustSend(ada.device, number("lux", time.Now().Add(-time.Hour), 5))
	b.take(h)
	h.halt()
	o := b.options(filepath.Join(h.dir, keyringDir))
	dir := filepath.Join(t.TempDir(), "new")
	copied := filepath.Join(t.TempDir(), "tpm.json")
	if text, err := os.ReadFile(state); err != nil || os.WriteFile(copied, text, 0o600) != nil {
		t.Fatal(err)
	}
	o.Holder = other + "?state=" + copied
	if _, err := Restore(t.Context(), Config{Data: dir}, o); err == nil || !gone(dir) || !strings.Contains(err.Error(), "held by board, file") || !strings.Contains(err.Error(), "recovery shares") {
		t.Errorf("by another machine's TPM: %v", err)
	} else {
		t.Log(holdfast.KindOf(err), err)
	}
	o.Holder = here + "?state=" + state
	if d, err := Drill(t.Context(), Config{Data: t.TempDir()}, o); err != nil || d.Readings != 1 || d.Holder != "board" {
		t.Errorf("the drill: %+v, %v", d, err)
	}
	if r, err := Restore(t.Context(), Config{Data: dir}, o); err != nil || r.Holder != "board" {
		t.Fatalf("restored: %+v, %v", r, err)
	}
	restored := &house{t: t, dir: dir}
	restored.start()
	t.Cleanup(restored.halt)
	if have, err := restored.read(ada.Principal, ada.device, "lux"); err != nil || len(have) != 1 {
		t.Errorf("%d readings (%v)", len(have), err)
	}
}
