package identity

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
)

// The degenerate PKCS #7 message that carries certificates and nothing else (RFC
// 5652, section 5; RFC 7030, 4.1.3): a SignedData without content and signers.
type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content signedData `asn1:"explicit,tag:0"`
}

type signedData struct {
	Version          int
	DigestAlgorithms []asn1.RawValue `asn1:"set"`
	Encapsulated     struct{ Type asn1.ObjectIdentifier }
	Certificates     asn1.RawValue
	Signers          []asn1.RawValue `asn1:"set"`
}

var (
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
)

func certsOnly(certs []*x509.Certificate) ([]byte, error) {
	var all []byte
	for _, c := range certs {
		all = append(all, c.Raw...)
	}
	m := contentInfo{Type: oidSignedData}
	m.Content.Version = 1
	m.Content.Encapsulated.Type = oidData
	m.Content.Certificates = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: all}
	der, err := asn1.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode PKCS #7: %w", err)
	}
	return der, nil
}
