package tpmholder

import (
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iot/holdfast/internal/vault"
)

// endorsements are where a TPM has certificates of its endorsement keys, and how
// those keys are derived (TCG EK Credential Profile 2.x, low range).
func endorsements() []endorsement {
	return []endorsement{{0x01c00002, tpm2.RSAEKTemplate}, {0x01c0000a, tpm2.ECCEKTemplate}}
}

type endorsement struct {
	index    handle
	template tpm2.TPMTPublic
}

// activate shows that k is a key of the TPM whose endorsement key has a
// certificate, and returns the certificate. A secret is sealed to that endorsement
// key and to the name of k: only a TPM that has both gives it back.
func (o *operation) activate(k key, password []byte) ([]byte, error) {
	for _, e := range endorsements() {
		der, err := o.readCertificate(e.index)
		if errors.Is(err, tpm2.TPMRCHandle) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("read EK certificate: %w", err)
		}
		return der, o.activateWith(k, e, der, password)
	}
	return nil, errors.New("the TPM has no EK certificate in its NV memory")
}

func (o *operation) activateWith(k key, e endorsement, der, password []byte) error {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("the EK certificate can't be read: %w", err)
	}
	ek, err := o.primary(tpm2.TPMRHEndorsement, password, e.template)
	if err != nil {
		return err
	}
	public, err := tpm2.Pub(ek.public)
	if err != nil {
		return err
	}
	if !samePublicKey(certificate.PublicKey, public) {
		return errors.New("the EK certificate is of another key than the TPM's EK")
	}
	to, err := tpm2.ImportEncapsulationKey(&ek.public)
	if err != nil {
		return err
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	box, sealed, err := tpm2.CreateCredential(rand.Reader, to, k.name.Buffer, secret)
	if err != nil {
		return err
	}
	policy, _, err := tpm2.PolicySession(o, tpm2.TPMAlgSHA256, 16)
	if err != nil {
		return err
	}
	o.loaded = append(o.loaded, policy.Handle())
	hierarchy := tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Name: tpm2.HandleName(tpm2.TPMRHEndorsement), Auth: tpm2.PasswordAuth(password)}
	if _, err := (tpm2.PolicySecret{AuthHandle: hierarchy, PolicySession: policy.Handle(), NonceTPM: policy.NonceTPM()}).Execute(o); err != nil {
		return fmt.Errorf("use endorsement key: %w", err)
	}
	reply, err := tpm2.ActivateCredential{
		ActivateHandle: k.authorized(),
		KeyHandle:      tpm2.AuthHandle{Handle: ek.handle, Name: ek.name, Auth: policy},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: box},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: sealed},
	}.Execute(o)
	if err != nil {
		return fmt.Errorf("activate credential: %w", err)
	}
	if subtle.ConstantTimeCompare(reply.CertInfo.Buffer, secret) != 1 {
		return errors.New("the TPM did not give back the secret that was sealed to its endorsement key")
	}
	return nil
}

// samePublicKey compares keys of package crypto, of whatever type.
func samePublicKey(a, b any) bool {
	x, errA := x509.MarshalPKIXPublicKey(a)
	y, errB := x509.MarshalPKIXPublicKey(b)
	return errA == nil && errB == nil && slices.Equal(x, y)
}

const nvPiece = 512 // what every TPM reads at once

// readCertificate reads a certificate from NV memory, without what stands behind it.
func (o *operation) readCertificate(index handle) ([]byte, error) {
	reply, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(o)
	if err != nil {
		return nil, err
	}
	public, err := reply.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	name, err := tpm2.NVName(public)
	if err != nil {
		return nil, err
	}
	at := tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: *name}
	var all []byte
	for size := int(public.DataSize); len(all) < size; {
		part, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: at.Handle, Name: at.Name, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    at, Size: uint16(min(size-len(all), nvPiece)), Offset: uint16(len(all)),
		}.Execute(o)
		if err != nil {
			return nil, err
		}
		if len(part.Data.Buffer) == 0 {
			return nil, errors.New("the TPM gives back nothing")
		}
		all = append(all, part.Data.Buffer...)
	}
	var der asn1.RawValue
	if _, err := asn1.Unmarshal(all, &der); err != nil {
		return nil, errors.New("there is no certificate in it")
	}
	return der.FullBytes, nil
}

// rate decides the grade.
func (h *Holder) rate() {
	h.grade, h.why = vault.Clear, h.whyClear()
	if h.why == "" {
		h.grade = vault.Purge
	}
}

func (h *Holder) whyClear() string {
	switch {
	case h.state.Activated.IsZero():
		return "nothing shows which maker's TPM this is: " + h.state.Unshown
	case h.opts.EKRoots == "":
		return "no folder with certificates of TPM makers is named (ek-roots=)"
	}
	makers, err := ReadMakers(h.opts.EKRoots)
	if err == nil {
		_, err = makers.Know(h.state.EKCertificate, time.Now())
	}
	if err != nil {
		return err.Error()
	}
	return ""
}
