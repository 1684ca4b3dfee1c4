package client

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// trust is the TLS configuration that the options ask for.
func (o Options) trust(host string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS13}
	pin := o.Pin
	if o.Token != "" {
		fromToken, err := pinOf(o.Token)
		if err != nil {
			return nil, err
		}
		if pin == ([32]byte{}) {
			pin = fromToken
		}
	}
	ca := o.CA
	if o.Identity != "" {
		f, err := readFolder(o.Identity)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{f.pair}
		if len(ca) == 0 && o.Pin == ([32]byte{}) {
			ca = f.ca
		}
	}
	switch {
	case o.SystemRoots:
		return c, nil
	case len(ca) > 0:
		pool, err := poolOf(ca)
		if err != nil {
			return nil, err
		}
		c.RootCAs = pool
		if o.AnyName {
			trustAnyName(c)
		}
		return c, nil
	case pin != [32]byte{}:
		if o.AnyName {
			host = ""
		}
		trustPin(c, pin, host)
		return c, nil
	}
	return nil, holdfast.Errorf(holdfast.Invalid, "whom to trust is not said: give the hub's ca.pem, or the system's authorities if its certificate is from a public one")
}

// trustPin accepts only a chain that ends in the authority whose public key has
// this hash. The authority's certificate comes with the handshake: nothing but the
// hash has to be known before. An empty host is any name.
func trustPin(c *tls.Config, pin [32]byte, host string) {
	c.InsecureSkipVerify = true // VerifyConnection does what it skips
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errPin()
		}
		roots, others := x509.NewCertPool(), x509.NewCertPool()
		found := false
		for _, cert := range cs.PeerCertificates[1:] {
			if cert.IsCA && sha256.Sum256(cert.RawSubjectPublicKeyInfo) == pin {
				roots.AddCert(cert)
				found = true
			} else {
				others.AddCert(cert)
			}
		}
		if !found {
			return errPin()
		}
		_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, DNSName: host})
		return err
	}
}

// trustAnyName verifies all but the name. A certificate for a client of the same
// authority is still none for a server.
func trustAnyName(c *tls.Config) {
	c.InsecureSkipVerify = true // VerifyConnection does what it skips
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return x509.UnknownAuthorityError{}
		}
		others := x509.NewCertPool()
		for _, cert := range cs.PeerCertificates[1:] {
			others.AddCert(cert)
		}
		_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: c.RootCAs, Intermediates: others})
		return err
	}
}

func errPin() error {
	return holdfast.Errorf(holdfast.Denied, "the authority that the code or token names did not sign its certificate: "+
		"is it another hub, or does something stand between?")
}

// pinOf returns the pin in the text of a token or an invitation, zero if it has
// none: PREFIX.ID.SECRET[.CA-SPKI-SHA256].
func pinOf(token string) (pin [32]byte, err error) {
	bad := holdfast.Errorf(holdfast.Invalid, "a token looks like hft1.ID.SECRET.CA-SPKI-SHA256")
	parts := strings.Split(token, ".")
	if strings.HasPrefix(token, "ey") && len(parts) == 3 && len(token) <= maxLogin { // an issuer's, which knows no hub
		return pin, nil
	}
	if len(token) > 256 || len(parts) < 3 || len(parts) > 4 || parts[0] != "hft1" {
		return pin, bad
	}
	if _, err := holdfast.ParseID[holdfast.CredentialID](parts[1]); err != nil {
		return pin, bad
	}
	if b, err := base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil || len(b) != 32 {
		return pin, bad
	}
	if len(parts) == 4 {
		b, err := hex.DecodeString(parts[3])
		if err != nil || len(b) != len(pin) {
			return pin, bad
		}
		pin = [32]byte(b)
	}
	return pin, nil
}

func poolOf(text []byte) (*x509.CertPool, error) {
	pool, n := x509.NewCertPool(), 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, holdfast.Errorf(holdfast.Invalid, "the authority's certificate can't be read")
		}
		pool.AddCert(cert)
		n++
	}
	if n == 0 {
		return nil, holdfast.Errorf(holdfast.Invalid, "there is no certificate in PEM where the authority's should be")
	}
	return pool, nil
}

// newHTTP follows no redirect and uses no proxy's TLS: what is verified is the hub.
func newHTTP(t *tls.Config, timeout time.Duration) *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:        t,
			TLSHandshakeTimeout:    timeout,
			ResponseHeaderTimeout:  timeout,
			ExpectContinueTimeout:  time.Second,
			IdleConnTimeout:        time.Minute,
			MaxIdleConnsPerHost:    4,
			MaxResponseHeaderBytes: 64 << 10,
			ForceAttemptHTTP2:      true,
		},
	}
}
