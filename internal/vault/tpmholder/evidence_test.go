package tpmholder

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Evidence of which anything is altered is refused; what it leaves out too.
func TestEvidenceAltered(t *testing.T) {
	said, err := os.ReadFile("testdata/evidence.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(said); err != nil {
		t.Fatal(err)
	}
	var good evidence
	if err := json.Unmarshal(said, &good); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, e evidence) {
		t.Helper()
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(b); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	for name, part := range map[string]func(*evidence) *[]byte{
		"ring":      func(e *evidence) *[]byte { return &e.Ring },
		"counter":   func(e *evidence) *[]byte { return &e.Counter },
		"attest":    func(e *evidence) *[]byte { return &e.Attest },
		"signature": func(e *evidence) *[]byte { return &e.Signature },
		"key":       func(e *evidence) *[]byte { return &e.Key },
	} {
		for i := range *part(&good) {
			e := good
			*part(&e) = bytes.Clone(*part(&good))
			(*part(&e))[i] ^= 1 << (i % 8)
			refused(fmt.Sprintf("%s, byte %d", name, i), e)
		}
		e := good
		*part(&e) = append(bytes.Clone(*part(&good)), 0)
		refused(name+", one more byte", e)
		*part(&e) = nil
		refused(name+", nothing", e)
	}
	for name, change := range map[string]func(*evidence){
		"a later generation":   func(e *evidence) { e.Below++ },
		"an earlier one":       func(e *evidence) { e.Below-- },
		"another start":        func(e *evidence) { e.Start.Counter-- },
		"a later start":        func(e *evidence) { e.Start.Generation++ },
		"no start":             func(e *evidence) { e.Start = start{} },
		"numbers without end":  func(e *evidence) { e.Below = 1<<64 - 1 },
		"another format":       func(e *evidence) { e.Format = "2" },
		"a start without end":  func(e *evidence) { e.Start.Counter = 1<<64 - 1 },
		"an end before begins": func(e *evidence) { e.Below = 0 },
	} {
		e := good
		change(&e)
		refused(name, e)
	}
	for _, text := range []string{"", "{}", "null", "[]", string(said) + "{}", strings.Replace(string(said), "{", `{"more":1,`, 1), strings.Repeat(" ", maxEvidence+1)} {
		if _, err := Verify([]byte(text)); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

// What other programs make of evidence: openssl of the signature, tpm2-tools of
// what was signed, and of the counter as the TPM itself has it.
func TestEvidenceForeign(t *testing.T) {
	need(t, "openssl", "tpm2_print")
	e := newEmulator(t)
	h := create(t, e.options())
	_, box := sealed(t, h, 1)
	sealed(t, h, 2)
	said := destroy(t, h, 2)
	report, err := Verify(said)
	if err != nil {
		t.Fatal(err)
	}
	var ev evidence
	if err := json.Unmarshal(said, &ev); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	attest, signature, key := write("attest", ev.Attest), ev.Signature, ev.Key
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](key)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := tpm2.Pub(*public)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	pemFile := write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	// TPMT_SIGNATURE: algorithm 2, hash 2, r and s each with 2 bytes of length.
	r, rest := cut(signature[4:])
	s, _ := cut(rest)
	sig, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)})
	if err != nil {
		t.Fatal(err)
	}
	if out := run("openssl", "dgst", "-sha256", "-verify", pemFile, "-signature", write("sig", sig), attest); !strings.Contains(out, "Verified OK") {
		t.Errorf("openssl: %s", out)
	}
	// It prints the header, and ends with an error since it knows no attestation of NV.
	printed, _ := exec.CommandContext(t.Context(), "tpm2_print", "-t", "TPMS_ATTEST", attest).CombinedOutput()
	out := string(printed)
	for _, want := range []string{"magic: ff544347", "type: 8014", fmt.Sprintf("extraData: %x", ev.nonce())} {
		if !strings.Contains(out, want) {
			t.Errorf("tpm2_print lacks %q:\n%s", want, out)
		}
	}
	if !bytes.Contains(ev.Attest, fmt.Appendf(nil, "%s", string([]byte{0, 0, 0, 0, 0, 0, 0, byte(report.Counter)}))) {
		t.Errorf("the counter %d is not at the end of what was signed", report.Counter)
	}
	// A box has the policy that the report says, so that its holder knows it is dead.
	b, err := parseBox(box)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := report.Policy(1)
	if err != nil || !bytes.Contains(b.public, policy) {
		t.Errorf("the box has another policy than %x, %v", policy, err)
	}
	if out := run("tpm2_print", "-t", "TPM2B_PUBLIC", write("box.pub", append([]byte{0, byte(len(b.public))}, b.public...))); !strings.Contains(out, fmt.Sprintf("authorization policy: %x", policy)) || !strings.Contains(out, "value: fixedtpm|fixedparent|adminwithpolicy|noda") {
		t.Errorf("tpm2_print of the box:\n%s", out)
	}
}

