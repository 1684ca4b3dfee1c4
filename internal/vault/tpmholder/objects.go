package tpmholder

import (
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"
)

// counterPublic is the counter as it is defined: no ORDERLY, so that a value is in
// NV memory before the TPM answers; no DA, so that power cuts never lock it; read
// and written by its own password only, not by the hierarchy's owner.
func counterPublic(index handle, written bool) tpm2.TPMSNVPublic {
	return tpm2.TPMSNVPublic{
		NVIndex: tpm2.TPMHandle(index),
		NameAlg: tpm2.TPMAlgSHA256,
		Attributes: tpm2.TPMANV{
			NT:        tpm2.TPMNTCounter,
			AuthRead:  true,
			AuthWrite: true,
			NoDA:      true,
			Written:   written,
		},
		DataSize: 8,
	}
}

// parentTemplate is the storage key over all boxes, which the TPM derives from the
// storage hierarchy's seed and from unique.
func parentTemplate(unique []byte) tpm2.TPMTPublic {
	t := tpm2.ECCSRKTemplate
	t.Unique = pointFrom(unique)
	return t
}

// keyTemplate is the key that signs evidence: restricted, so that it signs only what
// the TPM has made itself. It is derived from the endorsement hierarchy's seed.
func keyTemplate(unique []byte) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM:            true,
			FixedParent:         true,
			SensitiveDataOrigin: true,
			UserWithAuth:        true,
			NoDA:                true,
			Restricted:          true,
			SignEncrypt:         true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: pointFrom(unique),
	}
}

func pointFrom(unique []byte) tpm2.TPMUPublicID {
	return tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: unique},
		Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
	})
}

// boxTemplate is a sealed data object that nothing but its policy opens: no
// password (userWithAuth and its opposite for administration), no lockout, no copy
// for another parent or TPM.
func boxTemplate(policy []byte) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgKeyedHash,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM:        true,
			FixedParent:     true,
			AdminWithPolicy: true,
			NoDA:            true,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{
			Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull},
		}),
	}
}

// policyNV says: the counter is at most last.
func policyNV(name tpm2.TPM2BName, index handle, last uint64) tpm2.PolicyNV {
	return tpm2.PolicyNV{
		NVIndex:   tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: name},
		OperandB:  tpm2.TPM2BOperand{Buffer: binary.BigEndian.AppendUint64(nil, last)},
		Operation: tpm2.TPMEOUnsignedLE,
	}
}

// policyOf is the digest that a box has whose last value of the counter is last.
func policyOf(name tpm2.TPM2BName, index handle, last uint64) ([]byte, error) {
	calc, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	if err := policyNV(name, index, last).Update(calc); err != nil {
		return nil, err
	}
	return calc.Hash().Digest, nil
}
