package tpmholder

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

const evidenceFormat = "1"

// evidence is the JSON of what the TPM says of a destruction; docs/format/tpm.md
// describes it and how to check it with other programs.
type evidence struct {
	Format        string    `json:"holdfast-tpm-evidence"`
	Ring          []byte    `json:"ring"`
	Below         uint64    `json:"below"`
	Start         start     `json:"start"`
	Counter       []byte    `json:"counter"`   // TPMS_NV_PUBLIC
	Attest        []byte    `json:"attest"`    // TPMS_ATTEST
	Signature     []byte    `json:"signature"` // TPMT_SIGNATURE
	Key           []byte    `json:"key"`       // TPMT_PUBLIC
	EKCertificate []byte    `json:"ek_certificate,omitempty"`
	Activated     time.Time `json:"activated,omitzero"`
}

// nonce is what the TPM signs along with the counter, so that no older signature
// fits: the holder, the destruction, and how generations follow from the counter.
func (e *evidence) nonce() []byte {
	h := sha256.New()
	io.WriteString(h, "holdfast tpm evidence 1\x00")
	h.Write(e.Ring)
	for _, n := range []uint64{e.Below, e.Start.Generation, e.Start.Counter} {
		h.Write(binary.BigEndian.AppendUint64(nil, n))
	}
	return h.Sum(nil)
}

// certify has the TPM sign the counter. A TPM that does not give the key any more
// can't: then there is no evidence, and the grade is Clear from now on.
func (c *counter) certify(below uint64) ([]byte, error) {
	s := c.h.state
	e := evidence{Format: evidenceFormat, Ring: s.Ring, Below: below, Start: *s.Start, Counter: s.Counter, Key: s.Key, EKCertificate: s.EKCertificate, Activated: s.Activated}
	err := c.sign(&e)
	switch {
	case err == nil:
	case c.h.again(err) || c.ctx.Err() != nil:
		return nil, err
	default:
		c.h.grade, c.h.why = vault.Clear, "the TPM gives no evidence any more: "+err.Error()
		return nil, nil
	}
	out, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("write evidence: %w", err)
	}
	// What is handed out is what others will check.
	if _, err := Verify(out); err != nil {
		return nil, fmt.Errorf("check evidence of the TPM: %w", err)
	}
	return out, nil
}

func (c *counter) sign(e *evidence) error {
	secret, err := password(c.h.opts.EndorsementAuth)
	if err != nil {
		return err
	}
	k, err := c.primary(tpm2.TPMRHEndorsement, secret, keyTemplate(c.h.state.Unique))
	if err != nil {
		return err
	}
	if !bytes.Equal(tpm2.Marshal(k.public), e.Key) {
		return errors.New("its endorsement hierarchy is another than when this holder was made")
	}
	reply, err := tpm2.NVCertify{
		SignHandle:     k.authorized(),
		AuthHandle:     c.authorized(),
		NVIndex:        c.at,
		QualifyingData: tpm2.TPM2BData{Buffer: e.nonce()},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		Size:           8,
	}.Execute(c)
	if err != nil {
		return fmt.Errorf("certify counter: %w", err)
	}
	e.Attest, e.Signature = reply.CertifyInfo.Bytes(), tpm2.Marshal(reply.Signature)
	return nil
}

// Report is what checked evidence says.
type Report struct {
	Below   uint64 // no box of a generation before it opens in this TPM
	Counter uint64 // its value
	Index   uint32 // of the counter
	// Clock is the TPM's: milliseconds that it was on; Resets counts its power cuts.
	Clock    uint64
	Resets   uint32
	Firmware uint64
	// KeyName is the TPM name of the key that signed.
	KeyName []byte
	// EKCertificate is the one of the TPM that the key was shown to be of, when the
	// holder was made: the hub's word, which nothing in the evidence proves. Whether
	// a maker vouches for it is for Makers to say.
	EKCertificate []byte
	Activated     time.Time
	policyName    tpm2.TPM2BName
	start         start
}

// Policy is the digest that stands in a box of generation n of this holder, by
// which somebody with a copy of the box sees that it is one that no longer opens.
func (r Report) Policy(n uint64) ([]byte, error) {
	return policyOf(r.policyName, handle(r.Index), r.start.at(n))
}

const maxEvidence = 1 << 16