func cut(b []byte) (first, rest []byte) {
	n := int(b[0])<<8 | int(b[1])
	return b[2 : 2+n], b[2+n:]
}

// The grade is Purge only for a TPM whose endorsement key a listed maker certifies,
// and whose key that signs evidence was shown to be of the same TPM.
func TestMaker(t *testing.T) {
	need(t, "swtpm", "swtpm_setup", "openssl")
	e := newEmulator(t)
	e.kill()
	makers := e.manufacture()
	e.start()
	o := e.options()
	h := create(t, o)
	if h.Grade() != vault.Clear || !strings.Contains(h.Why(), "ek-roots") {
		t.Errorf("no makers are listed: %s, %s", h.Grade(), h.Why())
	}
	if h.state.Activated.IsZero() {
		t.Fatalf("the TPM did not show its endorsement key: %s", h.state.Unshown)
	}
	h.Close()
	o.EKRoots = makers
	h = reopen(t, o)
	if h.Grade() != vault.Purge {
		t.Errorf("its maker is listed: %s, %s", h.Grade(), h.Why())
	}
	sealed(t, h, 1)
	r, err := Verify(destroy(t, h, 2))
	if err != nil {
		t.Fatal(err)
	}
	m, err := ReadMakers(makers)
	if err != nil {
		t.Fatal(err)
	}
	if from, err := m.Know(r.EKCertificate, time.Now()); err != nil || !strings.Contains(from.Root, "swtpm-localca") || from.Maker != "id:00001014" || from.Model != "swtpm" {
		t.Errorf("what an outsider finds in the evidence: %+v, %v", from, err)
	}
	both := filepath.Join(t.TempDir(), "makers.pem")
	var all []byte
	for _, name := range []string{"issuercert.pem", "swtpm-localca-rootca-cert.pem"} {
		b, err := os.ReadFile(filepath.Join(makers, name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	if err := os.WriteFile(both, all, 0o600); err != nil {
		t.Fatal(err)
	}
	if one, err := ReadMakers(both); err != nil {
		t.Error(err)
	} else if _, err := one.Know(r.EKCertificate, time.Now()); err != nil {
		t.Errorf("with all certificates in one file: %v", err)
	}
	if _, err := m.Know(r.EKCertificate, time.Now().AddDate(-50, 0, 0)); err == nil {
		t.Error("a certificate vouches for times before it began")
	}
	h.Close()
	others := t.TempDir()
	run := exec.CommandContext(t.Context(), "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=another maker", "-keyout", filepath.Join(t.TempDir(), "key"), "-out", filepath.Join(others, "root.pem"))
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for what, dir := range map[string]string{"another maker": others, "no certificate": t.TempDir(), "no folder": filepath.Join(others, "none")} {
		o.EKRoots = dir
		h = reopen(t, o)
		if h.Grade() != vault.Clear || h.Why() == "" {
			t.Errorf("%s: %s, %s", what, h.Grade(), h.Why())
		}
		h.Close()
	}
	// A certificate that is of another key shows nothing.
	f := newEmulator(t)
	p := f.options()
	p.EKRoots = makers
	if h := create(t, p); h.Grade() != vault.Clear || !strings.Contains(h.Why(), "no EK certificate") {
		t.Errorf("a TPM without certificate: %s, %s", h.Grade(), h.Why())
	}
}

// Makers are registered with four bytes, which mostly are letters.
func TestMakersAreNamed(t *testing.T) {
	for id, want := range map[string]string{"id:49465800": "IFX", "id:53544D20": "STM", "id:494E5443": "INTC", "id:00001014": "id:00001014", "id:4": "id:4", "id:00000000": "id:00000000", "49465800": "49465800", "": ""} {
		if got := maker(id); got != want {
			t.Errorf("%q is %q, want %q", id, got, want)
		}
	}
	var o Origin
	for _, der := range [][]byte{nil, {0x30}, {0x30, 0x02, 0xa4, 0x00}, {0x30, 0x04, 0xa4, 0x02, 0x05, 0x00}} {
		if o.name(der); o != (Origin{}) {
			t.Errorf("% x names %+v", der, o)
		}
	}
}

// manufacture has swtpm_setup make a TPM with endorsement certificates of a maker of
// the test's own, and returns the folder with its root.
func (e *emulator) manufacture() (makers string) {
	e.t.Helper()
	dir := e.t.TempDir()
	ca := filepath.Join(dir, "ca")
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			e.t.Fatal(err)
		}
		return path
	}
	local := write("localca.conf", fmt.Sprintf("statedir = %[1]s\nsigningkey = %[1]s/signkey.pem\nissuercert = %[1]s/issuercert.pem\ncertserial = %[1]s/certserial\n", ca))
	options := write("localca.options", "--platform-manufacturer test\n--platform-version 1\n--platform-model test\n")
	setup := write("setup.conf", fmt.Sprintf("create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = %s\ncreate_certs_tool_options = %s\n", local, options))
	if err := os.Mkdir(ca, 0o700); err != nil {
		e.t.Fatal(err)
	}
	c := exec.CommandContext(e.t.Context(), "swtpm_setup", "--tpm2", "--tpmstate", e.dir, "--config", setup, "--create-ek-cert", "--overwrite", "--vmid", "test", "--pcr-banks", "sha256")
	if out, err := c.CombinedOutput(); err != nil {
		e.t.Fatalf("swtpm_setup: %v\n%s", err, out)
	}
	makers = filepath.Join(dir, "makers")
	if err := os.Mkdir(makers, 0o700); err != nil {
		e.t.Fatal(err)
	}
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuercert.pem"} {
		b, err := os.ReadFile(filepath.Join(ca, name))
		if err != nil {
			e.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(makers, name), b, 0o600); err != nil {
			e.t.Fatal(err)
		}
	}
	return makers
}

