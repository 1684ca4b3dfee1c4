package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/tpmholder"
)

// What a TPM signed is checked with the certificate that has it.
func TestVerifyChecksWhatATPMSigned(t *testing.T) {
	said, err := os.ReadFile("../../internal/vault/tpmholder/testdata/evidence.json") // below 2
	if err != nil {
		t.Fatal(err)
	}
	h := erasure.Holder{Holder: "tpm", Kind: "tpm", Evidence: said}
	now := time.Now()
	if got, err := tpmEvidence(h, 2, nil, now); err != nil || !strings.Contains(got.proven(), "before root key 2") || got.stated() != "" || !strings.Contains(got.unproven(), "no endorsement certificate") {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := tpmEvidence(h, 2, &tpmholder.Makers{}, now); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("with roots, and nothing in the evidence that they vouch for: %v", err)
	}
	if _, err := tpmEvidence(h, 3, nil, now); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("of an earlier destruction: %v", err)
	}
	h.Evidence = bytes.Replace(said, []byte(`"below":2`), []byte(`"below":3`), 1)
	if _, err := tpmEvidence(h, 3, nil, now); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("altered: %v", err)
	}
	h.Evidence = nil
	if got, err := tpmEvidence(h, 3, nil, now); err != nil || got.proven() != "" || !strings.Contains(got.unproven(), "gave no evidence") {
		t.Errorf("without evidence: %+v, %v", got, err)
	}
	if _, err := tpmEvidence(h, 3, &tpmholder.Makers{}, now); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("without evidence, with roots: %v", err)
	}
	h.State = vault.HolderPending
	if got, err := tpmEvidence(h, 3, &tpmholder.Makers{}, now); err != nil || got != nil {
		t.Errorf("pending, with roots: %+v, %v", got, err)
	}
	h.Kind, h.State, h.Evidence = "exec", vault.HolderDestroyed, said
	if got, err := tpmEvidence(h, 3, nil, now); err != nil || got != nil {
		t.Errorf("of a program, which nobody can check: %+v, %v", got, err)
	}
}
