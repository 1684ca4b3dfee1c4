package main

import (
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/tpmholder"
)

// tpmProof is what the evidence of a holder's TPM comes to.
type tpmProof struct {
	Holder  string `json:"holder"`
	Counter uint64 `json:"counter,omitzero"`
	Below   uint64 `json:"below,omitzero"` // root keys before it are destroyed; 0: there is no evidence
	// Origin is who vouches for the endorsement certificate in the evidence, if the
	// roots were given.
	Origin    *tpmholder.Origin `json:"maker,omitempty"`
	Activated time.Time         `json:"activated,omitzero"` // when the hub says to have seen that the key is of that TPM
	certified bool              // there is an endorsement certificate
}

// tpmEvidence checks what the TPM of a holder signed of the destruction of all root
// keys before a generation, and with roots whose the TPM is that it names. It is nil
// for a holder of another kind, and for one that is pending.
func tpmEvidence(h erasure.Holder, below uint64, roots *tpmholder.Makers, at time.Time) (*tpmProof, error) {
	switch {
	case h.Kind != "tpm", h.State == vault.HolderPending:
		return nil, nil
	case len(h.Evidence) == 0 && roots != nil:
		return nil, holdfast.Errorf(holdfast.Denied, "holder %s: its TPM gave no evidence, so that no maker's roots say anything of it (without --tpm-roots it is the hub's word)", cell(h.Holder))
	case len(h.Evidence) == 0:
		return &tpmProof{Holder: cell(h.Holder)}, nil
	}
	r, err := tpmholder.Verify(h.Evidence)
	switch {
	case err != nil:
		return nil, holdfast.Errorf(holdfast.Invalid, "holder %s: %w", cell(h.Holder), err)
	case r.Below < below:
		return nil, holdfast.Errorf(holdfast.Invalid, "holder %s: the evidence of the TPM is of an earlier destruction: of what is before root key %d, not %d", cell(h.Holder), r.Below, below)
	}
	p := &tpmProof{Holder: cell(h.Holder), Counter: r.Counter, Below: r.Below, Activated: r.Activated, certified: len(r.EKCertificate) > 0 && !r.Activated.IsZero()}
	if roots == nil {
		return p, nil
	}
	if !p.certified {
		return nil, holdfast.Errorf(holdfast.Denied, "holder %s: the evidence names no endorsement certificate: it may be of an emulator (without --tpm-roots it is checked for all but that)", p.Holder)
	}
	from, err := roots.Know(r.EKCertificate, at)
	if err != nil {
		return nil, fmt.Errorf("holder %s: %w", p.Holder, err)
	}
	from.Root, from.Maker, from.Model = cell(from.Root), cell(from.Maker), cell(from.Model)
	p.Origin = &from
	return p, nil
}

// tpms checks the evidence of all TPMs in a certificate.
func (c *verifyCmd) tpms(t erasure.Certificate) (all []tpmProof, err error) {
	var roots *tpmholder.Makers
	if c.TPMRoots != "" {
		m, err := tpmholder.ReadMakers(c.TPMRoots)
		if err != nil {
			return nil, err
		}
		roots = &m
	}
	for _, h := range t.Destroyed.Holders {
		at := h.At
		if at.IsZero() {
			at = t.Destroyed.At
		}
		p, err := tpmEvidence(h, t.Destroyed.To, roots, at)
		if err != nil {
			return nil, err
		}
		if p != nil {
			all = append(all, *p)
		}
	}
	if roots != nil && all == nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "the certificate has no evidence of a TPM: there is nothing to check with --tpm-roots")
	}
	return all, nil
}

func tpmRows(all []tpmProof, say func(tpmProof) string) (rows [][]string) {
	for _, p := range all {
		if text := say(p); text != "" {
			rows = append(rows, []string{"  TPM of " + p.Holder, text})
		}
	}
	return rows
}

func (p tpmProof) proven() string {
	if p.Below == 0 {
		return ""
	}
	text := fmt.Sprintf("a TPM key signed that its counter stands at %d, past what is before root key %d", p.Counter, p.Below)
	if p.Origin != nil {
		text += "; the endorsement certificate with it is of " + p.Origin.String()
	}
	return text
}

func (p tpmProof) stated() string {
	if !p.certified {
		return ""
	}
	return "that the key is of the TPM with the endorsement certificate: the TPM showed it to the hub on " + when(p.Activated)
}

// unproven is what nobody can see from the certificate alone.
func (p tpmProof) unproven() string {
	switch {
	case p.Below == 0:
		return "that it has destroyed anything: the TPM gave no evidence"
	case p.Origin != nil:
		return "that the key which signed is in that maker's TPM: for that the TPM itself must be asked"
	case p.certified:
		return "whose the TPM is: its endorsement certificate was not compared with a maker's roots (--tpm-roots)"
	}
	return "that it is a maker's TPM: there is no endorsement certificate, it may be an emulator"
}
