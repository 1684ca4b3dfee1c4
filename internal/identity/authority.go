package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

const (
	rootLife   = 10 * 365 * 24 * time.Hour
	serverLife = 30 * 24 * time.Hour
	deviceLife = 30 * 24 * time.Hour
	// backdate is how far a verifier's clock may run behind ours.
	backdate = time.Hour
)

const (
	deviceURN     = "urn:holdfast:device:"
	credentialURN = "urn:holdfast:credential:"
)

// authority is the certificate and key that sign all others.
type authority struct {
	root *x509.Certificate
	pool *x509.CertPool
	key  crypto.Signer
	pin  [32]byte
}

func newAuthority(certificate, pkcs8 []byte) (*authority, error) {
	root, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	private, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, errors.New("read key: not a PKCS #8 private key") // the parser's text could quote the key
	}
	key, ok := private.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(root.PublicKey) {
		return nil, errors.New("the key is not the certificate's")
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return &authority{root: root, pool: pool, key: key, pin: spkiHash(root)}, nil
}

// selfSign makes the root. Its name carries part of the key's hash, so that two
// hubs' authorities differ in a trust store's listing.
func selfSign(key *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(spki)
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "Holdfast CA " + hex.EncodeToString(sum[:8])},
		NotBefore:             now.Add(-24 * time.Hour),
		NotAfter:              now.Add(rootLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          sum[:20],
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newSerial returns 127 random bits: positive, within RFC 5280's 20 octets.
func newSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] = b[0]&0x7f | 0x40 // never zero, always 16 octets
	return new(big.Int).SetBytes(b[:])
}

// span returns a leaf's validity: within the root's, and never empty, even when
// the clock was set back to before the root was made.
func (a *authority) span(now time.Time, life time.Duration) (notBefore, notAfter time.Time) {
	if now.Before(a.root.NotBefore) {
		now = a.root.NotBefore
	}
	notBefore, notAfter = now.Add(-backdate), now.Add(life)
	if notBefore.Before(a.root.NotBefore) {
		notBefore = a.root.NotBefore
	}
	if notAfter.After(a.root.NotAfter) {
		notAfter = a.root.NotAfter
	}
	return notBefore.Truncate(time.Second), notAfter.Truncate(time.Second)
}

// client issues a certificate for whoever urn and id name.
func (a *authority) client(public any, urn, id string, now time.Time, life time.Duration) (*x509.Certificate, error) {
	uri, err := url.Parse(urn + id)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: id},
		URIs:        []*url.URL{uri},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	return a.leaf(template, public, now, life)
}

// serve issues a certificate for a listener.
func (a *authority) serve(public any, hosts []string, now time.Time) (*x509.Certificate, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "Holdfast"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip, err := netip.ParseAddr(h); err == nil {
			template.IPAddresses = append(template.IPAddresses, net.IP(ip.Unmap().AsSlice()))
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	return a.leaf(template, public, now, serverLife)
}

func (a *authority) leaf(t *x509.Certificate, public any, now time.Time, life time.Duration) (*x509.Certificate, error) {
	t.SerialNumber = newSerial()
	t.NotBefore, t.NotAfter = a.span(now, life)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, t, a.root, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// SignCredential certifies the key of a certificate request (PKCS #10, DER) for
// a person or program. It records nothing: the caller keeps the certificate's
// fingerprint and may refuse it later.
func (i *Identity) SignCredential(_ context.Context, id holdfast.CredentialID, csr []byte, life time.Duration) (der []byte, fingerprint [32]byte, notAfter time.Time, err error) {
	request, err := readRequest(csr)
	if err != nil {
		return nil, fingerprint, notAfter, err
	}
	c, err := i.authority.client(request.PublicKey, credentialURN, id.String(), i.now(), life)
	if err != nil {
		return nil, fingerprint, notAfter, err
	}
	return c.Raw, fingerprintOf(c), c.NotAfter, nil
}

// fingerprintOf names a certificate by what the authority signed. The usual
// fingerprint covers the signature too, and anybody can turn an ECDSA signature
// (r, s) into the equally valid (r, -s): it would give a revoked certificate a
// second name.
func fingerprintOf(c *x509.Certificate) [32]byte { return sha256.Sum256(c.RawTBSCertificate) }

// maxRSABits is what crypto/tls accepts in a handshake.
const maxRSABits = 8192

// readRequest reads a PKCS #10 request and checks that its sender holds the key.
// The key is all that is ever taken from it.
func readRequest(der []byte) (*x509.CertificateRequest, error) {
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "not a certificate request (PKCS #10)")
	}
	switch k := r.PublicKey.(type) { // before the signature: a huge RSA key is slow
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return nil, errKeyType()
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > maxRSABits {
			return nil, errKeyType()
		}
	default:
		return nil, errKeyType()
	}
	if err := r.CheckSignature(); err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "the certificate request is not signed by its own key")
	}
	return r, nil
}

func errKeyType() error {
	return holdfast.Errorf(holdfast.Invalid, "the key must be ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to %d bits", maxRSABits)
}

// checkHosts refuses what could not stand in a certificate.
func checkHosts(hosts []string) error {
	if len(hosts) == 0 {
		return holdfast.Errorf(holdfast.Invalid, "name at least one host")
	}
	for _, h := range hosts {
		if !isHost(h) {
			return holdfast.Errorf(holdfast.Invalid, "host %q is neither a DNS name in ASCII nor an IP address", h)
		}
	}
	return nil
}

// isHost reports whether h is an IP address without zone or a DNS name as it
// may stand in a certificate: letters, digits, - and _, in labels of 1 to 63.
func isHost(h string) bool {
	if ip, err := netip.ParseAddr(h); err == nil {
		return ip.Zone() == ""
	}
	if h == "" || len(h) > 253 {
		return false
	}
	for label := range strings.SplitSeq(h, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}
