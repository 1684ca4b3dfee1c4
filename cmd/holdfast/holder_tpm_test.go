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
	if _, err := exec.LookPath("swtpm_setup"); err != nil {
		if os.Getenv("HOLDFAST_NO_TOOLS") == "1" {
			t.Skip("SKIPPED: swtpm is not installed and HOLDFAST_NO_TOOLS=1: a TPM was not tried with a hub")
		}
		t.Fatal("swtpm is not installed (Debian: swtpm, swtpm-tools); HOLDFAST_NO_TOOLS=1 skips what needs it")
	}
	dir, err := os.MkdirTemp("", "hf-tpm-") // a socket's path has room for some 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	makers := manufacture(t, dir)
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
	data, url := p.file("data"), "tpm:unix:"+socket+"?state="+p.file("tpm.json")+"&ek-roots="+makers
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
	erase("watch", "holder file: destroyed (clear), file", "holder tpm: destroyed (purge), tpm", "TPM of tpm a TPM key signed that its counter stands at", "past what is before root key 2",
		"the TPM showed it to the hub on", "NOT PROVEN TPM of tpm whose the TPM is")
	p.verifyMaker(p.file("watch"), makers)
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

// verifyMaker checks a certificate with the roots of the TPM's maker, with those of
// another, and with none that can be read.
func (p *plant) verifyMaker(certificate, makers string) {
	p.t.Helper()
	out := strings.Join(strings.Fields(p.must("verify", certificate, "--tpm-roots", makers)), " ")
	for _, w := range []string{"the endorsement certificate with it is of CN=swtpm-localca-rootca, maker id:00001014, model swtpm", "NOT PROVEN TPM of tpm that the key which signed is in that maker's TPM"} {
		if !strings.Contains(out, w) {
			p.t.Errorf("verify does not say %q: %s", w, out)
		}
	}
	if out := p.must("verify", certificate, "--tpm-roots", makers, "-o", "json"); !strings.Contains(out, `"root": "CN=swtpm-localca-rootca`) {
		p.t.Error(out)
	}
	another := p.file("another.pem")
	if out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=another maker", "-keyout", p.file("another.key"), "-out", another).CombinedOutput(); err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	for _, roots := range []string{another, p.file("another.key"), p.file("none")} {
		if out, err := p.try("verify", certificate, "--tpm-roots", roots); err == nil {
			p.t.Errorf("with %s it verifies: %s", roots, out)
		}
	}
}

// manufacture makes the emulator's state in dir, with endorsement certificates of a
// maker of the test's own, and returns the folder with that one's.
func manufacture(t *testing.T, dir string) (makers string) {
	t.Helper()
	conf, ca := t.TempDir(), filepath.Join(dir, "ca")
	for path, text := range map[string]string{
		"localca.conf":    "statedir = CA\nsigningkey = CA/signkey.pem\nissuercert = CA/issuercert.pem\ncertserial = CA/certserial\n",
		"localca.options": "--platform-manufacturer test\n--platform-version 1\n--platform-model test\n",
		"setup.conf":      "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = CONF/localca.conf\ncreate_certs_tool_options = CONF/localca.options\n",
	} {
		if err := os.WriteFile(filepath.Join(conf, path), []byte(strings.NewReplacer("CA/", ca+"/", "CA\n", ca+"\n", "CONF", conf).Replace(text)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	makers = filepath.Join(conf, "makers")
	for _, d := range []string{ca, makers} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("swtpm_setup", "--tpm2", "--tpmstate", dir, "--config", filepath.Join(conf, "setup.conf"), "--create-ek-cert", "--overwrite", "--vmid", "test", "--pcr-banks", "sha256").CombinedOutput(); err != nil {
		t.Fatalf("swtpm_setup: %v: %s", err, out)
	}
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuercert.pem"} {
		if err := os.Rename(filepath.Join(ca, name), filepath.Join(makers, name)); err != nil {
			t.Fatal(err)
		}
	}
	return makers
}