// Verify checks evidence that Destroy gave, without a TPM: a restricted key of a TPM
// signed that a counter, which by its attributes never goes back, stands where every
// box of a generation before Below has its last value behind it.
func Verify(text []byte) (Report, error) {
	bad := func(what string) (Report, error) {
		return Report{}, holdfast.Errorf(holdfast.Invalid, "the evidence of the TPM is not good: %s", what)
	}
	if len(text) > maxEvidence {
		return bad("it is too long")
	}
	var e evidence
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil || d.More() {
		return bad("it can't be read")
	}
	if e.Format != evidenceFormat {
		return bad(fmt.Sprintf("it has format %q, this program knows %s", e.Format, evidenceFormat))
	}
	if len(e.Ring) != 16 || e.Start.Generation == 0 || e.Below < e.Start.Generation || e.Below-e.Start.Generation > 1<<62 || e.Start.Counter > 1<<62 {
		return bad("its numbers make no sense")
	}
	keyName, err := e.checkSignature()
	if err != nil {
		return bad(err.Error())
	}
	r := Report{Below: e.Below, KeyName: keyName, EKCertificate: e.EKCertificate, Activated: e.Activated, start: e.Start}
	if err := e.checkCounter(&r); err != nil {
		return bad(err.Error())
	}
	return r, nil
}

func (e *evidence) checkSignature() (keyName []byte, err error) {
	key, err := whole[tpm2.TPMTPublic](e.Key)
	if err != nil {
		return nil, errors.New("its key can't be read")
	}
	want := keyTemplate(nil)
	want.Unique = key.Unique
	if !bytes.Equal(tpm2.Marshal(want), e.Key) {
		return nil, errors.New("its key is not one that signs only what a TPM has made")
	}
	public, err := tpm2.Pub(*key)
	if err != nil {
		return nil, errors.New("its key is on no curve")
	}
	signature, err := whole[tpm2.TPMTSignature](e.Signature)
	if err != nil {
		return nil, errors.New("its signature can't be read")
	}
	two, err := signature.Signature.ECDSA()
	if err != nil || two.Hash != tpm2.TPMAlgSHA256 {
		return nil, errors.New("its signature is of another kind than its key")
	}
	digest := sha256.Sum256(e.Attest)
	r, s := new(big.Int).SetBytes(two.SignatureR.Buffer), new(big.Int).SetBytes(two.SignatureS.Buffer)
	if p, ok := public.(*ecdsa.PublicKey); !ok || !ecdsa.Verify(p, digest[:], r, s) {
		return nil, errors.New("its signature is wrong")
	}
	name, err := tpm2.ObjectName(key)
	if err != nil {
		return nil, err
	}
	return name.Buffer, nil
}

func (e *evidence) checkCounter(r *Report) error {
	attest, err := whole[tpm2.TPMSAttest](e.Attest)
	if err != nil || attest.Type != tpm2.TPMSTAttestNV {
		return errors.New("what was signed is no attestation of NV memory")
	}
	if !bytes.Equal(attest.ExtraData.Buffer, e.nonce()) {
		return errors.New("what was signed is about another destruction")
	}
	nv, err := attest.Attested.NV()
	if err != nil {
		return errors.New("what was signed is no attestation of NV memory")
	}
	public, err := whole[tpm2.TPMSNVPublic](e.Counter)
	if err != nil {
		return errors.New("its counter can't be read")
	}
	index := handle(public.NVIndex)
	if !bytes.Equal(tpm2.Marshal(counterPublic(index, true)), e.Counter) {
		return errors.New("what it names is no counter that keeps its value")
	}
	name, err := tpm2.NVName(public)
	if err != nil {
		return err
	}
	if !bytes.Equal(name.Buffer, nv.IndexName.Buffer) || nv.Offset != 0 || len(nv.NVContents.Buffer) != 8 {
		return errors.New("what was signed is another counter")
	}
	r.Counter = binary.BigEndian.Uint64(nv.NVContents.Buffer)
	if r.Counter < e.Start.at(e.Below) {
		return fmt.Errorf("its counter stands at %d, and boxes before generation %d open until %d", r.Counter, e.Below, e.Start.at(e.Below)-1)
	}
	r.Index, r.policyName = uint32(index), *name
	r.Clock, r.Resets, r.Firmware = attest.ClockInfo.Clock, attest.ClockInfo.ResetCount, attest.FirmwareVersion
	return nil
}

// whole reads a structure of the TPM that takes all bytes.
func whole[T tpm2.Marshallable, P interface {
	*T
	tpm2.Unmarshallable
}](b []byte) (*T, error) {
	v, err := tpm2.Unmarshal[T, P](b)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(tpm2.Marshal(*v), b) {
		return nil, errors.New("there are bytes behind it")
	}
	return v, nil
}