// The files in testdata are what an emulator gave; later versions must read them.
func TestGolden(t *testing.T) {
	if *update {
		e := newEmulator(t)
		h := create(t, e.options())
		_, box := sealed(t, h, 1)
		_, _ = sealed(t, h, 2)
		said := destroy(t, h, 2)
		state, err := os.ReadFile(h.opts.State)
		if err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{"box": box, "evidence.json": said, "state.json": state} {
			if err := os.WriteFile(filepath.Join("testdata", name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	s, err := parseState(read("state.json"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.MarshalIndent(s, "", "  ")
	if err != nil || !bytes.Equal(append(again, '\n'), read("state.json")) {
		t.Errorf("the state is written otherwise: %v\n%s", err, cmp.Diff(string(read("state.json")), string(again)))
	}
	b, err := parseBox(read("box"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.append(nil), read("box")) {
		t.Error("the box is written otherwise")
	}
	h := &Holder{state: s}
	policy, err := h.policy(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := isBox(b.public, policy); err != nil {
		t.Error(err)
	}
	r, err := Verify(read("evidence.json"))
	if err != nil || r.Below != 2 || !bytes.Equal(b.ring, s.Ring) {
		t.Errorf("evidence %+v: %v", r, err)
	}
}

func FuzzBox(f *testing.F) {
	b, err := os.ReadFile("testdata/box")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, in []byte) {
		if b, err := parseBox(in); err == nil && !bytes.Equal(b.append(nil), in) {
			t.Error("read, it is written otherwise")
		}
	})
}

func FuzzVerify(f *testing.F) {
	b, err := os.ReadFile("testdata/evidence.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, in []byte) { Verify(in) })
}

func FuzzState(f *testing.F) {
	b, err := os.ReadFile("testdata/state.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, in []byte) {
		if s, err := parseState(in); err == nil && s.Start != nil {
			(&Holder{state: s}).policy(s.Start.Generation)
		}
	})
}
