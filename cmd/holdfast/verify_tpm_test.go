package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// What a TPM signed is checked with the certificate that has it.
func TestVerifyChecksWhatATPMSigned(t *testing.T) {
	said, err := os.ReadFile("../../internal/vault/tpmholder/testdata/evidence.json") // below 2
	if err != nil {
		t.Fatal(err)
	}
	h := erasure.Holder{Holder: "tpm", Kind: "tpm", Evidence: said}
	if got, err := tpmEvidence(h, 2); err != nil || !strings.Contains(got, "before root key 2") {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := tpmEvidence(h, 3); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("of an earlier destruction: %v", err)
	}
	h.Evidence = bytes.Replace(said, []byte(`"below":2`), []byte(`"below":3`), 1)
	if _, err := tpmEvidence(h, 3); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("altered: %v", err)
	}
	h.Kind = "exec"
	if got, err := tpmEvidence(h, 3); err != nil || got != "" {
		t.Errorf("of a program, which nobody can check: %q, %v", got, err)
	}
}
