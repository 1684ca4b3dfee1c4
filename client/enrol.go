package client

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// est is where EST (RFC 7030) answers.
const est = "/.well-known/est/"

// Enrol gets a device its first certificate: it makes a key in dir, asks the hub
// of the code, trusting only the authority that the code names, and writes
// key.pem, cert.pem, ca.pem and hub.json. A dir that holds an identity already is
// left as it is. Run again after it failed, it takes the key it made before: to
// the hub that is the same enrolment, even if only the answer was lost.
func Enrol(ctx context.Context, code Code, dir string) (Identity, error) {
	if _, err := os.Stat(filepath.Join(dir, certFile)); err == nil {
		return Identity{}, holdfast.Errorf(holdfast.Conflict, "%s holds an identity already: it is kept; name another folder", dir)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fmt.Errorf("enrol: %w", err)
	}
	hub := "https://" + code.Address
	c, err := New(Options{Hub: hub, Pin: code.CA})
	if err != nil {
		return Identity{}, err
	}
	defer c.Close()
	// Ask before anything is written: a wrong address leaves nothing behind.
	ca, err := c.authority(ctx, code.CA)
	if err != nil {
		return Identity{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Identity{}, fmt.Errorf("enrol: %w", err)
	}
	key, err := keepKey(dir, keyFile)
	if err != nil {
		return Identity{}, err
	}
	c.authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(code.Device.String()+":"+code.Secret))
	cert, err := c.certificate(ctx, "simpleenroll", key, pkix.Name{CommonName: code.Device.String()}.ToRDNSequence(), ca)
	if err != nil {
		return Identity{}, err
	}
	f := folder{dir: dir, hub: hubOf(code.Address)}
	f.pair.Leaf = cert
	i := f.identity()
	if i.Device != code.Device {
		return Identity{}, holdfast.Errorf(holdfast.Internal, "the hub's certificate is not for device %s", code.Device)
	}
	about, err := json.MarshalIndent(f.hub, "", "  ")
	if err != nil {
		return Identity{}, err
	}
	if err := writeFile(dir, caFile, certText(ca), 0o644); err != nil {
		return Identity{}, err
	}
	if err := writeFile(dir, hubFile, append(about, '\n'), 0o644); err != nil {
		return Identity{}, err
	}
	// Last: who finds it finds the others.
	return i, writeFile(dir, certFile, certText(cert), 0o644)
}

// hubOf guesses the MQTT listener where the other one has its usual port.
func hubOf(address string) Hub {
	h := Hub{Device: "https://" + address}
	if host, port, err := net.SplitHostPort(address); err == nil && port == "8444" {
		h.MQTT = "mqtts://" + net.JoinHostPort(host, "8883")
	}
	return h
}

// authority asks for the hub's CA certificate, which must be the pinned one.
func (c *Client) authority(ctx context.Context, pin [32]byte) (*x509.Certificate, error) {
	var text []byte
	if err := c.Do(ctx, http.MethodGet, est+"cacerts", nil, &text); err != nil {
		return nil, err
	}
	certs, err := parseCertsOnly(text)
	if err != nil {
		return nil, err
	}
	for _, ca := range certs {
		if ca.IsCA && sha256.Sum256(ca.RawSubjectPublicKeyInfo) == pin {
			return ca, nil
		}
	}
	return nil, errPin()
}

// certificate sends a request for key and checks what comes back: it must be for
// this key, and by this authority.
func (c *Client) certificate(ctx context.Context, service string, key crypto.Signer, subject pkix.RDNSequence, ca *x509.Certificate) (*x509.Certificate, error) {
	raw, err := asn1.Marshal(subject)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: raw}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	body := Body{Type: "application/pkcs10", Data: []byte(base64.StdEncoding.EncodeToString(request))}
	var text []byte
	if err := c.Do(ctx, http.MethodPost, est+service, body, &text); err != nil {
		return nil, err
	}
	certs, err := parseCertsOnly(text)
	if err != nil {
		return nil, err
	}
	ours, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return nil, holdfast.Errorf(holdfast.Invalid, "the key is of a kind that can't be compared")
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, cert := range certs {
		if !ours.Equal(cert.PublicKey) {
			continue
		}
		_, err := cert.Verify(x509.VerifyOptions{
			Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			CurrentTime: cert.NotBefore, // a slow clock is no reason to throw it away
		})
		if err != nil {
			return nil, holdfast.Errorf(holdfast.Denied, "the certificate that the hub gave is not by its authority")
		}
		return cert, nil
	}
	return nil, holdfast.Errorf(holdfast.Internal, "the hub gave no certificate for the key of this request")
}

// Renew gets the device in dir a new certificate for a new key. The old ones are
// kept until the new certificate is there, and stay valid until it is first used;
// whatever interrupts it, dir holds an identity that works, and it can be run
// again. An expired certificate can renew itself for 180 days. hub is
// https://HOST:8444, "" for the one in hub.json.
func Renew(ctx context.Context, hub, dir string) (Identity, error) {
	f, err := readFolder(dir)
	if err != nil {
		return Identity{}, err
	}
	if hub == "" {
		hub = f.hub.Device
	}
	c, err := New(Options{Hub: hub, Identity: dir})
	if err != nil {
		return Identity{}, err
	}
	defer c.Close()
	block, _ := pem.Decode(f.ca)
	if block == nil {
		return Identity{}, holdfast.Errorf(holdfast.Invalid, "%s in %s is no certificate in PEM", caFile, dir)
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return Identity{}, holdfast.Errorf(holdfast.Invalid, "%s in %s can't be read", caFile, dir)
	}
	key, err := keepKey(dir, nextKeyFile)
	if err != nil {
		return Identity{}, err
	}
	cert, err := c.certificate(ctx, "simplereenroll", key, f.pair.Leaf.Subject.ToRDNSequence(), ca)
	if err != nil {
		return Identity{}, err
	}
	// In this order readFolder finds a key and its certificate at every step.
	if err := writeFile(dir, nextCertFile, certText(cert), 0o644); err != nil {
		return Identity{}, err
	}
	for _, step := range [][2]string{{nextKeyFile, keyFile}, {nextCertFile, certFile}} {
		if err := os.Rename(filepath.Join(dir, step[0]), filepath.Join(dir, step[1])); err != nil {
			return Identity{}, fmt.Errorf("renew: %w", err)
		}
		if err := syncFolder(dir); err != nil {
			return Identity{}, fmt.Errorf("renew: %w", err)
		}
	}
	return LoadIdentity(dir)
}

// RenewIfDue renews when two thirds of the certificate's life have passed. What
// it returns can be used even with an error: the identity as it is now.
func RenewIfDue(ctx context.Context, hub, dir string) (Identity, error) {
	i, err := LoadIdentity(dir)
	if err != nil || !i.Due(time.Now()) {
		return i, err
	}
	renewed, err := Renew(ctx, hub, dir)
	if err != nil {
		return i, fmt.Errorf("renew the certificate, which ends %s: %w", i.NotAfter.UTC().Format(time.RFC3339), err)
	}
	return renewed, nil
}
