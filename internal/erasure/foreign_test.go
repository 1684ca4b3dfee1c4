package erasure

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/vault"
)

// tool is a foreign program; without it the test is left out only if somebody said so.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("HOLDFAST_NO_TOOLS") == "1" {
			t.Skipf("SKIPPED: %s is not installed and HOLDFAST_NO_TOOLS=1: nobody else checked a certificate", name)
		}
		t.Fatalf("%s is not installed; HOLDFAST_NO_TOOLS=1 skips what needs it", name)
	}
	return path
}

// A verifier in another language, written from the documented format alone, agrees
// with ours on good certificates and on altered ones.
func TestSecondVerifierAgrees(t *testing.T) {
	node := tool(t, "node")
	script, err := filepath.Abs("../../examples/verify/certificate.mjs")
	if err != nil {
		t.Fatal(err)
	}
	golden, key := readGolden(t, goldenCertificate, goldenKey)
	_, witness := readGolden(t, goldenCertificate, goldenWitness)
	db, l := openLedger(t)
	whole := example()
	whole.Scope.Streams, whole.Scope.From, whole.Scope.To, whole.Kept, whole.Earlier, whole.Paper.Escrow = nil, nil, nil, nil, nil, Escrow{}
	whole.RecordKeys, whole.Scope.Whole = nil, true
	whole.Holders = append(whole.Holders, vault.HolderEvidence{Holder: "module", Grade: vault.Purge})
	fresh := certify(t, db, l, whole, nil)
	for range 10 { // of a tree whose right edge is ragged
		fresh = certify(t, db, l, whole, nil)
	}
	type sample struct {
		name     string
		b        []byte
		key      string
		witness  string
		accepted bool
	}
	samples := []sample{
		{"golden", golden, key, witness, true},
		{"golden, without a witness", golden, key, "", true},
		{"redacted", Redact(golden), key, witness, true},
		{"fresh", fresh, l.VerifierKey(), "", true},
		{"fresh, redacted", Redact(fresh), l.VerifierKey(), "", true},
		{"fresh, not witnessed", fresh, l.VerifierKey(), witness, false},
		{"another hub's", fresh, key, "", false},
		{"another's key", golden, l.VerifierKey(), "", false},
		{"the scope of another", append(bytes.Clone(Redact(golden)), fresh[len(Redact(fresh)):]...), key, "", false},
		{"a line more", append(bytes.Clone(golden), '\n'), key, "", false},
		{"of version 1", mustRead(t, goldenCertificate1), key, "", false},
	}
	end := bytes.Index(golden, []byte("\n\n"))
	for i, at := range []int{0, 5, end / 4, end / 2, end - 3, end, end + 1, end + 3, end + 12, len(Redact(golden)) - 2, len(Redact(golden)) - 3, len(Redact(golden)),
		len(Redact(golden)) + 3, len(Redact(golden)) + len(scopeHeader) + 4, len(Redact(golden)) + len(scopeHeader) + 46, len(golden) - 2, len(golden) - 1} {
		b := bytes.Clone(golden)
		b[at] ^= 1 << (i % 3)
		samples = append(samples, sample{"altered at " + string(golden[max(0, at-4):at]) + "|", b, key, witness, false})
	}
	for _, s := range samples {
		file := filepath.Join(t.TempDir(), "certificate.txt")
		if err := os.WriteFile(file, s.b, 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{script, file, s.key}
		if s.witness != "" {
			args = append(args, s.witness)
		}
		out, err := exec.Command(node, args...).CombinedOutput()
		if (err == nil) != s.accepted {
			t.Errorf("%s: %v, the other verifier says: %s", s.name, err, out)
		}
		if want := "VERIFIED: "; !strings.Contains(string(out), want) {
			t.Errorf("%s: the other verifier broke: %s", s.name, out)
		}
		if s.name == "golden" && !strings.Contains(string(out), "holder module: destroyed (purge) NOT PROVEN: its evidence is not judged here") {
			t.Errorf("the other verifier does not say what it leaves out: %s", out)
		}
		c, err := VerifyCertificate(s.b, s.key)
		ours := err == nil && (s.witness == "" || cosignatures(c.Ledger.Checkpoint) > 0)
		if s.name != "of version 1" && ours != s.accepted {
			t.Errorf("%s: ours says %v", s.name, err)
		}
	}
}

// A newline too many or too few at the end is refused, and told from an alteration.
func TestNewlinesAtTheEnd(t *testing.T) {
	golden, key := readGolden(t, goldenCertificate, goldenKey)
	one, key1 := readGolden(t, goldenCertificate1, goldenKey1)
	for _, x := range []struct {
		b   []byte
		key string
	}{{golden, key}, {golden, ""}, {Redact(golden), key}, {one, key1}} {
		for end, want := range map[string]string{"\n\n": "ends with an empty line", "\n\n\n": "ends with an empty line", "": "newline at the end of the certificate is missing"} {
			if _, err := VerifyCertificate(slices.Concat(bytes.TrimRight(x.b, "\n"), []byte(end)), x.key); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("with %q at the end: %v", end, err)
			}
		}
	}
	altered := bytes.Replace(golden, []byte(`"asked_by": "owner"`), []byte(`"asked_by": "0wner"`), 1)
	for _, b := range [][]byte{append(altered, '\n'), append(bytes.Clone(golden), ' ', '\n'), append([]byte("\n"), golden...)} {
		if _, err := VerifyCertificate(b, key); err == nil || strings.Contains(err.Error(), "newline") || strings.Contains(err.Error(), "empty line") {
			t.Errorf("what was altered: %v", err)
		}
	}
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The lines for a shell in docs/format/certificate.md do what they say.
func TestCertificateByHand(t *testing.T) {
	for _, name := range []string{"openssl", "sha256sum", "awk", "sed", "od"} {
		tool(t, name)
	}
	doc := string(mustRead(t, "../../docs/format/certificate.md"))
	_, after, ok := strings.Cut(doc, "```sh\n")
	lines, _, closed := strings.Cut(after, "```")
	if !ok || !closed {
		t.Fatal("the document has no lines for a shell")
	}
	golden, key := readGolden(t, goldenCertificate, goldenKey)
	run := func(certificate []byte) (string, error) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "erased.cert"), certificate, 0o600); err != nil {
			t.Fatal(err)
		}
		c := exec.Command("sh", "-ec", lines)
		c.Dir, c.Env = dir, append(os.Environ(), "KEY="+key)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	other := bytes.Replace(golden, []byte(`{"erasure":"ae`), []byte(`{"erasure":"be`), 1)
	for _, x := range []struct {
		name string
		b    []byte
		last string
	}{
		{"whole", golden, "the scope is the one committed to: holds"},
		{"redacted", Redact(golden), "the scope is not shown"},
		{"of another scope", other, "the scope is the one committed to: ALTERED"},
	} {
		out, err := run(x.b)
		said := strings.Split(strings.TrimSpace(out), "\n")
		if err != nil || len(said) != 5 || !strings.Contains(said[0], "Verified Successfully") || !strings.Contains(said[1], `"kind":"erasure done"`) ||
			said[2] != "the entry is the one committed to: holds" || said[3] != "the entry is of this erasure: holds" || said[4] != x.last {
			t.Errorf("%s: %v: %s", x.name, err, out)
		}
	}
	altered := bytes.Replace(golden, []byte(`"asked_by": "owner"`), []byte(`"asked_by": "0wner"`), 1)
	if out, err := run(altered); err == nil {
		t.Errorf("openssl takes an altered certificate: %s", out)
	}
}
