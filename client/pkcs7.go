package client

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"

	"github.com/holdfast-iot/holdfast"
)

// certsOnly is the PKCS #7 message that EST answers with (RFC 7030, 4.1.3; RFC
// 5652, 5.1): a SignedData of which only the certificates are of use here.
type certsOnly struct {
	Type    asn1.ObjectIdentifier
	Content struct {
		Version      int
		Digests      asn1.RawValue
		Inner        asn1.RawValue
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
		Revocations  asn1.RawValue `asn1:"optional,tag:1"`
		Signers      asn1.RawValue
	} `asn1:"explicit,tag:0"`
}

// parseCertsOnly reads the certificates of an EST answer, in base64.
func parseCertsOnly(text []byte) ([]*x509.Certificate, error) {
	bad := holdfast.Errorf(holdfast.Internal, "the hub's answer holds no certificates (PKCS #7, base64): is this a hub's port for devices?")
	der, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, bad
	}
	var m certsOnly
	rest, err := asn1.Unmarshal(der, &m)
	if err != nil || len(rest) > 0 || !m.Type.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}) {
		return nil, bad
	}
	certs, err := x509.ParseCertificates(m.Content.Certificates.Bytes)
	if err != nil || len(certs) == 0 {
		return nil, bad
	}
	return certs, nil
}
