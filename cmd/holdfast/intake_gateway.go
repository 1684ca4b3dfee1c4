package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/intake"
)

// gateway is a device's identity in a folder, as an intake uses it.
type gateway struct {
	dir     string
	address string // HOST:PORT, "" for what the identity says
}

// hubMQTT reads mqtts://HOST[:PORT] of a hub.
func hubMQTT(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "mqtts" || u.Hostname() == "" || u.User != nil {
		return "", holdfast.Errorf(holdfast.Invalid, "a hub's address for readings looks like mqtts://HOST:8883")
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "8883"), nil
	}
	return u.Host, nil
}

// Due reports whether the certificate is to be renewed.
func (g *gateway) Due() bool {
	i, err := client.LoadIdentity(g.dir)
	return err == nil && i.Due(time.Now())
}

// Way renews the certificate if that is due. An expired one must be renewed first;
// one that is merely due may fail to renew without keeping readings back.
func (g *gateway) Way(ctx context.Context) (intake.Way, error) {
	i, err := client.RenewIfDue(ctx, "", g.dir)
	if err != nil && (i.Device.IsZero() || time.Now().After(i.NotAfter)) {
		return intake.Way{}, err
	}
	way := intake.Way{Device: i.Device, Address: g.address}
	if way.TLS, err = g.tls(); err != nil {
		return way, err
	}
	if way.Address == "" && i.Hub.MQTT != "" {
		way.Address, err = hubMQTT(i.Hub.MQTT)
		return way, err
	}
	if way.Address == "" {
		u, err := url.Parse(i.Hub.Device)
		if err != nil || u.Hostname() == "" {
			return way, holdfast.Errorf(holdfast.Invalid, "say where the hub takes readings: --hub mqtts://HOST:8883")
		}
		way.Address = net.JoinHostPort(u.Hostname(), "8883")
	}
	return way, nil
}

func (g *gateway) tls() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(g.dir, "cert.pem"), filepath.Join(g.dir, "key.pem"))
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "in %s, cert.pem and key.pem are not a key and its certificate", g.dir)
	}
	ca, err := os.ReadFile(filepath.Join(g.dir, "ca.pem"))
	if err != nil {
		return nil, fileError("identity", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s holds no certificate", filepath.Join(g.dir, "ca.pem"))
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: pool}, nil
}

// key is for the intake's state: derived from the identity's key.
func (g *gateway) key() ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(g.dir, "key.pem"))
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	defer clear(text)
	sum := sha256.Sum256(append([]byte("holdfast intake state\n"), text...))
	return sum[:], nil
}
