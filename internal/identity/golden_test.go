package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// The golden file holds what the catalog keeps of a code and the signed part of
// each kind of certificate, under fixed randomness and time.
func TestGolden(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root, err := selfSign(key, now)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{root: root, key: key, pin: spkiHash(root)}
	server, err := a.serve(key.Public(), testHosts, now)
	if err != nil {
		t.Fatal(err)
	}
	device, err := a.client(key.Public(), deviceURN, exampleDevice, now, deviceLife)
	if err != nil {
		t.Fatal(err)
	}
	person, err := a.client(key.Public(), credentialURN, exampleDevice, now, deviceLife)
	if err != nil {
		t.Fatal(err)
	}
	code, err := ParseCode(example("hub.example:8444"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "code\n  %s\nits hash\n  %x\n", code.Text(), hashSecret(code.Device, code.SecretText()))
	fmt.Fprintf(&out, "authority\n  %x\nits pin\n  %x\nserver\n  %x\n", root.RawTBSCertificate, a.pin, server.RawTBSCertificate)
	fmt.Fprintf(&out, "device\n  %x\nits fingerprint\n  %x\ncredential\n  %x\n", device.RawTBSCertificate, fingerprintOf(device), person.RawTBSCertificate)

	const file = "testdata/enrolment.txt"
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("%s: %s", file, diff)
	}
}
