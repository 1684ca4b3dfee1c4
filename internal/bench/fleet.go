package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
)

// Device is one that a hub has enrolled.
type Device struct {
	ID    string
	Label string
	Pair  tls.Certificate
}

// Fleet is a hub and devices of it that figures share: enrolling thousands takes
// its time. The hub is stopped; who uses it starts and stops it.
type Fleet struct {
	hub     *Hub
	ca      []byte // PEM
	devices []Device
}

// Hub is the fleet's.
func (f *Fleet) Hub() *Hub { return f.hub }

// Devices are the fleet's first n.
func (f *Fleet) Devices(n int) []Device { return f.devices[:n] }

// CA is the hub's authority, in PEM.
func (f *Fleet) CA() []byte { return f.ca }

// Roots trusts the hub's authority.
func (f *Fleet) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(f.ca)
	return pool
}

// Fleet returns at least n devices of the operating organisation, enrolled as any
// device is.
func (b *Bench) Fleet(ctx context.Context, n int) (*Fleet, error) {
	if b.fleet == nil {
		h, err := b.NewHub(ctx)
		if err != nil {
			return nil, err
		}
		ca, err := os.ReadFile(filepath.Join(h.Identity(), "ca.pem"))
		if err != nil {
			return nil, fmt.Errorf("read authority: %w", err)
		}
		b.fleet = &Fleet{hub: h, ca: ca}
	} else if len(b.fleet.devices) < n {
		if err := b.fleet.hub.Start(ctx); err != nil {
			return nil, err
		}
	}
	f := b.fleet
	if have := len(f.devices); have < n {
		began := time.Now()
		labels := make([]string, n-have)
		for i := range labels {
			labels[i] = fmt.Sprintf("bench-%05d", have+i)
		}
		devices, err := f.hub.Enrol(ctx, labels)
		if err != nil {
			return nil, err
		}
		f.devices = append(f.devices, devices...)
		b.Say("enrolled %d devices in %s", len(labels), time.Since(began).Round(100*time.Millisecond))
	}
	return f, f.hub.Stop()
}

// enrollers is how many devices enrol at once.
const enrollers = 16

// Enrol adds devices of the operating organisation and gets each its certificate
// by EST, with a key made here.
func (h *Hub) Enrol(ctx context.Context, labels []string) ([]Device, error) {
	codes, err := h.add(ctx, labels)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(h.Identity(), "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	devices := make([]Device, len(labels))
	group, ctx := errgroup.WithContext(ctx)
	var next, done atomic.Int64
	for range min(enrollers, len(labels)) {
		group.Go(func() error {
			var asks *http.Client
			for used := 0; ; used++ {
				i := int(next.Add(1)) - 1
				if i >= len(labels) {
					return nil
				}
				if used%100 == 0 { // the hub lets one address ask 200 times at once
					asks = h.asker(roots)
				}
				d, err := h.simpleEnrol(ctx, asks, codes[i])
				if err != nil {
					return fmt.Errorf("enrol device %d of %d: %w", i+1, len(labels), err)
				}
				d.Label = labels[i]
				devices[i] = d
				if n := done.Add(1); n%1000 == 0 && int(n) < len(labels) {
					h.b.Say("enrolled %d of %d devices", n, len(labels))
				}
			}
		})
	}
	return devices, group.Wait()
}

// add adds devices in one file of units, and returns their enrolment codes.
func (h *Hub) add(ctx context.Context, labels []string) ([]client.Code, error) {
	admin, err := h.Admin()
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	var csv bytes.Buffer
	csv.WriteString("serial,label\n")
	for _, l := range labels {
		fmt.Fprintf(&csv, "%s,%s\n", l, l)
	}
	body, _, err := admin.Stream(ctx, http.MethodPost, "/v1/units", url.Values{}, client.Body{Type: "text/csv", Data: csv.Bytes()})
	if err != nil {
		return nil, fmt.Errorf("add devices: %w", err)
	}
	defer body.Close()
	byLabel := make(map[string]client.Code, len(labels))
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		var line struct {
			Serial string
			Code   string `json:"enrolment_code"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("add devices: %w", err)
		}
		if byLabel[line.Serial], err = client.ParseCode(line.Code); err != nil {
			return nil, fmt.Errorf("add devices: %w", err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("add devices: %w", err)
	}
	codes := make([]client.Code, len(labels))
	for i, l := range labels {
		c, ok := byLabel[l]
		if !ok {
			return nil, holdfast.Errorf(holdfast.Internal, "add devices: the hub made no code for %s", l)
		}
		codes[i] = c
	}
	return codes, nil
}

// asker is an HTTP client at an address of its own: what a hub allows one address
// would be little for a whole fleet.
func (h *Hub) asker(roots *x509.CertPool) *http.Client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: Loopback(int(h.seen.Add(1)))}}
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext:     d.DialContext,
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13},
	}}
}

// Loopback is the nth of many addresses of this machine: all of 127.0.0.0/8 is.
func Loopback(n int) net.IP { return net.IPv4(127, 1, byte(n>>8), byte(n)) }

// simpleEnrol asks for a device's first certificate (RFC 7030, 4.2).
func (h *Hub) simpleEnrol(ctx context.Context, asks *http.Client, code client.Code) (Device, error) {
	var d Device
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return d, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: code.Device.String()}}, key)
	if err != nil {
		return d, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.Device()+"/.well-known/est/simpleenroll", bytes.NewReader([]byte(base64.StdEncoding.EncodeToString(csr))))
	if err != nil {
		return d, err
	}
	r.Header.Set("Content-Type", "application/pkcs10")
	r.SetBasicAuth(code.Device.String(), code.Secret)
	a, err := asks.Do(r)
	if err != nil {
		return d, err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(io.LimitReader(a.Body, 64<<10))
	if err != nil {
		return d, err
	}
	if a.StatusCode != http.StatusOK {
		return d, holdfast.Errorf(holdfast.Internal, "the hub answered %s: %s", a.Status, bytes.TrimSpace(text))
	}
	leaf, err := leafIn(text)
	if err != nil {
		return d, err
	}
	return Device{ID: code.Device.String(), Pair: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}}, nil
}

// leafIn finds the certificate in an answer of EST: base64 of a PKCS #7 SignedData
// that has certificates and nothing else (RFC 5652, 5.1).
func leafIn(text []byte) (*x509.Certificate, error) {
	der, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	var m struct {
		Type    asn1.ObjectIdentifier
		Content struct {
			Version         int
			Digests, Inner  asn1.RawValue
			Certificates    asn1.RawValue `asn1:"optional,tag:0"`
			Revoked, Signed asn1.RawValue `asn1:"optional"`
		} `asn1:"explicit,tag:0"`
	}
	if _, err := asn1.Unmarshal(der, &m); err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	certs, err := x509.ParseCertificates(m.Content.Certificates.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	for _, c := range certs {
		if !c.IsCA {
			return c, nil
		}
	}
	return nil, holdfast.Errorf(holdfast.Internal, "the hub's answer holds no certificate")
}
