package mqtt

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// authority is a CA, a server certificate and as many device certificates as a
// test wants. A device's id is its certificate's common name.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	n    int64
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	c := a.issue(template)
	a.cert, a.key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(template *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.n++
	template.SerialNumber = big.NewInt(a.n)
	template.NotBefore = time.Now().Add(-time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) device(id holdfast.DeviceID) tls.Certificate {
	return a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: id.String()},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) server() *tls.Config {
	cert := a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool,
		MinVersion: tls.VersionTLS12,
	}
}

func (a *authority) client(id holdfast.DeviceID) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{a.device(id)}, RootCAs: a.pool, ServerName: "localhost"}
}

// files writes what a client program needs and returns the folder: ca.pem,
// cert.pem, key.pem.
func (a *authority) files(id holdfast.DeviceID) string {
	a.t.Helper()
	dir := a.t.TempDir()
	c := a.device(id)
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{
		"ca.pem":   {Type: "CERTIFICATE", Bytes: a.cert.Raw},
		"cert.pem": {Type: "CERTIFICATE", Bytes: c.Certificate[0]},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return dir
}

// authenticate makes a Peer of a client certificate.
func authenticate(_ context.Context, cs tls.ConnectionState) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, holdfast.Errorf(holdfast.Denied, "no certificate")
	}
	leaf := cs.PeerCertificates[0]
	var id holdfast.DeviceID
	if err := id.UnmarshalText([]byte(leaf.Subject.CommonName)); err != nil {
		return Peer{}, err
	}
	return Peer{Device: id, Fingerprint: sha256.Sum256(leaf.Raw), NotAfter: leaf.NotAfter, TLS12: cs.Version == tls.VersionTLS12}, nil
}

// listen is how the hub listens: connections can be polled.
func (a *authority) listen() (net.Listener, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return tls.NewListener(Pollable(ln), a.server()), nil
}

// serving runs a server on loopback until the test ends, and says where.
func serving(t *testing.T, a *authority, h *hub, o Options) (*Server, string) {
	t.Helper()
	ln, err := a.listen()
	if err != nil {
		t.Fatal(err)
	}
	if o.Source == nil {
		o.Source = h.board
	}
	s := New(authenticate, h, h, o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s, ln.Addr().String()
}
