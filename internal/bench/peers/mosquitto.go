package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bench"
)

// mosquitto is Eclipse mosquitto as a peer of P1 to P4.
type mosquitto struct {
	program string
	dir     string
	port    int
	roots   *x509.CertPool
	process *bench.Process
}

var mosquittoVersion = regexp.MustCompile(`mosquitto version (\S+)`)

// mosquittoYears are when releases came out.
var mosquittoYears = map[string]int{"2.0.11": 2021, "2.0.15": 2022, "2.0.18": 2023, "2.0.20": 2024, "2.0.21": 2025, "2.0.22": 2025}

func mosquittoSide(figure string) bench.Maker {
	return func(ctx context.Context, b *bench.Bench) (*bench.Side, error) {
		program, err := exec.LookPath("mosquitto")
		if err != nil {
			return nil, holdfast.Errorf(holdfast.NotFound, "mosquitto is not installed")
		}
		out, _ := exec.CommandContext(ctx, program, "-h").Output() // it exits 3 after its help
		version := "of an unknown version"
		if m := mosquittoVersion.FindSubmatch(out); m != nil {
			version = string(m[1])
		}
		return b.BrokerSide(ctx, figure, "mosquitto", version, mosquittoYears[version], func(f *bench.Fleet) (bench.Broker, error) {
			dir, err := b.Folder("mosquitto")
			if err != nil {
				return nil, err
			}
			m := &mosquitto{program: program, dir: dir}
			return m, m.configure(f.CA())
		})
	}
}

// configure writes the configuration for clients of the authority ca.
func (m *mosquitto) configure(ca []byte) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	m.port = port
	key, cert, roots, err := serverCertificate()
	if err != nil {
		return err
	}
	m.roots = roots
	for name, text := range map[string][]byte{"ca.pem": ca, "key.pem": key, "cert.pem": cert, "mosquitto.conf": []byte(m.config())} {
		if err := os.WriteFile(filepath.Join(m.dir, name), text, 0o600); err != nil {
			return fmt.Errorf("configure mosquitto: %w", err)
		}
	}
	return nil
}

// config asks of mosquitto the same TLS as of Holdfast and otherwise as little as
// it can do.
func (m *mosquitto) config() string {
	in := func(name string) string { return filepath.Join(m.dir, name) }
	return strings.Join([]string{
		"listener " + strconv.Itoa(m.port) + " 127.0.0.1",
		"cafile " + in("ca.pem"), // the devices' certificates are the same for both servers
		"certfile " + in("cert.pem"),
		"keyfile " + in("key.pem"),
		"require_certificate true",
		"use_identity_as_username true", // the device is who its certificate says, as in Holdfast
		"tls_version tlsv1.3",
		"allow_anonymous false",
		"persistence false",       // it keeps nothing, its fastest
		"max_connections -1",      //
		"set_tcp_nodelay true",    // acknowledgements leave at once, as Holdfast's do
		"max_inflight_messages 0", // no limit
		"max_queued_messages 0",
		"log_type error", // no line for each connection
		"connection_messages false",
		"sys_interval 0", // no statistics of its own
		"user " + currentUser(),
		"",
	}, "\n")
}

// currentUser keeps mosquitto from becoming another user who can't read its folder.
func currentUser() string {
	if os.Getuid() == 0 {
		return "root"
	}
	return "mosquitto" // ignored for who is not root
}

func (m *mosquitto) Start(ctx context.Context) error {
	// Thousands of connections need more files than a shell usually allows.
	cmd := exec.Command("sh", "-c", `ulimit -n "$(ulimit -Hn)"; exec "$0" -c "$1"`, m.program, filepath.Join(m.dir, "mosquitto.conf"))
	var err error
	m.process, err = bench.StartProcess(ctx, "mosquitto", cmd, func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", m.MQTT())
		if err != nil {
			return err
		}
		return c.Close()
	})
	return err
}

func (m *mosquitto) Stop() error           { return m.process.Stop() }
func (m *mosquitto) PID() int              { return m.process.PID() }
func (m *mosquitto) MQTT() string          { return net.JoinHostPort("127.0.0.1", strconv.Itoa(m.port)) }
func (m *mosquitto) Roots() *x509.CertPool { return m.roots }

// serverCertificate makes one for localhost, of the same kind as a hub's: ECDSA on
// P-256, by an authority of its own.
func serverCertificate() (key, cert []byte, roots *x509.CertPool, err error) {
	now := time.Now()
	authority, e1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	own, e2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(e1, e2); err != nil {
		return nil, nil, nil, err
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		DNSNames: []string{"localhost"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	caRaw, e1 := x509.CreateCertificate(rand.Reader, ca, ca, authority.Public(), authority)
	leafRaw, e2 := x509.CreateCertificate(rand.Reader, leaf, ca, own.Public(), authority)
	keyRaw, e3 := x509.MarshalPKCS8PrivateKey(own)
	if err := errors.Join(e1, e2, e3); err != nil {
		return nil, nil, nil, err
	}
	root, err := x509.ParseCertificate(caRaw)
	if err != nil {
		return nil, nil, nil, err
	}
	roots = x509.NewCertPool()
	roots.AddCert(root)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyRaw}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafRaw}), roots, nil
}
